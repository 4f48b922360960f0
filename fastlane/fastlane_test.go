// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package fastlane

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func init() {
	caddy.RegisterModule(new(app))
	caddy.RegisterModule(new(handler))
}

// app stands for the app of vault_redirect.
type app struct{ ctx caddy.Context }

func (*app) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "vault_redirect", New: func() caddy.Module { return new(app) }}
}

func (a *app) Provision(ctx caddy.Context) error {
	a.ctx = ctx
	return nil
}

func (a *app) Start() error {
	served, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return err
	}
	return Check(served.(*caddyhttp.App))
}

func (*app) Stop() error { return nil }

// handler stands for the handler vault_redirect, whose active node is vault-1.example.com.
type handler struct{ end func() }

func (*handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.vault_redirect", New: func() caddy.Module { return new(handler) }}
}

func (h *handler) Provision(ctx caddy.Context) error {
	if _, err := ctx.App("vault_redirect"); err != nil {
		return err
	}
	node := discovery.Node{Name: "vault-1", ID: "vault", ServiceAddress: "vault-1.example.com", Port: 8200, Tags: []string{"active"}}
	given := &standin.Given{Nodes: []discovery.Node{node}, By: discovery.Selection{Mode: discovery.ByTag, Tag: "active", Service: "vault"}}
	addressing, err := engine.NewAddressing("", "", 0)
	if err != nil {
		return err
	}
	view, err := engine.NewPool().Acquire(given, engine.Config{Addressing: addressing}, zap.NewNop())
	if err != nil {
		return err
	}
	view.Start()
	h.end = func() { view.Release(zap.NewNop()) }
	return Join(ctx, Handler{Redirector: &redirect.Redirector{View: view}, Owns: func([]byte) bool { return false }})
}

func (h *handler) Cleanup() error {
	h.end()
	return nil
}

func (*handler) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error { return nil }

// load runs a Caddy with a lane. more is more of the server's config, with a comma in front.
func load(port, more string) error {
	return caddy.Load(fmt.Appendf(nil, `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
		"apps": {"http": {"servers": {"s": {"listen": ["127.0.0.1:%s"], "automatic_https": {"disable": true},
		"listener_wrappers": [{"wrapper": "vault_redirect"}], "routes": [{"handle": [{"handler": "vault_redirect"}]}] %s}}}}}`, port, more), true)
}

// known returns the lanes that are known now.
func known() (list []*FastLane) {
	lanes.Range(func(_, l any) bool {
		list = append(list, l.(*FastLane))
		return true
	})
	return list
}

// TestLanesAreForgotten reloads: the lane of a config is known, and takes memory, until it ends; one that is refused is not known.
func TestLanesAreForgotten(t *testing.T) {
	t.Cleanup(func() { _ = caddy.Stop() })
	port := harness.Port(t)
	var first weak.Pointer[FastLane]
	for i := range 20 {
		if err := load(port, fmt.Sprintf(`, "max_header_bytes": %d`, 10000+i)); err != nil {
			t.Fatal(err)
		}
		list := known()
		if len(list) != 1 {
			t.Fatalf("%d lanes are known, want 1", len(list))
		}
		if i == 0 {
			first = weak.Make(list[0])
		}
		if err := load(port, `, "logs": {}`); err == nil {
			t.Fatal("a server with logs is not refused")
		}
		if n := len(known()); n != 1 {
			t.Fatalf("after a refusal, %d lanes are known, want 1", n)
		}
	}
	for deadline := time.Now().Add(time.Minute); first.Value() != nil; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("the memory of the first config is still there")
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := len(known()); n != 0 {
		t.Errorf("at the end, %d lanes are known", n)
	}
}

// TestSettles: for a while, the lane asks again what Caddy's server adds to answers, which comes to announce HTTP/3 at one address
// after another.
func TestSettles(t *testing.T) {
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := load("0", `, "tls_connection_policies": [{}]`); err != nil {
		t.Fatal(err)
	}
	l := known()[0]
	l.askServer(l.started.Load().Add(untilSettled / 2))
	if h := l.headers.Load(); h.settled || h.header.Get("Server") != "Caddy" {
		t.Errorf("settled early, with %v", h.header)
	}
	l.askServer(l.started.Load().Add(2 * untilSettled))
	if h := l.headers.Load(); !h.settled {
		t.Error("not settled")
	}
}

// TestBrokenServer: Caddy's server panics where the lane asks it what it adds to answers.
func TestBrokenServer(t *testing.T) {
	l := &FastLane{logger: zap.NewNop()} // no server: it panics
	l.headers.Store(new(serverHeaders))
	l.askServer(time.Now())
	if h := l.headersNow(); h != nil {
		t.Errorf("the lane goes on to answer, with %v", h)
	}
}
