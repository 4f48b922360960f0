// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/events"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
)

func init() { caddy.RegisterModule(recorder{}) }

// recorder is a handler of events that keeps them, and waits as told.
type recorder struct{}

func (recorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.test_record", New: func() caddy.Module { return new(recorder) }}
}

var recorded struct {
	sync.Mutex
	events []caddy.Event
	block  chan struct{} // handlers wait for its end, if there is one
	busy   int           // handlers that wait
}

// Handle implements caddyevents.Handler.
func (recorder) Handle(_ context.Context, e caddy.Event) error {
	recorded.Lock()
	recorded.events = append(recorded.events, e)
	block := recorded.block
	recorded.busy++
	recorded.Unlock()
	if block != nil && strings.HasPrefix(e.Name(), "vault_") {
		<-block // and not for any context
	}
	recorded.Lock()
	recorded.busy--
	recorded.Unlock()
	return nil
}

// record begins to record, and returns the app's config.
func record(t *testing.T) map[string]any {
	reset := func() {
		recorded.Lock()
		defer recorded.Unlock()
		if recorded.events = nil; recorded.block != nil {
			close(recorded.block)
			recorded.block = nil
		}
		events.Discard() // those of tests before
	}
	reset()
	t.Cleanup(reset)
	names := []string{
		"started", "stopping", "vault_active_changed", "vault_active_lost", "vault_discovery_down", "vault_discovery_up", "vault_node_changed",
	}
	return map[string]any{"events": map[string]any{"subscriptions": []any{map[string]any{
		"events": names, "handlers": []any{map[string]any{"handler": "test_record"}},
	}}}}
}

// heard returns the events with a name so far.
func heard(name string) (list []caddy.Event) {
	recorded.Lock()
	defer recorded.Unlock()
	for _, e := range recorded.events {
		if e.Name() == name {
			list = append(list, e)
		}
	}
	return list
}

// awaitEvent waits for the n-th event with a name, and returns its data without what differs from run to run.
func (c *testCaddy) awaitEvent(name string, n int) map[string]any {
	c.t.Helper()
	c.await(fmt.Sprintf("%s number %d", name, n), func() bool { return len(heard(name)) >= n })
	e := heard(name)[n-1]
	if e.Origin() == nil || e.Origin().CaddyModule().ID != "vault_redirect" {
		c.t.Errorf("%s: origin %v", name, e.Origin())
	}
	if _, err := json.Marshal(e.CloudEvent()); err != nil {
		c.t.Errorf("%s: %v", name, err)
	}
	data := maps.Clone(e.Data)
	if data["instance"] != instance.ID {
		c.t.Errorf("%s: instance %v", name, data["instance"])
	}
	delete(data, "instance")
	for key, value := range data {
		if !strings.HasSuffix(key, "_seconds") {
			continue
		}
		if seconds, ok := value.(float64); !ok || seconds < 0 || seconds > 20 {
			c.t.Errorf("%s: %s is %v", name, key, value)
		}
		data[key] = value.(float64) > 0
	}
	return data
}

func TestEvents(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "events", node("vault-0", true), node("vault-1", false))
	c.mustLoad(c.config(record(t), redirector(s, map[string]any{"name": "prod"})))
	check := func(name string, n int, want map[string]any) {
		t.Helper()
		if got := c.awaitEvent(name, n); !maps.Equal(got, want) {
			t.Errorf("%s: data\n%v, want\n%v", name, got, want)
		}
	}
	// The first one comes even if discovery answers before Caddy has started.
	check("vault_active_changed", 1, map[string]any{
		"cluster": "prod", "node": "vault-0", "url": "https://vault.invalid:8200", "previous_node": "", "previous_url": "",
		"gap_seconds": false, "changes": uint64(1), "by": "discovery",
	})
	s.Say(nil, node("vault-0", false), node("vault-1", false))
	check("vault_active_lost", 1, map[string]any{
		"cluster": "prod", "previous_node": "vault-0", "previous_url": "https://vault.invalid:8200", "reason": "no_active", "active_seconds": true,
	})
	check("vault_node_changed", 1, map[string]any{"cluster": "prod", "node": "vault-0", "state": "standby", "previous_state": "active"})
	s.Say(nil, node("vault-0", false), at(node("vault-1", true), "other.invalid"))
	check("vault_active_changed", 2, map[string]any{
		"cluster": "prod", "node": "vault-1", "url": "https://other.invalid:8200", "previous_node": "vault-0",
		"previous_url": "https://vault.invalid:8200", "gap_seconds": true, "changes": uint64(2), "by": "discovery",
	})
	check("vault_node_changed", 2, map[string]any{"cluster": "prod", "node": "vault-1", "state": "active", "previous_state": "standby"})
	s.Say(unreachable)
	check("vault_discovery_down", 1, map[string]any{"cluster": "prod", "reason": "consul_unreachable"})
	s.Say(nil, node("vault-0", false), at(node("vault-1", true), "other.invalid"))
	check("vault_discovery_up", 1, map[string]any{"cluster": "prod", "outage_seconds": true})
	// A name that could be more than a name to a command is left out.
	s.Say(nil, at(node("-rf $(x)", true), "third.invalid"))
	check("vault_active_changed", 3, map[string]any{
		"cluster": "prod", "node": "", "url": "https://third.invalid:8200", "previous_node": "vault-1",
		"previous_url": "https://other.invalid:8200", "gap_seconds": false, "changes": uint64(3), "by": "discovery",
	})
	if n := len(heard("vault_discovery_down")); n != 1 {
		t.Errorf("discovery went down %d times", n)
	}
}

// TestEventsThroughReloads has changes and reloads at the same time: each change is told once, and in order, by a config
// that had started, and had not begun to stop, when it took the event.
func TestEventsThroughReloads(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "event-reloads", node("vault-0", true))
	apps := record(t)
	config := func(i int) map[string]any {
		return c.config(maps.Clone(apps), redirector(s, map[string]any{"name": "prod", "max_stale": fmt.Sprintf("%dm", 1+i%3)}))
	}
	c.mustLoad(config(0))
	c.awaitEvent("vault_active_changed", 1)
	const reloads = 8
	var group sync.WaitGroup
	group.Go(func() {
		for i := 1; i <= reloads; i++ {
			if err := c.load(config(i)); err != nil {
				t.Error(err)
			}
		}
	})
	seen := 1
	for i := 1; i <= 12; i++ {
		seen++
		s.Say(nil, at(node(fmt.Sprintf("vault-%d", i), true), fmt.Sprintf("host-%d.invalid", i)))
		c.await("the change", func() bool { return len(heard("vault_active_changed")) >= seen })
	}
	group.Wait()
	var nodes []string
	for _, e := range heard("vault_active_changed") {
		nodes = append(nodes, e.Data["node"].(string))
	}
	var want []string
	for i := range 13 {
		want = append(want, fmt.Sprintf("vault-%d", i))
	}
	if !slices.Equal(nodes, want) {
		t.Errorf("active nodes %q", nodes)
	}
	if n := len(heard("started")); n != reloads+1 {
		t.Errorf("%d configs started", n)
	}
}

// TestEventsWaitForTheStart: the events app cannot bear an event while it starts, so none may come before.
func TestEventsWaitForTheStart(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "event-start", node("vault-0", true))
	apps := record(t)
	for i := range 5 {
		c.mustLoad(c.config(maps.Clone(apps), redirector(s, map[string]any{"name": "prod"})))
		c.awaitEvent("vault_active_changed", i+1)
		started := heard("started")[i].Timestamp()
		if at := heard("vault_active_changed")[i].Timestamp(); at.Before(started) {
			t.Errorf("an event %s before the start", started.Sub(at))
		}
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		c.await("the end", func() bool { return len(heard("stopping")) == i+1 })
	}
	count := len(heard("vault_active_changed"))
	s.Say(nil, at(node("vault-9", true), "other.invalid")) // which no query asks for
	if n := len(heard("vault_active_changed")); n != count {
		t.Errorf("%d events after the end", n-count)
	}
}
