// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// handshakeTimeout limits the TLS handshake with a node, as Caddy limits the dial to 3 seconds: a node that hangs must not delay a
// request for longer than the next one takes to become active.
const handshakeTimeout = 3 * time.Second

// serverNameKey is the placeholder for the name that the node's certificate must have.
const serverNameKey = "http.vault_redirect.server_name"

// newTransport returns the transport for a scheme. Like probes, it connects to the nodes directly and ignores HTTP_PROXY.
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

// target gives the reverse proxy the target of a request's current try.
type target struct{}

// GetUpstreams implements [reverseproxy.UpstreamSource].
func (target) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	p := r.Context().Value(requestKey{}).(*request)
	return []*reverseproxy.Upstream{{Dial: p.target.Authority}}, nil
}

// transport is Caddy's transport. It adds the secret headers, and notes whether a request was sent and answered.
type transport struct {
	*reverseproxy.HTTPTransport
	retired atomic.Bool // its config has ended
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	p := r.Context().Value(requestKey{}).(*request)
	if p.answer != nil {
		p.answer.Request = r
		return p.answer, nil
	}
	ctx, now := connecting(r.Context(), p.target), p.progress
	sent := r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// net/http gets another connection only if the request was not written to the last one.
		GetConn: func(string) { now.arrived.Store(false) },
		// Before it is written: over HTTP/2, the connection goes on, and what is under way to a node that hangs arrives once that goes on.
		WroteHeaderField:     func(string, []string) { now.arrived.Store(true) },
		GotFirstResponseByte: func() { now.replied.Store(true) },
		Got1xxResponse: func(int, textproto.MIMEHeader) error { // which is not yet its answer
			now.replied.Store(false)
			return nil
		},
	}))
	sent.Header = r.Header.Clone()
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} { // with these, net/http would repeat writes; Vault does not use them
		delete(sent.Header, name)
	}
	maps.Copy(sent.Header, p.secrets)
	if !p.forwards {
		sent.Header[engine.NoForwardingHeader] = noForwarding
	}
	if p.body != nil {
		sent.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.body)), nil }
		sent.Body, _ = sent.GetBody()
	}
	forbidReplay(sent)
	resp, err := t.HTTPTransport.RoundTrip(sent)
	if err != nil {
		return nil, p.failed(r, err)
	}
	resp.Request = r
	no, err := p.refusalOf(resp)
	switch {
	case err != nil: // the answer is not complete
		return nil, p.failed(r, err)
	case no != nil && no.answer == nil:
		return nil, errors.Join(no, resp.Body.Close())
	case no != nil:
		resp.Request, resp.TLS = nil, nil // it may be kept for a while
		return nil, no
	}
	now.replied.Store(true)
	return resp, nil
}

// errClosedIdle is the text of net/http's error for a kept connection that the node has closed. It is detected before anything is
// written, and the connection is closed then, so that nothing of the request can have arrived.
const errClosedIdle = "http: server closed idle connection"

// failed returns the error of a try.
func (p *request) failed(r *http.Request, err error) error {
	if err.Error() == errClosedIdle && !p.streamed() {
		p.arrived.Store(false)
	}
	if context.Cause(r.Context()) == errNodeEnded { // the reverse proxy would think that the client has left
		return errNodeEnded
	}
	return err
}

// connecting returns the context of a request with its own variables and replacer. A dial may go on when the try that began it has
// ended, while the next try, or the rest of the request, changes those of the request.
func connecting(ctx context.Context, to *engine.Target) context.Context {
	repl := caddy.NewEmptyReplacer()
	repl.Set(serverNameKey, to.ServerName)
	ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, repl)
	if vars, ok := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(vars))
	}
	return ctx
}

// forbidReplay keeps net/http from sending a request again by itself, once for each kept connection that breaks. It repeats reads
// without a body, or with one that it can get again; so these get an empty body that it cannot get again.
func forbidReplay(r *http.Request) {
	if !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace}, r.Method) {
		return
	}
	r.GetBody = nil
	if r.Body == nil || r.Body == http.NoBody {
		r.Body = io.NopCloser(strings.NewReader(""))
	}
}

// Cleanup closes idle connections now, and the others when their requests have ended.
func (t *transport) Cleanup() error {
	t.retired.Store(true)
	t.afterUse()
	return t.HTTPTransport.Cleanup()
}

// afterUse is called after each request. If the config has ended, it closes the idle connections, after a second: an HTTP/2
// connection is in use a little longer than its request.
func (t *transport) afterUse() {
	if t.retired.Load() {
		time.AfterFunc(time.Second, t.Transport.CloseIdleConnections)
	}
}
