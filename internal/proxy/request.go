// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// request is a proxied request.
type request struct {
	out       *http.Request  // what is sent on, without the secret headers
	secrets   http.Header    // the secret headers, which the transport adds again
	upload    *upload        // the client's body, nil if there is none
	short     bool           // the body is read before the request is sent on
	begin     func()         // begins to read it, once
	reading   sync.WaitGroup // while it is read
	body      []byte         // the body, once it was read; nil: it is streamed
	came      time.Time      // when it came: hold starts then
	target    *engine.Target // of this try
	*progress                // of this try
	repeats   int            // how often it was sent again although it may have arrived

	since     time.Time      // since when the node of this try is active
	redirects int            // by that node, in a row
	forwards  bool           // standbys may forward this try
	answer    *http.Response // the answer, without another try
}

// progress is how far a try has come. Each has one of its own: what net/http traces may come when the next one is under way.
type progress struct {
	arrived atomic.Bool // the request was written to a connection: the node may have received it
	replied atomic.Bool // the node has begun to answer
}

// requestKey is the context key of a proxied request.
type requestKey struct{}

// Limits of a request.
const (
	maxRepeats = 2
	minPause   = 50 * time.Millisecond // between two tries
	maxPause   = time.Second
	// handover is how long a node that is alive, but no longer active, may take to answer a request that it was sent before.
	handover = 5 * time.Second
)

// newRequest makes a proxied request of a client's request.
func newRequest(r *http.Request) *request {
	p := &request{secrets: http.Header{}, came: time.Now(), short: isShort(r)}
	// It does not wait for the body: a request has its place no longer than hold says, however slowly its client sends the body.
	p.begin = sync.OnceFunc(func() {
		if p.short && p.upload != nil {
			p.reading.Go(p.readBody)
		}
	})
	// The reverse proxy logs the headers of what it sends, at level DEBUG, and redacts only some of the secret ones.
	p.out = r.WithContext(context.WithValue(r.Context(), requestKey{}, p))
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		p.upload = &upload{body: r.Body}
		p.out.Body = p.upload
	}
	p.out.Header = r.Header.Clone()
	for name, values := range p.out.Header {
		if sanitize.IsSecretHeader(name) {
			p.secrets[name] = values
			delete(p.out.Header, name)
		}
	}
	p.out.Header.Add("Via", redirect.ViaMark)
	return p
}

// Serve proxies a request. It answers errors itself, in the form of Vault's errors, and never returns one: Caddy would log the
// request, with its token. If next is not nil, it gets the request in place of a 503 for want of a node.
func (x *Proxy) Serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	o, passed := redirect.Outcome{State: x.View.State(), Answer: engine.Proxied}, false
	defer func() { // also if the reverse proxy aborts an answer, which it does by a panic
		if !passed {
			x.Note(r, o)
		}
	}()
	if r.TLS != nil && !r.TLS.HandshakeComplete {
		// This is early data of HTTP/3, which a man in the middle can replay. See https://www.rfc-editor.org/rfc/rfc8470#section-5.2.
		o.Answer = engine.BadRequest
		return redirect.WriteErrors(w, http.StatusTooEarly, "the request came before the TLS handshake was complete: send it again")
	}
	p, client := newRequest(r), w
	waiter := engine.Waiter{Client: redirect.ClientAddress(r), Came: p.came}
	if next == nil { // else it gets the body, too
		waiter.Begin = p.begin
	}
	if p.upload != nil {
		defer p.upload.Close() //nolint:errcheck // it never fails: readers of the body get no more of it
		if r.ProtoMajor == 1 {
			w = uploadWriter{&caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, p.upload}
			waiter.Unseen = !p.short || next != nil
		}
	}
	var failed *failure // how the last try did
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		s := x.View.Await(r.Context(), x.Queue, waiter)
		o = redirect.Decide(s, r, redirect.ToProxy)
		o.Held = redirect.HeldSince(p.came)
		if refused := o; !o.Goes() {
			if passed = o.Answer == engine.Unavailable && next != nil && p.upload.giveBack(); passed {
				return x.Pass(client, r, o, next)
			}
			if o.Answer == engine.Unavailable {
				if o.Answer = engine.Proxied; p.passOn(x, w, failed) {
					return nil
				}
			}
			o = refused
			return x.Refuse(w, o)
		}
		p.buffer()
		if cause := p.upload.err(); cause != nil {
			o.Answer = engine.BadRequest
			return refuseBrokenBody(w, cause)
		}
		if failed != nil {
			x.noteRetry(p, failed)
		}
		err, cause := p.try(x, w, s), p.upload.err()
		if cause != nil {
			o.Answer = engine.BadRequest
		}
		switch {
		case err == nil:
			return nil
		case cause != nil:
			return refuseBrokenBody(w, cause)
		}
		failed = p.failureOf(err)
		if !failed.again || time.Since(p.came) >= x.Queue.Hold || !x.View.Pause(r.Context(), x.Queue, waiter, s, pause) {
			if p.passOn(x, w, failed) {
				return nil
			}
			o.Answer = engine.Unavailable
			if failed.undone {
				w.Header()["Retry-After"] = x.RetryAfter
			}
			return redirect.WriteErrors(w, failed.code, failed.text+": "+p.target.URL)
		}
	}
}

// noteRetry counts and logs that a request is sent again. Of the request, only the method is logged.
func (x *Proxy) noteRetry(p *request, failed *failure) {
	if failed.reason == engine.RetryBroken {
		p.repeats++
	}
	x.View.Stats().Retries.Add(failed.reason)
	if c := x.Log.Check(zapcore.DebugLevel, "sending a proxied request again"); c != nil {
		c.Write(zap.String("reason", string(failed.reason)), zap.String("method", p.out.Method), zap.String("last_url", p.target.URL), zap.Error(failed.err))
	}
}

// passOn answers with what the node answered in the last try, as it came, if it did.
func (p *request) passOn(x *Proxy, w http.ResponseWriter, failed *failure) bool {
	if failed == nil || failed.answer == nil {
		return false
	}
	p.answer = failed.answer
	return x.byScheme[p.target.Scheme()].ServeHTTP(w, p.out, nil) == nil
}

// try sends the request to the node that is active in a state. An error means that nothing has been answered yet.
func (p *request) try(x *Proxy, w http.ResponseWriter, s *engine.State) error {
	p.target, p.progress = &s.Target, new(progress)
	if !s.Since.Equal(p.since) {
		p.since, p.redirects = s.Since, 0
	}
	if p.redirects >= maxRedirects {
		x.forwarding.Store(s.Since.UnixNano())
	}
	p.forwards = x.forwarding.Load() == s.Since.UnixNano()
	ctx, cancel := context.WithCancelCause(p.out.Context())
	defer cancel(nil)
	go p.watch(ctx, cancel, x, s)
	proxy := x.byScheme[p.target.Scheme()]
	defer proxy.Transport.(*transport).afterUse() // even if the reverse proxy panics
	return proxy.ServeHTTP(w, p.out.WithContext(ctx), nil)
}

// errNodeEnded ends a try: the node has not answered, and is no longer the active one.
var errNodeEnded = errors.New("the node is no longer active and has not answered")

// watch cancels a try if its node cannot answer any more: at once if the node is dead and another one is active, or if none has been
// active for as long as requests wait. A node that is alive, but no longer active, gets the time handover to begin its answer, and
// may finish an answer that it has begun.
func (p *progress) watch(ctx context.Context, cancel context.CancelCauseFunc, x *Proxy, then *engine.State) {
	tick := time.NewTicker(time.Second) // time may pass without a new state
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

// failure is a try without an answer to pass on, and what follows from that.
type failure struct {
	err    error
	again  bool           // the request may be sent again
	reason engine.Retry   // why it is
	undone bool           // the node says that nothing was carried out
	answer *http.Response // of a refusal, nil if there is none
	code   int            // of the answer to the client if the request is not sent again
	text   string         // of that answer
}

// failureOf returns what follows from the error of the last try.
func (p *request) failureOf(err error) *failure {
	f := &failure{err: err, code: http.StatusBadGateway}
	if said := (caddyhttp.HandlerError{}); errors.As(err, &said) && said.StatusCode >= 400 {
		f.code = said.StatusCode
	}
	var no *refusal
	if errors.As(err, &no) {
		f.reason, f.undone, f.answer = no.reason, no.undone, no.answer
	}
	switch {
	case f.undone:
		f.again, f.code = !p.streamed(), http.StatusServiceUnavailable
		f.text = "the request was not carried out: " + no.text
	case no != nil:
		f.again = p.repeatable()
		f.text = "a standby could not forward the request to the active Vault node, which may have carried it out"
	case refused(err): // it would fail again
		f.text = "the proxy and the active Vault node do not agree on TLS (see proxy_tls, and the tls block of probe)"
	case p.misunderstood(err): // as before
		f.text = "the active Vault node gave an answer that is no HTTP, or whose header is too long"
	case !p.arrived.Load():
		f.again, f.reason = true, engine.RetryUnconnected
		f.text = "the active Vault node could not be reached by the proxy"
	default:
		f.again, f.reason = p.repeats < maxRepeats && p.repeatable(), engine.RetryBroken
		f.text = "the active Vault node broke the connection before it answered, and may have carried out the request"
		if errors.Is(err, errNodeEnded) {
			f.text = "the Vault node stopped being active before it answered, and may have carried out the request"
		}
	}
	return f
}

// streamed reports whether the body of the request goes to the node as it comes, so that it cannot be sent again.
func (p *request) streamed() bool { return p.upload != nil && p.body == nil }

// repeatable reports whether the request may be sent again although it may have been carried out.
func (p *request) repeatable() bool { return isRead(p.out.Method) && p.out.ContentLength == 0 }

// misunderstood reports whether the answer of a node is not HTTP, or has a header that is too long.
func (p *request) misunderstood(err error) bool {
	var broken *net.OpError
	return p.replied.Load() && !errors.Is(err, errNodeEnded) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &broken)
}

// refused reports whether a TLS handshake has failed: one side does not trust the other, or does not speak TLS.
func refused(err error) bool {
	untrusted, noTLS, alert := (*tls.CertificateVerificationError)(nil), tls.RecordHeaderError{}, (*net.OpError)(nil)
	return errors.As(err, &untrusted) || errors.As(err, &noTLS) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
}

// isRead reports whether a request with a method may be repeated. A GET of dynamic credentials creates new ones each time, but so
// does each retry of a client.
func isRead(method string) bool {
	return slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions, "LIST"}, method)
}
