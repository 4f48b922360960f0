// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package fastlane is a listener wrapper of Caddy that answers the plainest requests of HTTP/1.1 for the vault_redirect handler of
// its server.
package fastlane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/internal/http1"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

func init() { caddy.RegisterModule(new(FastLane)) }

// FastLane is a listener wrapper that answers the plainest requests of HTTP/1.1 for the vault_redirect handler of its server:
// with the same answer, byte for byte, at a fraction of the cost. There is nothing to configure.
//
// What it answers are redirects to a node that is active now, for GET, HEAD, LIST, PUT, POST, DELETE and PATCH. At anything
// else (another protocol, a health check, a request that has to wait or is proxied, or one that is unusual in any way) the
// connection goes to Caddy's server, with all that has not been answered, and stays there. HTTP/2 and HTTP/3 are Caddy's from
// the beginning.
//
// The server must have no other purpose: its routes may be nothing but the handler, behind at most one host matcher of plain
// names, and it may have no logs. Otherwise the config is refused, with what stands in the way. In listener_wrappers it must be
// the last one, and after tls if that is named.
type FastLane struct {
	ctx    caddy.Context
	logger *zap.Logger
	server *caddyhttp.Server
	hosts  caddyhttp.MatchHost // the names of the host matcher; empty: there is none

	app      caddy.App // of vault_redirect, in the same config
	handler  *Handler
	clients  []string // the names, in lower case, of headers that may name the client
	trusting bool     // the server trusts clients of unix sockets, which have no address, to say who the client is
	headers  atomic.Pointer[serverHeaders]
	answers  atomic.Pointer[madeAnswer]
	started  atomic.Pointer[time.Time] // when the config had started
	asking   atomic.Bool
}

// CaddyModule returns the Caddy module information.
func (*FastLane) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.listeners.vault_redirect",
		New: func() caddy.Module { return new(FastLane) },
	}
}

// unsupported begins the errors of a config in which the lane would skip something.
const unsupported = "the fast lane (listener wrapper vault_redirect) cannot be used with"

// lanes are those whose handlers may have to be provisioned yet, by their server.
var lanes sync.Map

// Provision checks that the server has no other purpose. Its handlers are provisioned later.
func (l *FastLane) Provision(ctx caddy.Context) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return errors.New("vault_redirect is a listener wrapper of HTTP servers only")
	}
	hosts, err := onlyHandler(server)
	if err != nil {
		return fmt.Errorf("%s server %q: %w", unsupported, server.Name(), err)
	}
	l.ctx, l.logger, l.server, l.hosts = ctx, ctx.Logger(), server, hosts
	l.trusting = server.TrustedProxiesUnix
	for _, name := range append(slices.Clone(server.ClientIPHeaders), redirect.ClientHeaders...) {
		l.clients = append(l.clients, strings.ToLower(name))
	}
	app, err := ctx.App("vault_redirect")
	if err != nil {
		return err
	}
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	if err := events.(*caddyevents.App).On("started", onStarted(l.start)); err != nil {
		return err
	}
	l.app = app.(caddy.App)
	server.RegisterOnStop(func(ctx context.Context) error {
		if !caddy.Exiting() {
			return nil
		}
		return http1.Wait(ctx) // else the end of the process would come before that of requests
	})
	if _, twice := lanes.LoadOrStore(server, l); twice {
		return errors.New("the listener wrapper vault_redirect can be named only once")
	}
	return nil
}

// Handler is what the lane answers for.
type Handler struct {
	Redirector *redirect.Redirector
	Owns       func(path []byte) bool              // the path is that of a health endpoint
	Proxies    func(r *http.Request) (bool, error) // the request is to be proxied; nil: none is
	OnlyByPath error                               // nil if path and method alone tell whether it is
}

// Join makes the lane of the server that a handler is provisioned for, if it has one, answer for the handler.
func Join(ctx caddy.Context, h Handler) error {
	server := ctx.Value(caddyhttp.ServerCtxKey)
	if server == nil {
		return nil
	}
	found, ok := lanes.Load(server)
	if !ok {
		return nil
	}
	if h.OnlyByPath != nil {
		return fmt.Errorf("%s this handler: %w", unsupported, h.OnlyByPath)
	}
	found.(*FastLane).handler = &h
	return nil
}

// Check checks, for all lanes of a config, given the app of vault_redirect, what can be seen only once all apps are provisioned.
func Check(app caddy.App) (err error) {
	lanes.Range(func(_, found any) bool {
		if l := found.(*FastLane); l.app == app {
			err = l.check()
		}
		return err == nil
	})
	return err
}

// Cleanup forgets the handler's server. Connections may still be on the lane; they end with their listeners.
func (l *FastLane) Cleanup() error {
	lanes.CompareAndDelete(l.server, l)
	return nil
}

// check checks what can be seen only once all apps are provisioned.
func (l *FastLane) check() error {
	app, err := l.ctx.AppIfConfigured("http")
	if err != nil {
		return err
	}
	if app.(*caddyhttp.App).Metrics != nil {
		return fmt.Errorf("%s server %q: %s", unsupported, l.server.Name(), ownMetrics)
	}
	return nil
}

// WrapListener implements [caddy.ListenerWrapper].
func (l *FastLane) WrapListener(ln net.Listener) net.Listener {
	s := l.server
	limits := http1.Limits{
		Header: time.Duration(s.ReadHeaderTimeout), Whole: time.Duration(s.ReadTimeout), Idle: time.Duration(s.IdleTimeout),
		Body: time.Duration(s.ReadIdleTimeout), Write: time.Duration(s.WriteTimeout),
	}
	if limits.Write <= 0 {
		limits.Write = time.Duration(s.WriteIdleTimeout)
	}
	for _, d := range []caddy.Duration{s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout} {
		if d > 0 && (limits.Handshake <= 0 || time.Duration(d) < limits.Handshake) {
			limits.Handshake = time.Duration(d)
		}
	}
	return http1.Listen(ln, l, limits, l.clients)
}

// onStarted is called when a config has started.
type onStarted func()

// Handle implements [caddyevents.Handler].
func (f onStarted) Handle(context.Context, caddy.Event) error {
	f()
	return nil
}

// start is called when the config has started. Until then, all is left to Caddy.
func (l *FastLane) start() {
	now := time.Now()
	l.started.Store(&now)
	l.askServer(now)
}

// serverHeaders are what Caddy's server adds to each answer over HTTP/1.1 or 2.
type serverHeaders struct {
	header  http.Header
	asked   time.Time
	settled bool
}

// untilSettled is how long after the start of the config Caddy may begin to announce HTTP/3, at one address after another.
const untilSettled = 10 * time.Second

// askServer learns what the server adds to each answer, by a request that it refuses before it comes to any handler.
func (l *FastLane) askServer(now time.Time) {
	if l.asking.Swap(true) {
		return
	}
	defer l.asking.Store(false)
	defer func() {
		if v := recover(); v != nil { // all is Caddy's then, whose server knows how to live with it
			l.headers.Store(nil)
			l.logger.Error("panic in Caddy's server, the fast lane leaves all requests to it", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
		}
	}()
	w := &headerOnly{header: http.Header{}}
	l.server.ServeHTTP(w, badRequest.Clone(context.Background())) // which it changes
	l.headers.Store(&serverHeaders{
		header: w.header, asked: now,
		settled: len(l.server.TLSConnPolicies) == 0 || now.Sub(*l.started.Load()) > untilSettled,
	})
}

// badRequest is a request without a host, which is a bad one.
var badRequest = &http.Request{Method: http.MethodGet, URL: rootURL, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}

// headerOnly is an answer of which nothing but the header matters.
type headerOnly struct{ header http.Header }

// Header implements [http.ResponseWriter].
func (w *headerOnly) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter].
func (*headerOnly) WriteHeader(int) {}

// Write implements [http.ResponseWriter].
func (*headerOnly) Write(b []byte) (int, error) { return len(b), nil }

// UnmarshalCaddyfile sets up the wrapper from Caddyfile tokens. Syntax:
//
//	vault_redirect
func (*FastLane) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(0) {
		return d.Errf("the listener wrapper vault_redirect has no options: those of the handler hold")
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*FastLane)(nil)
	_ caddy.CleanerUpper    = (*FastLane)(nil)
	_ caddy.ListenerWrapper = (*FastLane)(nil)
	_ caddyfile.Unmarshaler = (*FastLane)(nil)
	_ http1.Site            = (*FastLane)(nil)
)
