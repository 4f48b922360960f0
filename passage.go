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
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
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
	in      *http.Request  // as it came
	out     *http.Request  // what is sent on, without the secret headers
	secrets http.Header    // which the transport puts back
	upload  *upload        // the client's body, nil if there is none
	short   bool           // the body is read before the request is sent on
	body    []byte         // that body, once it was read; nil: it is streamed
	readErr error          // why it could not be read
	came    time.Time      // hold counts from here
	target  *engine.Target // of the present try
	arrived atomic.Bool    // in the present try, the request was written to a connection: the node may have got it
	replied atomic.Bool    // in the present try, the node has begun to answer
	repeats int            // how often it was sent again although it may have arrived
}

// passageKey is the key of the context for the passage of a request.
type passageKey struct{}

// Limits of a passage.
const (
	maxRepeats = 2
	minPause   = 50 * time.Millisecond // between two tries
	maxPause   = time.Second
	// handover is how long a node that is no longer active, but lives, may take for its answer to what it was sent before.
	handover = 5 * time.Second
)

// newPassage begins the passage of a request.
func newPassage(r *http.Request) *passage {
	p := &passage{in: r, secrets: http.Header{}, came: time.Now(), short: isShort(r)}
	// The reverse proxy logs the headers of what it sends, at level DEBUG, and would leave out only some of the secret ones.
	p.out = r.WithContext(context.WithValue(r.Context(), passageKey{}, p))
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		p.upload = &upload{body: r.Body}
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
	return p
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
	p := newPassage(r)
	if r.ProtoMajor == 1 && p.upload != nil {
		w = uploadWriter{&caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, p.upload}
	}
	waiter := engine.Waiter{Client: clientAddress(r), Came: p.came, Unseen: r.ProtoMajor == 1 && p.upload != nil && !p.short, Begin: p.keep}
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		s := h.view.Await(r.Context(), h.queue, waiter)
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
		if p.keep(); p.readErr != nil {
			o.answer = engine.BadRequest
			return serveBrokenBody(w, p.readErr)
		}
		err := p.try(h, w, s)
		if err == nil {
			if p.upload.broken() != nil {
				o.answer = engine.BadRequest
			}
			return nil
		}
		if cause := p.upload.broken(); cause != nil {
			o.answer = engine.BadRequest
			return serveBrokenBody(w, cause)
		}
		if !p.again(err) || time.Since(p.came) >= h.queue.Hold || !h.view.Pause(r.Context(), h.queue, waiter, s, pause) {
			o.answer = engine.Unavailable
			return p.serveFailure(w, err)
		}
	}
}

// try sends the request to the node that is active in a state. An error means that nothing has been answered yet.
func (p *passage) try(h *Handler, w http.ResponseWriter, s *engine.State) error {
	p.target = &s.Target
	p.arrived.Store(false)
	p.replied.Store(false)
	ctx, cancel := context.WithCancelCause(p.out.Context())
	defer cancel(nil)
	go p.watch(ctx, cancel, h, s)
	out := p.out.WithContext(ctx)
	if p.body != nil {
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.body)), nil }
		out.Body, _ = out.GetBody()
	}
	proxy := h.Proxy.byScheme[p.target.Scheme()]
	err := proxy.ServeHTTP(w, out, nil)
	proxy.Transport.(*proxyTransport).afterUse()
	return err
}

// errNodeEnded ends a try: the node has not answered, and is no longer the active one.
var errNodeEnded = errors.New("the node is no longer active and has not answered")

// watch ends a try when its node has ended: at once if that is dead and another one is active, or none has been for as long as
// requests wait. A node that lives, but is no longer active, may answer for some seconds yet, and end what it has begun to
// answer.
func (p *passage) watch(ctx context.Context, cancel context.CancelCauseFunc, h *Handler, then *engine.State) {
	tick := time.NewTicker(time.Second) // what is decided here may depend on the time alone
	defer tick.Stop()
	var replaced time.Time
	for {
		s, now := h.view.State(), time.Now()
		fate := s.FateOf(then)
		if fate != engine.Replaced {
			replaced = time.Time{}
		} else if replaced.IsZero() {
			replaced = now
		}
		if phase := s.PhaseAt(now); fate == engine.Dead ||
			fate == engine.Replaced && !p.replied.Load() && now.Sub(replaced) >= handover ||
			phase.Situation == engine.None && !p.replied.Load() && now.Sub(phase.Time) >= h.queue.Hold {
			cancel(errNodeEnded)
			return
		}
		select {
		case <-s.Changed():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// again reports whether a request that failed may be sent again.
func (p *passage) again(err error) bool {
	var no *refusal
	switch {
	case errors.As(err, &no):
		return p.upload == nil || p.body != nil // what was streamed is gone
	case refused(err), p.misunderstood(err):
		return false // time does not mend it
	case !p.arrived.Load():
		return true
	}
	p.repeats++
	return p.repeats <= maxRepeats && isRead(p.out.Method) && p.out.ContentLength == 0
}

// refusal is an answer by which the node has refused a request before it did anything.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// refusalOf returns the refusal that an answer of a node is, nil if it is none: a standby whose forwarding is off answers
// with a redirect to the active node, which the client of a proxy is not to follow. Vault's other redirects stay on the host.
func refusalOf(resp *http.Response) *refusal {
	if resp.StatusCode != http.StatusTemporaryRedirect {
		return nil
	}
	if to, err := resp.Location(); err != nil || to.Host == resp.Request.URL.Host {
		return nil
	}
	return &refusal{"the Vault node is a standby, and redirects instead of forwarding"}
}

// misunderstood reports whether a node has answered what is no HTTP, or more of a header than is read.
func (p *passage) misunderstood(err error) bool {
	var broken *net.OpError
	return p.replied.Load() && !errors.Is(err, errNodeEnded) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &broken)
}

// refused reports whether a handshake has failed: one side does not trust the other, or does not speak TLS.
func refused(err error) bool {
	untrusted, noTLS, alert := (*tls.CertificateVerificationError)(nil), tls.RecordHeaderError{}, (*net.OpError)(nil)
	return errors.As(err, &untrusted) || errors.As(err, &noTLS) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
}

// isRead reports whether a request reads. To carry it out twice changes nothing that it does not change by itself: a GET of
// dynamic credentials makes new ones each time.
func isRead(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "LIST":
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
	text := "the active Vault node could not be reached by the proxy: "
	var no *refusal
	switch {
	case errors.As(err, &no):
		code, text = http.StatusServiceUnavailable, "the request was not carried out: "+no.text+": "
	case refused(err):
		text = "the proxy and the active Vault node do not agree on TLS (see proxy_tls, and the tls block of probe): "
	case p.misunderstood(err):
		text = "the active Vault node gave an answer that is no HTTP, or whose header is too long: "
	case errors.Is(err, errNodeEnded) && p.arrived.Load():
		text = "the Vault node stopped being active before it answered, and may have carried out the request: "
	case p.arrived.Load():
		text = "the active Vault node broke the connection before it answered, and may have carried out the request: "
	}
	return writeErrors(w, code, text+p.target.URL)
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

// proxyTransport is Caddy's transport, which sends the secret headers, too, and notes what becomes of a request.
type proxyTransport struct {
	*reverseproxy.HTTPTransport
	retired atomic.Bool // its config has ended
}

// RoundTrip implements [http.RoundTripper].
func (t *proxyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	p := r.Context().Value(passageKey{}).(*passage)
	ctx := connecting(r.Context(), p.target)
	sent := r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// It asks for another connection only if the last one has not taken the request.
		GetConn:              func(string) { p.arrived.Store(false) },
		WroteHeaders:         func() { p.arrived.Store(true) },
		GotFirstResponseByte: func() { p.replied.Store(true) },
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

// Cleanup closes the connections that nobody uses, and has the others close as they come out of use.
func (t *proxyTransport) Cleanup() error {
	t.retired.Store(true)
	return t.HTTPTransport.Cleanup()
}

// afterUse is called when a request has been answered.
func (t *proxyTransport) afterUse() {
	if t.retired.Load() {
		t.Transport.CloseIdleConnections()
	}
}
