// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// TestMain keeps tests on this machine: names are looked up in dns, and no proxy is used.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		_ = os.Unsetenv(name)
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: dns.dial}
	os.Exit(m.Run())
}

// provisioning is held while a config is provisioned, for which Caddy has globals.
var provisioning sync.Mutex

// newContext returns the context of a config, and the end of that config.
func newContext(t testing.TB) (caddy.Context, context.CancelFunc) {
	t.Helper()
	provisioning.Lock()
	defer provisioning.Unlock()
	base, err := caddy.ProvisionContext(&caddy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return caddy.NewContext(base)
}

// load returns a module with a config, provisioned and validated as Caddy would.
func load[M any](t testing.TB, ctx caddy.Context, id, config string) M {
	t.Helper()
	mod, err := ctx.LoadModuleByID(id, json.RawMessage(config))
	if err != nil {
		t.Fatal(err)
	}
	return mod.(M)
}

// start starts the watchers and probes of a config.
func start(t testing.TB, ctx caddy.Context) {
	t.Helper()
	app, err := ctx.App(appID)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.(*App).Start(); err != nil {
		t.Fatal(err)
	}
}

const handlerID = "http.handlers.vault_redirect"

// provision returns a handler as Caddy would run it, asking the stand-in. config is JSON without the discovery, and begins
// with a comma. Nodes are not probed unless it says so: their addresses are made up.
func provision(t testing.TB, consul *standin.Consul, config string) *Handler {
	t.Helper()
	return provisionJSON(t, fmt.Sprintf(`{"discovery": {"source": "consul", "address": %q} %s}`, consul.Addr(), unprobed(config)))
}

// unprobed turns the probes off in a config that does not mention them.
func unprobed(config string) string {
	if strings.Contains(config, `"probe"`) {
		return config
	}
	return config + `, "probe": {"mode": "off"}`
}

// provisionJSON returns a handler as Caddy would run it.
func provisionJSON(t testing.TB, raw string) *Handler {
	t.Helper()
	ctx, cancel := newContext(t)
	t.Cleanup(cancel)
	h := load[*Handler](t, ctx, handlerID, raw)
	start(t, ctx)
	return h
}

// runJSON runs Caddy with a config until the test ends, and waits until all its clusters are known.
func runJSON(t testing.TB, config string) {
	t.Helper()
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := caddy.Load([]byte(config), true); err != nil {
		t.Fatalf("%v: %s", err, config)
	}
	for _, c := range registry.Clusters() {
		wait.Until(t, "an answer of Consul", func() bool { return c.View.State().Phase().Situation != engine.Starting })
	}
}

// awaitActive waits until the one cluster that is served has an active node.
func awaitActive(t testing.TB) {
	t.Helper()
	wait.Until(t, "an active node", func() bool { c := registry.Clusters(); return len(c) == 1 && c[0].View.State().Active() })
}

// What the proxy promises: how long a body may be that it reads before it sends the request on, and how often it sends a read
// again that may have arrived.
const (
	maxBuffered = 32 << 10
	maxRepeats  = 2
)

// local and remote are addresses of clients: on this machine, and elsewhere.
const (
	local  = "127.0.0.1:1234"
	remote = "203.0.113.7:1234"
)

// askFrom sends a request of a client to the handler alone.
func askFrom(t testing.TB, h *Handler, client, method, target string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = client
	return serve(t, h, r)
}

// ask sends a request of a client on this machine, which is redirected to nodes on it.
func ask(t testing.TB, h *Handler, method, target string) *http.Response {
	t.Helper()
	return askFrom(t, h, local, method, target)
}

// serve sends a request to the handler alone.
func serve(t testing.TB, h *Handler, r *http.Request) *http.Response {
	t.Helper()
	rec := httptest.NewRecorder()
	if err := h.ServeHTTP(rec, r, nil); err != nil {
		t.Errorf("the handler returned an error, which Caddy would log with the request: %v", err)
	}
	return rec.Result()
}

// readHealth reads the status document.
func readHealth(t testing.TB, h *Handler) (code int, d status.Health) {
	t.Helper()
	resp := ask(t, h, "GET", defaultHealthPath)
	if err := json.NewDecoder(resp.Body).Decode(&d); err != nil {
		t.Error(err)
	}
	return resp.StatusCode, d
}

// errorsOf returns the text of an answer in the form of Vault's errors.
func errorsOf(t testing.TB, resp *http.Response) string {
	t.Helper()
	var body struct{ Errors []string }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || len(body.Errors) != 1 {
		t.Fatalf("the answer is not in the form of Vault's errors: %v %v", body, err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	return body.Errors[0]
}

// until waits for the handler's state to be as it should. A node that is stale expires without a new state.
func until(t testing.TB, h *Handler, what string, ok func(*engine.State) bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		changed, s := h.redirector.View.Changed(), h.redirector.View.State()
		if ok(s) {
			return
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: still reason %s (%s), url %q", what, s.ReasonAt(time.Now()), s.Detail, s.Target.URL)
		}
	}
}

// waits reports whether requests wait for another state than this one, if hold lets them.
func waits(s *engine.State) bool {
	p := s.Phase()
	return p.Situation == engine.Silent || p.Situation == engine.None && !p.Time.IsZero()
}

// wantError fails unless the error has all parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in the error: %v", part, err)
		}
	}
}

// handlerOf returns a handler that knows nodes, of which one carries the tag active, and the end of it.
func handlerOf(t testing.TB, scheme, redirectTo string, nodes ...discovery.Node) (h *Handler, end func()) {
	t.Helper()
	addressing, err := engine.NewAddressing(scheme, redirectTo, 0)
	if err != nil {
		t.Fatal(err)
	}
	g, log := &standin.Given{Nodes: nodes, By: discovery.Selection{Mode: discovery.ByTag, Tag: "active", Service: "vault"}}, zap.NewNop()
	view, err := engine.NewPool().Acquire(g, engine.Config{Addressing: addressing}, log)
	if err != nil {
		t.Fatal(err)
	}
	view.Start()
	h = &Handler{
		redirector: &redirect.Redirector{View: view, Queue: new(engine.Queue), RetryAfter: []string{"1"}, Log: log},
		discoverer: g, logger: log, healthPath: defaultHealthPath, last: new(lastReported),
	}
	for changed := view.Changed(); view.State().Phase().Situation == engine.Starting; changed = view.Changed() {
		<-changed
	}
	return h, func() { view.Release(log) }
}

// nodeAt is an active node that is registered with an address and a port.
func nodeAt(address string, port int) discovery.Node {
	return discovery.Node{Name: "vault-1", ID: "vault", ServiceAddress: address, Port: port, Tags: []string{"active"}}
}
