// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func init() {
	caddy.RegisterModule(failing{})
	caddy.RegisterModule(noDiscovery{})
}

// failing is another app, which fails where its config says.
type failing struct {
	In string `json:"in"`
}

func (failing) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "vault_redirect_test_failing", New: func() caddy.Module { return new(failing) }}
}

func (f *failing) fail(step string) error {
	if f.In == step {
		return errors.New("as told, in " + step)
	}
	return nil
}
func (f *failing) Provision(caddy.Context) error { return f.fail("provision") }
func (f *failing) Validate() error               { return f.fail("validate") }
func (f *failing) Start() error                  { return f.fail("start") }
func (f *failing) Stop() error                   { return nil }

// noDiscovery is a module in the wrong namespace.
type noDiscovery struct{}

func (noDiscovery) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.vault_redirect.discovery.test_none", New: func() caddy.Module { return new(noDiscovery) }}
}

// handlerJSON is the config of a handler that asks Consul at an address. more begins with a comma.
func handlerJSON(address, more string) string {
	return fmt.Sprintf(`{"handler": "vault_redirect", "discovery": {"source": "consul", "address": %q, "poll_interval": "10m"} %s}`, address, unprobed(more))
}

// keyOf is the key of the watcher that handlerJSON leads to.
func keyOf(t *testing.T, address string) string {
	t.Helper()
	c := &Consul{Address: address, PollInterval: caddy.Duration(10 * time.Minute)}
	if err := c.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	return c.Key()
}

func wantReferences(t *testing.T, key string, want int) {
	t.Helper()
	if n := pool.Users(key); n != want {
		t.Errorf("%d references to the watcher, want %d", n, want)
	}
}

// wantGoroutines waits until there are no more goroutines with the package's functions in their stacks than wanted.
func wantGoroutines(t *testing.T, want int) {
	t.Helper()
	var stacks string
	n := -1
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		buffer := make([]byte, 4<<20)
		stacks = string(buffer[:runtime.Stack(buffer, true)])
		n = 0
		for stack := range strings.SplitSeq(stacks, "\n\n") {
			for _, f := range []string{"engine.(*watcher).run(", "engine.(*logQueue).run(", "engine.(*View).", "engine.(*Cluster).", "(*Transport).", "(*persistConn)."} {
				if strings.Contains(stack, f) {
					n++
					break
				}
			}
		}
		if n == want {
			return
		}
	}
	t.Errorf("%d goroutines of watchers, views and their connections, want %d:\n%s", n, want, stacks)
}

// perWatcher is how many goroutines a watcher has that waits for Consul: its own, that of its log lines, and the
// connection's two. Views have none.
const perWatcher = 4

// loader returns a function that loads a config with handlers and other apps into Caddy, as a reload does.
func loader(t *testing.T) func(apps string, handlers ...string) error {
	clearConsulEnv(t)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return func(apps string, handlers ...string) error {
		var routes []string
		for i, h := range handlers {
			routes = append(routes, fmt.Sprintf(`{"match": [{"path": ["/v1/%d/*"]}], "handle": [%s]}`, i, h))
		}
		return caddy.Load(fmt.Appendf(nil, `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
			"apps": {%s "http": {"servers": {"s": {"listen": ["127.0.0.1:0"], "routes": [%s]}}}}}`, apps, strings.Join(routes, ",")), true)
	}
}

// reloads is a Caddy that is reloaded with handlers on two Consuls.
type reloads struct {
	load       func(apps string, handlers ...string) error
	one, two   *standin.Consul
	key1, key2 string   // of their watchers
	good       []string // three handlers on the first Consul, and two on the second
}

func newReloads(t *testing.T) *reloads {
	t.Helper()
	one, two := standin.RunConsul(t, standin.Active("vault-1")), standin.RunConsul(t, standin.Active("vault-2"))
	r := &reloads{one: one, two: two, load: loader(t), key1: keyOf(t, one.Addr()), key2: keyOf(t, two.Addr())}
	r.good = []string{
		handlerJSON(one.Addr(), ""), handlerJSON(one.Addr(), ""), handlerJSON(one.Addr(), `, "redirect_to": "node_name"`),
		handlerJSON(two.Addr(), ""), handlerJSON(two.Addr(), `, "scheme": "http"`),
	}
	return r
}

func (r *reloads) mustLoad(t *testing.T, handlers ...string) {
	t.Helper()
	if err := r.load("", handlers...); err != nil {
		t.Fatal(err)
	}
}

// wantOpen waits until a Consul has as many queries and connections as wanted.
func wantOpen(t *testing.T, of *standin.Consul, want int) {
	t.Helper()
	if err := of.Await(t.Context(), func() bool { return of.Open() == want && of.Connections() == want }); err != nil {
		t.Errorf("%d queries and %d connections at Consul: %v", of.Open(), of.Connections(), err)
	}
}

// wantAsBefore checks that exactly the good handlers hold something.
func (r *reloads) wantAsBefore(t *testing.T) {
	t.Helper()
	wantReferences(t, r.key1, 3)
	wantReferences(t, r.key2, 2)
	wantOpen(t, r.one, 1)
	wantOpen(t, r.two, 1)
	wantGoroutines(t, 2*perWatcher)
}

// TestReloadsGiveBackWhatTheyTake reloads with handlers on two discoveries, changes what they ask, and fails at each step.
func TestReloadsGiveBackWhatTheyTake(t *testing.T) {
	r := newReloads(t)
	r.mustLoad(t, r.good...)
	r.wantAsBefore(t)
	t.Run("the same", r.testTheSame)
	t.Run("other discoveries and back", r.testOthersAndBack)
	r.testFailures(t)
	t.Run("the end", r.testTheEnd)
}

func (r *reloads) testTheSame(t *testing.T) {
	for range 20 {
		r.mustLoad(t, r.good...)
	}
	r.wantAsBefore(t)
	if r.one.Queries() != 2 || r.two.Queries() != 2 {
		t.Errorf("%d and %d queries, want 2 and 2: a reload starts none", r.one.Queries(), r.two.Queries())
	}
}

func (r *reloads) testOthersAndBack(t *testing.T) {
	for range 10 {
		r.mustLoad(t, r.good[0], handlerJSON(r.one.Addr(), `, "port": 443`))
		wantReferences(t, r.key1, 2)
		wantReferences(t, r.key2, 0)
		wantOpen(t, r.two, 0)
		r.mustLoad(t, r.good...)
	}
	r.wantAsBefore(t)
	if r.one.Queries() != 2 {
		t.Errorf("%d queries of the Consul that was used all along, want 2", r.one.Queries())
	}
}

// testFailures makes reloads fail, with a handler on a third Consul among them.
func (r *reloads) testFailures(t *testing.T) {
	third := standin.RunConsul(t, standin.Active("vault-3"))
	key3 := keyOf(t, third.Addr())
	missing := filepath.Join(t.TempDir(), "none")
	for _, row := range []struct {
		name, apps, handler, want string
		maySee                    bool // the third Consul may be asked: the config was about to run
	}{
		{name: "no JSON of ours", handler: `{"handler": "vault_redirect", "x": 1}`, want: "unknown field"},
		{name: "addressing", handler: handlerJSON(third.Addr(), `, "redirect_to": "{nobody}.x"`), want: "nobody"},
		{name: "unknown discovery", handler: `{"handler": "vault_redirect", "discovery": {"source": "etcd"}}`, want: "etcd"},
		{name: "no discovery at all", handler: `{"handler": "vault_redirect", "discovery": {"source": "test_none"}}`, want: "not a discovery"},
		{name: "option of the discovery", handler: `{"handler": "vault_redirect", "discovery": {"source": "consul", "token_file": "` + missing + `"}}`, want: "token_file"},
		{name: "our own app", apps: `"vault_redirect": {"x": 1},`, handler: handlerJSON(third.Addr(), ""), want: "unknown field"},
		{name: "source that does not open", handler: `{"handler": "vault_redirect", "discovery": {"source": "test_script", "script": "none"}}`, want: "no such script"},
		{name: "Validate", handler: handlerJSON(third.Addr(), `, "health_path": "up"`), want: "health_path"},
		{name: "Validate of a discovery in use", handler: handlerJSON(r.one.Addr(), `, "health_path": "up"`), want: "health_path"},
		{name: "Provision of another app", apps: `"vault_redirect_test_failing": {"in": "provision"},`, handler: handlerJSON(third.Addr(), ""), want: "in provision"},
		{name: "Validate of another app", apps: `"vault_redirect_test_failing": {"in": "validate"},`, handler: handlerJSON(third.Addr(), ""), want: "in validate"},
		{name: "Start of another app", apps: `"vault_redirect_test_failing": {"in": "start"},`, handler: handlerJSON(third.Addr(), ""), want: "in start", maySee: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			// Caddy goes through the apps in no order.
			for range 6 {
				err := r.load(row.apps, append([]string{handlerJSON(third.Addr(), ""), r.good[0], r.good[3]}, row.handler)...)
				if err == nil || !strings.Contains(err.Error(), row.want) {
					t.Fatalf("error %v, want %q", err, row.want)
				}
				wantReferences(t, key3, 0)
			}
			wantReferences(t, "test_script:none", 0)
			r.wantAsBefore(t)
			wantOpen(t, third, 0)
			if n := third.Queries(); n > 0 && !row.maySee {
				t.Errorf("%d queries for a config that was never to run", n)
			}
		})
	}
}

func (r *reloads) testTheEnd(t *testing.T) {
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	wantReferences(t, r.key1, 0)
	wantReferences(t, r.key2, 0)
	wantOpen(t, r.one, 0)
	wantOpen(t, r.two, 0)
	wantGoroutines(t, 0)
}
