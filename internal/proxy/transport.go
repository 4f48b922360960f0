// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// handshakeTimeout is how long a node may take for a handshake of TLS, like the 3 seconds in which Caddy wants a connection:
// one that hangs must not hold a request for longer than the next one takes to become active.
const handshakeTimeout = 3 * time.Second

// serverNameKey is the placeholder for the name that the certificate of the node must have.
const serverNameKey = "http.vault_redirect.server_name"

// newTransport returns the transport for a scheme. As probes, it goes straight to the nodes, whatever HTTP_PROXY says.
func newTransport(ctx caddy.Context, scheme string, trust *tls.Config) (*transport, error) {
	config := map[string]any{"network_proxy": map[string]any{"from": "none"}}
	if scheme == "https" {
		config["tls"] = map[string]any{
			"server_name":       cmp.Or(trust.ServerName, "{"+serverNameKey+"}"),
			"handshake_timeout": caddy.Duration(handshakeTimeout),
		}
	}
	mod, err := ctx.LoadModuleByID("http.reverse_proxy.transport.http", caddyconfig.JSON(config, nil))
	if err != nil {
		return nil, err
	}
	t := &transport{HTTPTransport: mod.(*reverseproxy.HTTPTransport)}
	if c := t.Transport.TLSClientConfig; scheme == "https" { // which Caddy copies for each connection
		c.RootCAs, c.GetClientCertificate, c.InsecureSkipVerify = trust.RootCAs, trust.GetClientCertificate, trust.InsecureSkipVerify
	}
	return t, nil
}

// target gives the reverse proxy the target of the present try.
type target struct{}

// GetUpstreams implements [reverseproxy.UpstreamSource].
func (target) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	p := r.Context().Value(requestKey{}).(*request)
	return []*reverseproxy.Upstream{{Dial: p.target.Authority}}, nil
}

// transport is Caddy's transport, which sends the secret headers, too, and notes what becomes of a request.
type transport struct {
	*reverseproxy.HTTPTransport
	retired atomic.Bool // its config has ended
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	p := r.Context().Value(requestKey{}).(*request)
	ctx := connecting(r.Context(), p.target)
	sent := r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// It asks for another connection only if the last one has not taken the request.
		GetConn: func(string) { p.arrived.Store(false) },
		// Before it is written: over HTTP/2, the connection goes on, and what is under way to a node that hangs arrives once that goes on.
		WroteHeaderField:     func(string, []string) { p.arrived.Store(true) },
		GotFirstResponseByte: func() { p.replied.Store(true) },
		Got1xxResponse: func(int, textproto.MIMEHeader) error { // which is not yet its answer
			p.replied.Store(false)
			return nil
		},
	}))
	sent.Header = r.Header.Clone()
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} { // by which net/http would repeat writes; Vault knows neither
		delete(sent.Header, name)
	}
	for name, values := range p.secrets {
		sent.Header[name] = values
	}
	forbidReplay(sent)
	resp, err := t.HTTPTransport.RoundTrip(sent)
	if err != nil {
		if context.Cause(r.Context()) == errNodeEnded { // the reverse proxy would take it for the client's leaving
			err = errNodeEnded
		}
		return nil, err
	}
	p.replied.Store(true)
	resp.Request = r
	if no := refusalOf(resp); no != nil {
		return nil, errors.Join(no, resp.Body.Close())
	}
	return resp, nil
}

// connecting returns the context of a request with variables and a replacer of its own: a connection may still be made when the
// try for which it was begun has ended, and the next one, or the rest of the request, changes those of the request.
func connecting(ctx context.Context, to *engine.Target) context.Context {
	repl := caddy.NewEmptyReplacer()
	repl.Set(serverNameKey, to.ServerName)
	ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, repl)
	if vars, ok := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(vars))
	}
	return ctx
}

// forbidReplay keeps net/http from sending a request again by itself, once for each connection that was kept and breaks. It
// does so with reads whose body it can have again, or that have none; so these have one that is empty, and that it cannot have
// again.
func forbidReplay(r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
	default:
		return
	}
	r.GetBody = nil
	if r.Body == nil || r.Body == http.NoBody {
		r.Body = io.NopCloser(strings.NewReader(""))
	}
}

// Cleanup closes the connections that no request uses, and those that requests use once they are over.
func (t *transport) Cleanup() error {
	t.retired.Store(true)
	t.afterUse()
	return t.HTTPTransport.Cleanup()
}

// afterUse is called after each request, and closes what a transport leaves whose config has ended: a moment later, since a
// connection of HTTP/2 is in use a little longer than the request.
func (t *transport) afterUse() {
	if t.retired.Load() {
		time.AfterFunc(time.Second, t.Transport.CloseIdleConnections)
	}
}
