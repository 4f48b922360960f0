// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// request is a request that is proxied.
type request struct {
	in      *http.Request  // as it came
	out     *http.Request  // what is sent on, without the secret headers
	secrets http.Header    // which the transport puts back
	upload  *upload        // the client's body, nil if there is none
	short   bool           // the body is read before the request is sent on
	body    []byte         // that body, once it was read; nil: it is streamed
	readErr error          // why it could not be read
	read    chan struct{}  // closed once body and readErr are what they stay; nil: nobody reads it yet
	came    time.Time      // hold counts from here
	target  *engine.Target // of the present try
	arrived atomic.Bool    // in the present try, the request was written to a connection: the node may have got it
	replied atomic.Bool    // in the present try, the node has begun to answer
	repeats int            // how often it was sent again although it may have arrived
}

// requestKey is the key of the context for the passage of a request.
type requestKey struct{}

// Limits of a request.
const (
	maxRepeats = 2
	minPause   = 50 * time.Millisecond // between two tries
	maxPause   = time.Second
	// handover is how long a node that is no longer active, but lives, may take for its answer to what it was sent before.
	handover = 5 * time.Second
)

// newRequest begins the passage of a request.
func newRequest(r *http.Request) *request {
	p := &request{in: r, secrets: http.Header{}, came: time.Now(), short: isShort(r)}
	// The reverse proxy logs the headers of what it sends, at level DEBUG, and would leave out only some of the secret ones.
	p.out = r.WithContext(context.WithValue(r.Context(), requestKey{}, p))
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		p.upload = &upload{body: r.Body}
		p.out.Body = p.upload
	}
	p.out.Header = r.Header.Clone()
	for _, name := range sanitize.SecretHeaders {
		if values := p.out.Header[name]; values != nil {
			p.secrets[name] = values
			delete(p.out.Header, name)
		}
	}
	p.out.Header.Add("Via", redirect.ViaMark)
	return p
}

// Serve proxies a request. Whatever goes wrong is answered in the form of Vault's errors and never returned: Caddy logs the
// request, with its token, when a handler returns an error.
func (x *Proxy) Serve(w http.ResponseWriter, r *http.Request) error {
	o := redirect.Outcome{State: x.View.State(), Answer: engine.Proxied}
	defer func() { x.Note(r, o) }() // even where the reverse proxy breaks off an answer, which it does by a panic
	if r.TLS != nil && !r.TLS.HandshakeComplete {
		// Early data of HTTP/3, which anybody on the way can send again. See https://www.rfc-editor.org/rfc/rfc8470#section-5.2.
		o.Answer = engine.BadRequest
		return redirect.WriteErrors(w, http.StatusTooEarly, "the request came before the TLS handshake was complete: send it again")
	}
	p := newRequest(r)
	if r.ProtoMajor == 1 && p.upload != nil {
		w = uploadWriter{&caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, p.upload}
	}
	if p.upload != nil {
		defer p.upload.Close() //nolint:errcheck // it never fails: who still reads the body reads no more of it
	}
	waiter := engine.Waiter{Client: redirect.ClientAddress(r), Came: p.came, Unseen: r.ProtoMajor == 1 && p.upload != nil && !p.short, Begin: p.begin}
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		s := x.View.Await(r.Context(), x.Queue, waiter)
		o.State, o.Held = s, redirect.HeldSince(p.came)
		if v := redirect.Decide(s, r, redirect.ToProxy); !v.Goes() {
			o.Answer = v.Answer
			return x.Refuse(w, s, v)
		}
		if p.buffer(); p.readErr != nil {
			o.Answer = engine.BadRequest
			return refuseBrokenBody(w, p.readErr)
		}
		err := p.try(x, w, s)
		if err == nil {
			if p.upload.err() != nil {
				o.Answer = engine.BadRequest
			}
			return nil
		}
		if cause := p.upload.err(); cause != nil {
			o.Answer = engine.BadRequest
			return refuseBrokenBody(w, cause)
		}
		if !p.mayRetry(err) || time.Since(p.came) >= x.Queue.Hold || !x.View.Pause(r.Context(), x.Queue, waiter, s, pause) {
			o.Answer = engine.Unavailable
			return p.serveFailure(w, err, x.RetryAfter)
		}
	}
}

// try sends the request to the node that is active in a state. An error means that nothing has been answered yet.
func (p *request) try(x *Proxy, w http.ResponseWriter, s *engine.State) error {
	p.target = &s.Target
	p.arrived.Store(false)
	p.replied.Store(false)
	ctx, cancel := context.WithCancelCause(p.out.Context())
	defer cancel(nil)
	go p.watch(ctx, cancel, x, s)
	out := p.out.WithContext(ctx)
	if p.body != nil {
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.body)), nil }
		out.Body, _ = out.GetBody()
	}
	proxy := x.byScheme[p.target.Scheme()]
	defer proxy.Transport.(*transport).afterUse() // even if the reverse proxy panics
	return proxy.ServeHTTP(w, out, nil)
}

// errNodeEnded ends a try: the node has not answered, and is no longer the active one.
var errNodeEnded = errors.New("the node is no longer active and has not answered")

// watch ends a try when its node has ended: at once if that is dead and another one is active, or none has been for as long as
// requests wait. A node that lives, but is no longer active, may answer for some seconds yet, and end what it has begun to
// answer.
func (p *request) watch(ctx context.Context, cancel context.CancelCauseFunc, x *Proxy, then *engine.State) {
	tick := time.NewTicker(time.Second) // what is decided here may depend on the time alone
	defer tick.Stop()
	var replaced time.Time
	for {
		changed, s, now := x.View.Changed(), x.View.State(), time.Now()
		fate := s.FateOf(then)
		if fate != engine.Replaced {
			replaced = time.Time{}
		} else if replaced.IsZero() {
			replaced = now
		}
		if phase := s.PhaseAt(now); fate == engine.Dead ||
			fate == engine.Replaced && !p.replied.Load() && now.Sub(replaced) >= handover ||
			phase.Situation == engine.None && !p.replied.Load() && now.Sub(phase.Time) >= x.Queue.Hold {
			cancel(errNodeEnded)
			return
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// mayRetry reports whether a request that failed may be sent again.
func (p *request) mayRetry(err error) bool {
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
func (p *request) misunderstood(err error) bool {
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
func (p *request) serveFailure(w http.ResponseWriter, err error, retryAfter []string) error {
	code := http.StatusBadGateway
	if failed := (caddyhttp.HandlerError{}); errors.As(err, &failed) && failed.StatusCode >= 400 {
		code = failed.StatusCode
	}
	text := "the active Vault node could not be reached by the proxy: "
	var no *refusal
	switch {
	case errors.As(err, &no):
		w.Header()["Retry-After"] = retryAfter
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
	return redirect.WriteErrors(w, code, text+p.target.URL)
}
