// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the way of a request that is proxied: how it waits, when it is tried again, and what of it is logged.

package vaultredirect

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// passage is the way of one request through the proxy.
type passage struct {
	out     *http.Request  // what is sent on, without the secret headers
	secrets http.Header    // which the transport puts back
	body    []byte         // the whole body, if it is short; nil: it is streamed
	upload  *upload        // the body that is streamed, nil if there is none
	came    time.Time      // when it had arrived, with the body that is kept; hold counts from here
	target  *engine.Target // of the present try
	arrived atomic.Bool    // in the present try, there was a connection: the node may have got the request
	repeats int            // how often it was sent again although it may have arrived
}

// passageKey is the key of the context for the passage of a request.
type passageKey struct{}

// Limits of a passage.
const (
	maxRepeats = 2
	minPause   = 50 * time.Millisecond // between two tries
	maxPause   = time.Second
)

// newPassage begins the passage of a request. A short body is read at once: then Go's server notices when the client leaves
// while its request waits, so that no write is carried out long after its sender has given it up, and the body can be sent
// a second time where a kept connection turns out to be closed.
func newPassage(r *http.Request) (*passage, error) {
	p := &passage{secrets: http.Header{}}
	if err := p.keep(r); err != nil {
		return nil, err
	}
	// The reverse proxy logs the headers of what it sends, at level DEBUG, and would leave out only some of the secret ones.
	p.out = r.WithContext(context.WithValue(r.Context(), passageKey{}, p))
	if p.body == nil && r.ContentLength != 0 {
		p.upload = &upload{ReadCloser: r.Body}
		p.out.Body = p.upload
	}
	p.out.Header = r.Header.Clone()
	for _, name := range secretHeaders {
		if values := p.out.Header[name]; values != nil {
			p.secrets[name] = values
			delete(p.out.Header, name)
		}
	}
	p.out.Header.Add("Via", viaMark)
	p.came = time.Now()
	return p, nil
}

// serveProxied proxies a request. Whatever goes wrong is answered in the form of Vault's errors and never returned: Caddy
// logs the request, with its token, when a handler returns an error.
func (h *Handler) serveProxied(w http.ResponseWriter, r *http.Request) error {
	o := outcome{state: h.view.State(), answer: engine.Proxied}
	defer func() { h.note(r, o) }() // even where the reverse proxy breaks off an answer, which it does by a panic
	if r.TLS != nil && !r.TLS.HandshakeComplete {
		// Early data of HTTP/3, which anybody on the way can send again. See https://www.rfc-editor.org/rfc/rfc8470#section-5.2.
		o.answer = engine.BadRequest
		return writeErrors(w, http.StatusTooEarly, "the request came before the TLS handshake was complete: send it again")
	}
	p, err := newPassage(r)
	if err != nil {
		o.answer = engine.BadRequest
		return serveBrokenBody(w, err)
	}
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		s := h.view.AwaitSince(r.Context(), h.queue, p.came)
		o.state, o.held = s, heldSince(p.came)
		switch {
		case !s.Active():
			o.answer = engine.Unavailable
			return h.serveUnavailable(w, s.ReasonAt(time.Now()))
		case elsewhere(s):
			o.answer = engine.Unavailable
			return h.serveUnavailable(w, discovery.ReasonBadAddress)
		case proxyLeadsBack(&s.Target, r):
			o.answer = engine.Loop
			return h.serveLoop(w, s, true)
		}
		err := p.try(h.Proxy.byScheme[s.Target.Scheme()], w, &s.Target)
		if err == nil {
			if p.brokeOff() != nil {
				o.answer = engine.BadRequest
			}
			return nil
		}
		if cause := p.brokeOff(); cause != nil {
			o.answer = engine.BadRequest
			return serveBrokenBody(w, cause)
		}
		if !p.again(err) || time.Since(p.came) >= h.queue.Hold || !h.view.Pause(r.Context(), h.queue, s, pause) {
			o.answer = engine.Unavailable
			return p.serveFailure(w, err)
		}
	}
}

// try sends the request to a target. An error means that nothing has been answered yet.
func (p *passage) try(proxy *reverseproxy.Handler, w http.ResponseWriter, target *engine.Target) error {
	p.target = target
	p.arrived.Store(false)
	if repl, ok := p.out.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set(serverNameKey, target.ServerName)
	}
	if p.body != nil {
		p.out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.body)), nil }
		p.out.Body, _ = p.out.GetBody()
	}
	return proxy.ServeHTTP(w, p.out, nil)
}

// again reports whether a request that failed may be sent again.
func (p *passage) again(err error) bool {
	if refused(err) {
		return false // time does not mend it
	}
	if !p.arrived.Load() {
		return true
	}
	p.repeats++
	return p.repeats <= maxRepeats && isRead(p.out) && p.out.ContentLength == 0
}

// refused reports whether a handshake has failed: one side does not trust the other, or does not speak TLS.
func refused(err error) bool {
	untrusted, noTLS, alert := (*tls.CertificateVerificationError)(nil), tls.RecordHeaderError{}, (*net.OpError)(nil)
	return errors.As(err, &untrusted) || errors.As(err, &noTLS) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
}

// isRead reports whether a request reads. To carry it out twice changes nothing that it does not change by itself: a GET of
// dynamic credentials makes new ones each time.
func isRead(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, "LIST":
		return true
	}
	return false
}

// serveFailure answers where the request could not be brought to a node, or no answer came back.
func (p *passage) serveFailure(w http.ResponseWriter, err error) error {
	code := http.StatusBadGateway
	if failed := (caddyhttp.HandlerError{}); errors.As(err, &failed) && failed.StatusCode >= 400 {
		code = failed.StatusCode
	}
	text := "the active Vault node could not be reached by the proxy: " + p.target.URL
	switch {
	case refused(err):
		text = "the proxy and the active Vault node do not agree on TLS (see proxy_tls, and the tls block of probe): " + p.target.URL
	case p.arrived.Load():
		text = "the active Vault node broke the connection before it answered, and may have carried out the request: " + p.target.URL
	}
	return writeErrors(w, code, text)
}

// proxyLeadsBack reports whether proxying a request to t would lead back to this process.
func proxyLeadsBack(t *engine.Target, r *http.Request) bool {
	return marked(r) || isSocket(t.Addr, r.Context())
}

// passageTarget gives the reverse proxy the target of the present try.
type passageTarget struct{}

// GetUpstreams implements [reverseproxy.UpstreamSource].
func (passageTarget) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	p := r.Context().Value(passageKey{}).(*passage)
	return []*reverseproxy.Upstream{{Dial: p.target.Authority}}, nil
}

// proxyTransport is Caddy's transport, which sends the secret headers, too, and notes whether there was a connection.
type proxyTransport struct{ *reverseproxy.HTTPTransport }

// RoundTrip implements [http.RoundTripper].
func (t *proxyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	p := r.Context().Value(passageKey{}).(*passage)
	sent := r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		// It asks for another connection only if nothing has been sent by the last one, or for a read.
		GetConn: func(string) { p.arrived.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { p.arrived.Store(true) },
	}))
	sent.Header = r.Header.Clone()
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} { // by which net/http would repeat writes; Vault knows neither
		delete(sent.Header, name)
	}
	for name, values := range p.secrets {
		sent.Header[name] = values
	}
	resp, err := t.HTTPTransport.RoundTrip(sent)
	if resp != nil {
		resp.Request = r
	}
	return resp, err
}
