// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const (
	briefly = 300 * time.Millisecond // max_stale of the impatient handler
	back    = 20 * time.Second       // within which the truth is to be seen again: the longest backoff, on a busy machine

	queryRate, queryBurst = 4.0, 10.0 // queries a second, after so many at once: 2, and as many that wait, or take as long
)

// site is a Consul with two handlers that share a watcher: one keeps the last known node for five minutes, one briefly.
type site struct {
	consul   *standin.Consul
	h, brief *Handler
	logs     *observer.ObservedLogs // of their watcher and a view
}

// newSite returns a site whose handlers have seen the answer, if there is an active node in it. discovery is JSON that
// overrides where and how Consul is asked.
func newSite(t *testing.T, consul *standin.Consul, discovery string) *site {
	t.Helper()
	s := &site{consul: consul}
	ctx, cancel := newContext(t)
	t.Cleanup(cancel)
	handler := func(config string) *Handler {
		return load[*Handler](t, ctx, handlerID, fmt.Sprintf(`{"discovery": {"source": "consul", "address": %q, "poll_interval": "1s" %s}, "hold": 0 %s}`,
			consul.Addr(), discovery, unprobed(config)))
	}
	s.h, s.brief = handler(""), handler(fmt.Sprintf(`, "max_stale": %q`, briefly))
	var core zapcore.Core
	core, s.logs = observer.New(zapcore.InfoLevel)
	log := zap.New(core)
	view, err := pool.Acquire(s.h.discoverer, s.h.redirector.View.Config, log) // the same one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { view.Release(log) })
	start(t, ctx)
	return s
}

// lines are the log lines of the watcher: those of views are about nodes.
func (s *site) lines() (lines []observer.LoggedEntry) {
	for _, l := range s.logs.All() {
		if strings.HasPrefix(l.Message, "discovery ") {
			lines = append(lines, l)
		}
	}
	return lines
}

// The truth before a fault; and what it becomes meanwhile: the active node dies, which leaves it its tag, and another
// takes over. What a fault makes up has vault-9 as the active node: it must never be believed.
func truthBefore() []*api.ServiceEntry {
	return []*api.ServiceEntry{standin.Active("vault-1"), standin.Standby("vault-2")}
}

func truthAfter() []*api.ServiceEntry {
	return []*api.ServiceEntry{standin.Active("vault-1", standin.NodeCheck("serfHealth", api.HealthCritical)), standin.Active("vault-2")}
}

var lie = sync.OnceValue(func() string {
	body, err := json.Marshal([]*api.ServiceEntry{standin.Active("vault-9")})
	if err != nil {
		panic(err)
	}
	return string(body)
})

// fault is what happens to Consul, and what is to be seen of it.
type fault struct {
	begin   func(*standin.Consul)
	end     func(*standin.Consul) // nil: begin set a handler or edited headers, which are taken back
	visible []*api.ServiceEntry   // what answers show while the fault lasts; nil: they show nothing
	reason  discovery.Reason
	detail  string // part of it
}

// suffer begins and ends the fault, and checks what is seen.
func (s *site) suffer(t *testing.T, f fault) {
	t.Helper()
	s.follows(t, time.Now(), "vault-1", 1)
	began := time.Now()
	s.begin(f)
	expiry := s.expires(t)
	s.explains(t, f, began, expiry)
	ended := time.Now()
	s.end(f)
	s.follows(t, ended, "vault-2", 2)
	s.bounded(t)
	s.tells(t)
	ctx, cancel := context.WithTimeout(t.Context(), back)
	defer cancel()
	if s.consul.Await(ctx, func() bool { return s.consul.Connections() <= 1 }) != nil {
		t.Errorf("%d connections are left", s.consul.Connections())
	}
}

// begin begins the fault, and changes the truth meanwhile.
func (s *site) begin(f fault) {
	f.begin(s.consul)
	if f.visible != nil {
		s.consul.Set("vault", f.visible...)
	} else {
		s.consul.Set("vault", truthAfter()...)
	}
}

// end takes the fault back.
func (s *site) end(f fault) {
	if f.visible != nil {
		s.consul.SetQuietly("vault", truthAfter()...)
	}
	if f.end != nil {
		f.end(s.consul)
	} else {
		s.consul.Header(nil)
		s.consul.Handle(nil)
	}
}

// expires checks that the last known node is used for max_stale, not longer, and returns when that was over.
func (s *site) expires(t *testing.T) (expiry time.Time) {
	t.Helper()
	until(t, s.brief, "the fault is seen", func(st *engine.State) bool { return !st.StaleSince.IsZero() })
	expiry = s.brief.redirector.View.State().StaleSince.Add(briefly)
	code, d := readHealth(t, s.brief)
	if time.Now().Before(expiry) && (code != http.StatusOK || !d.Healthy || d.ActiveNode != "vault-1") {
		t.Errorf("before max_stale: status %d, document %+v", code, d)
	}
	_ = wait.Sleep(t.Context(), time.Until(expiry))
	code, d = readHealth(t, s.brief)
	if code != http.StatusServiceUnavailable || d.Healthy || d.ActiveVault != nil || d.Reason != discovery.ReasonStaleExpired {
		t.Errorf("after max_stale: status %d, document %+v", code, d)
	}
	if resp := ask(t, s.brief, "GET", "/v1/x"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Location") != "" {
		t.Errorf("after max_stale: status %d, Location %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	return expiry
}

// explains checks that the status says why nothing newer is known, and since when: max_stale of the other
// handler was over at expiry.
func (s *site) explains(t *testing.T, f fault, began, expiry time.Time) {
	t.Helper()
	_ = wait.Sleep(t.Context(), 1500*time.Millisecond-time.Since(began)) // a few more queries
	until(t, s.h, "the reason", func(st *engine.State) bool {
		return st.ReasonAt(time.Now()) == f.reason && strings.Contains(st.Detail, f.detail)
	})
	code, d := readHealth(t, s.h)
	if code != http.StatusOK || !d.Healthy || d.ActiveNode != "vault-1" || d.Reason != f.reason || d.Detail == "" {
		t.Errorf("while it lasts: status %d, document %+v", code, d)
	}
	if d.StaleSince == nil || d.StaleSince.Before(began) || d.StaleSince.After(expiry.Add(time.Second-briefly)) {
		t.Errorf("stale since %v, want %s or shortly after", d.StaleSince, began)
	}
	if got := ask(t, s.h, "GET", "/v1/x").Header.Get("Location"); got != "https://127.10.0.1:8200/v1/x" {
		t.Errorf("while it lasts: Location %q", got)
	}
}

// tells checks the log lines of the fault and of its end. Lines are written by and by. An outage that showed answers ends
// with two of them.
func (s *site) tells(t *testing.T) {
	t.Helper()
	wait.Until(t, "the end of the fault is told", func() bool { return len(s.lines()) >= 2 })
	for i, l := range s.lines() {
		want := zapcore.InfoLevel
		if i == 0 {
			want = zapcore.WarnLevel
		}
		if l.Level != want || i > 2 {
			t.Errorf("log lines %v, want one WARN, and INFO when it is over", s.lines())
		}
	}
}

// follows checks that both handlers redirect to the node soon after the truth could be known, and that no other node came
// in between: so many became active.
func (s *site) follows(t *testing.T, since time.Time, node string, changes uint64) {
	t.Helper()
	for _, h := range []*Handler{s.h, s.brief} {
		until(t, h, "redirect to "+node, func(st *engine.State) bool {
			return st.ReasonAt(time.Now()) == discovery.ReasonOK && st.Active() && st.Node.Name == node
		})
		st := h.redirector.View.State()
		if took := st.Made.Sub(since); took > back {
			t.Errorf("%s until %s, want %s at most", took, node, back)
		}
		code, d := readHealth(t, h)
		if code != http.StatusOK || !d.Healthy || d.Reason != discovery.ReasonOK || d.ActiveNode != node || d.StaleSince != nil || d.Changes != changes {
			t.Errorf("%s: status %d, document %+v", node, code, d)
		}
		if got, want := ask(t, h, "GET", "/v1/x").Header.Get("Location"), "https://127.10.0."+node[len(node)-1:]+":8200/v1/x"; got != want {
			t.Errorf("Location %q, want %q", got, want)
		}
	}
}

// bounded checks that in no stretch of time more queries came than the token bucket lets through. Two are asked before they
// are paid for, some may come late, and the transport sends one again where a connection was closed while it was idle.
func (s *site) bounded(t *testing.T) {
	t.Helper()
	asked := s.consul.Requests()
	for i := range asked {
		for j := i; j < len(asked); j++ {
			took := asked[j].Time.Sub(asked[i].Time)
			if n := j - i + 1; float64(n) > queryBurst+(queryRate+1)*took.Seconds()+2 { // those that waited for a second cost nothing
				t.Fatalf("%d queries in %s", n, took)
			}
		}
	}
}
