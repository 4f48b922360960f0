// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// The rule by which a redirect is judged. The target is looked up by address; then, at the moment of the answer,
//
//   - right: the target says that it is active, give or take slack (Consul learns of it some milliseconds earlier or
//     later than the node's own health endpoint says it);
//   - late: it was active within the last grace. Consul needs that long to find out that a node is dead: Vault's own check
//     has a TTL of 5 seconds;
//   - wrong: anything else.
//
// A node that is killed or paused does not answer, so it is not active from then on.
const (
	askEvery = 50 * time.Millisecond
	slack    = time.Second
	grace    = 6 * time.Second
)

// oracle asks all nodes all the time.
type oracle struct {
	nodes  []*cluster.Vault
	mu     sync.Mutex
	active map[string]time.Time // by URL, when the node last said that it is active
}

func newOracle(c *cluster.Cluster) *oracle {
	return &oracle{nodes: c.Vaults, active: map[string]time.Time{}}
}

func (o *oracle) run(ctx context.Context) {
	var group sync.WaitGroup
	for _, v := range o.nodes {
		group.Go(func() {
			tick := time.NewTicker(askEvery)
			defer tick.Stop()
			for ctx.Err() == nil {
				o.ask(ctx, v)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	group.Wait()
}

func (o *oracle) ask(ctx context.Context, v *cluster.Vault) {
	ctx, cancel := context.WithTimeout(ctx, slack/2)
	defer cancel()
	if status, err := v.Health(ctx); err == nil && status == http.StatusOK {
		o.mu.Lock()
		o.active[v.URL] = time.Now()
		o.mu.Unlock()
	}
}

// await waits for the first active node.
func (o *oracle) await(ctx context.Context) {
	for wait.Sleep(ctx, askEvery) == nil {
		o.mu.Lock()
		n := len(o.active)
		o.mu.Unlock()
		if n > 0 {
			return
		}
	}
}

// judge says what a redirect to a target at a time was worth. It is asked slack later, when the oracle knows.
func (o *oracle) judge(target string, at time.Time) verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	last, ever := o.active[target]
	switch {
	case ever && !last.Before(at.Add(-slack)):
		return right
	case ever && !last.Before(at.Add(-grace)):
		return late
	}
	return wrong
}
