// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// guard asks Consul and the redirector again and again, and fails the test when a redirect leads to a node that Consul
// has called critical for a second, unless the redirector says that what it knows is stale.
type guard struct {
	consul *cluster.Consul
	site   string

	reported time.Time // value of critical that the test has failed for: once is enough

	mu       sync.Mutex
	statuses map[string]string    // by ID of the instance
	critical map[string]time.Time // since when, by host:port
	seen     []string             // targets, or 503; each once, in the order of their first appearance
}

func startGuard(t *testing.T, consul *cluster.Consul, site string) *guard {
	ctx, cancel := context.WithCancel(t.Context())
	g := &guard{consul: consul, site: site}
	var group sync.WaitGroup
	group.Go(func() {
		for tick := time.Tick(50 * time.Millisecond); ctx.Err() == nil; <-tick {
			g.askConsul(ctx)
			g.askCaddy(ctx, t)
		}
	})
	group.Go(func() { // at its own pace: Consul may hang
		for tick := time.Tick(5 * time.Millisecond); ctx.Err() == nil; <-tick {
			if what := g.target(ctx); what != "" {
				g.mu.Lock()
				if !slices.Contains(g.seen, what) {
					g.seen = append(g.seen, what)
				}
				g.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	return g
}

// askConsul learns which instances are critical. While Consul does not answer, nothing is known.
func (g *guard) askConsul(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	entries, _, err := g.consul.API().Health().Service("vault", "", false, (&api.QueryOptions{}).WithContext(ctx))
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.critical
	g.statuses, g.critical = map[string]string{}, map[string]time.Time{}
	if err != nil {
		return
	}
	for _, e := range entries {
		status := e.Checks.AggregatedStatus()
		g.statuses[e.Service.ID] = status
		if status != api.HealthCritical && status != api.HealthMaint {
			continue
		}
		address := fmt.Sprintf("http://%s:%d", e.Service.Address, e.Service.Port)
		since, was := before[address]
		if !was {
			since = time.Now()
		}
		g.critical[address] = since
	}
}

func (g *guard) askCaddy(ctx context.Context, t *testing.T) {
	asked := time.Now()
	target := g.target(ctx)
	g.mu.Lock()
	since, critical := g.critical[target]
	g.mu.Unlock()
	if !critical || asked.Sub(since) < time.Second || since.Equal(g.reported) {
		return
	}
	if now, whole := look(t, g.site); whole && now.target == target && !now.stale {
		g.reported = since
		t.Errorf("%s redirects to %s, which Consul has called critical for %s", g.site, target, asked.Sub(since))
	}
}

// target asks for a redirect and returns where it leads, or 503, or nothing if there was no such answer.
func (g *guard) target(ctx context.Context) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.site+"/v1/x", nil)
	if err != nil {
		return ""
	}
	resp, err := client.Do(req)
	switch {
	case ctx.Err() != nil:
		return ""
	case err != nil:
		return err.Error()
	}
	resp.Body.Close()
	if target, ok := strings.CutSuffix(resp.Header.Get("Location"), "/v1/x"); ok {
		return target
	}
	return fmt.Sprint(resp.StatusCode)
}

// status is Consul's aggregated status of an instance; none if there is no such instance, or if Consul does not answer.
func (g *guard) status(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if status := g.statuses[id]; status != "" {
		return status
	}
	return "none"
}

func (g *guard) forget() { g.mu.Lock(); g.seen = nil; g.mu.Unlock() }

func (g *guard) answers() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.seen)
}
