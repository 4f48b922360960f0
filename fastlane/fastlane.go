// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package fastlane is a Caddy listener wrapper that answers simple HTTP/1.1 requests for the vault_redirect handler of its server.
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
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/internal/events"
	"github.com/vault-redirector/caddy-vault-redirect/internal/http1"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

func init() { caddy.RegisterModule(new(FastLane)) }

// FastLane is a listener wrapper that answers simple HTTP/1.1 requests for the vault_redirect handler of its server, with the
// same bytes, at a fraction of the cost. It has no options.
//
// It answers with redirects to a node that is active now, for GET, HEAD, LIST, PUT, POST, DELETE and PATCH. At any other request
// (a health check, a request that has to wait or is proxied, or one that is unusual in any way) the connection goes to Caddy's
// server, with everything that has not been answered, and stays there. Caddy's server serves HTTP/2 and HTTP/3 as usual.
//
// The server must have no other purpose: its only route must be the handler, behind at most one host matcher of plain names, and
// it must have no logs. Other handlers may come after one with pass_thru. Otherwise loading the config fails with an error that says why. In listener_wrappers, it must be the last
// one, and after tls if that is listed.
type FastLane struct {
	logger *zap.Logger
	server *caddyhttp.Server
	hosts  caddyhttp.MatchHost // the names of the host matcher; empty: there is none

	handler *Handler
	headers atomic.Pointer[serverHeaders]
	answers atomic.Pointer[[]*madeAnswer] // with the last state and headers
	started atomic.Pointer[time.Time]     // when the config had started
	asking  atomic.Bool
}

// CaddyModule returns the Caddy module information.
func (*FastLane) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.listeners.vault_redirect",
		New: func() caddy.Module { return new(FastLane) },
	}
}

// unsupported is the beginning of the errors about a config that the lane cannot serve completely.
const unsupported = "the fast lane (listener wrapper vault_redirect) cannot be used with"

// lanes are those of all configs that are loaded, by server.
var lanes sync.Map

// Provision checks that the server has no other purpose. Caddy provisions its handlers later.
func (l *FastLane) Provision(ctx caddy.Context) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return errors.New("vault_redirect is a listener wrapper of HTTP servers only")
	}
	hosts, err := onlyHandler(server)
	if err != nil {
		return fmt.Errorf("%s server %q: %w", unsupported, server.Name(), err)
	}
	l.logger, l.server, l.hosts = ctx.Logger(), server, hosts
	if err := events.On(ctx, "started", l.start); err != nil {
		return err
	}
	server.RegisterOnStop(func(ctx context.Context) error {
		if !caddy.Exiting() {
			return nil
		}
		return http1.Wait(ctx) // else the process would end before its requests
	})
	if _, twice := lanes.LoadOrStore(server, l); twice {
		return errors.New("the listener wrapper vault_redirect can be named only once")
	}
	return nil
}

// Handler is the handler that the lane answers for.
type Handler struct {
	Redirector *redirect.Redirector
	Owns       func(path []byte) bool                       // the path is that of a health endpoint
	KindOf     func(r *http.Request) (redirect.Kind, error) // how the request gets to a node; nil: all are redirected to the active one
	OnlyByPath error                                        // nil if KindOf depends on path and method only
}

// Join connects a handler with the lane of its server, if the server has one. Other handlers of the server come after the first one, and
// get what it passes on.
func Join(ctx caddy.Context, h Handler) error {
	server := ctx.Value(caddyhttp.ServerCtxKey)
	if server == nil {
		return nil
	}
	found, ok := lanes.Load(server)
	if !ok || found.(*FastLane).handler != nil {
		return nil
	}
	if h.OnlyByPath != nil {
		return fmt.Errorf("%s this handler: %w", unsupported, h.OnlyByPath)
	}
	found.(*FastLane).handler = &h
	return nil
}

// Check checks what is known of the lanes of a config only once its apps are provisioned.
func Check(app *caddyhttp.App) error {
	for name, server := range app.Servers {
		if _, found := lanes.Load(server); found && app.Metrics != nil {
			return fmt.Errorf("%s server %q: %s", unsupported, name, ownMetrics)
		}
	}
	return nil
}

// Cleanup removes the lane of the server. The lane's connections end with their listeners.
func (l *FastLane) Cleanup() error {
	lanes.CompareAndDelete(l.server, l)
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
	var clients []string // headers that may have the client's address
	for _, name := range slices.Concat(s.ClientIPHeaders, redirect.ClientHeaders) {
		clients = append(clients, strings.ToLower(name))
	}
	return http1.Listen(ln, l.caller, l.logger, limits, clients)
}

// start is called when the config has started. Until then, Caddy's server answers all requests.
func (l *FastLane) start() {
	now := time.Now()
	l.started.Store(&now)
	l.askServer(now)
}

// serverHeaders are the headers that Caddy's server adds to each answer over HTTP/1.1 or 2.
type serverHeaders struct {
	header  http.Header
	asked   time.Time
	settled bool
}

// untilSettled is how long after the start of the config Caddy may begin to announce HTTP/3, on one address after another.
const untilSettled = 10 * time.Second

// askServer finds out what the server adds to each answer, by a request that it refuses before any handler gets it.
func (l *FastLane) askServer(now time.Time) {
	if l.asking.Swap(true) {
		return
	}
	defer l.asking.Store(false)
	defer func() {
		if v := recover(); v != nil { // then Caddy's server answers all requests
			l.headers.Store(nil)
			l.logger.Error("panic in Caddy's server; the fast lane is off, Caddy answers all requests", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
		}
	}()
	w := &headerOnly{header: http.Header{}}
	l.server.ServeHTTP(w, badRequest.Clone(context.Background())) // which it changes
	l.headers.Store(&serverHeaders{
		header: w.header, asked: now,
		settled: len(l.server.TLSConnPolicies) == 0 || now.Sub(*l.started.Load()) > untilSettled,
	})
}

// badRequest is a request without a host, which Caddy's server refuses.
var badRequest = &http.Request{Method: http.MethodGet, URL: rootURL, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}

// headerOnly is a response writer that keeps the header only.
type headerOnly struct{ header http.Header }

func (w *headerOnly) Header() http.Header { return w.header }

func (*headerOnly) WriteHeader(int) {}

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
		return d.Errf("the listener wrapper vault_redirect has no options")
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*FastLane)(nil)
	_ caddy.CleanerUpper    = (*FastLane)(nil)
	_ caddy.ListenerWrapper = (*FastLane)(nil)
	_ caddyfile.Unmarshaler = (*FastLane)(nil)
)
