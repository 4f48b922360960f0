// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package fastlane

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/http1"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

var rootURL = &url.URL{Path: "/"}

// overTLS stands for the state of a TLS connection: only whether it is nil is used.
var overTLS = new(tls.ConnectionState)

// caller answers the requests of one connection.
type caller struct {
	lane   *FastLane
	strict bool          // the host of requests must be the name that the client sent as SNI
	name   string        // that name
	last   *http.Request // the last request as the handler would see it, except for its path

	state *engine.State // the state in which last is always redirected; nil: none
}

// caller is the [http1.Site] of the lane.
func (l *FastLane) caller(c net.Conn, secure bool, serverName string) http1.Caller {
	ctx := context.WithValue(context.Background(), http.LocalAddrContextKey, c.LocalAddr())
	last := (&http.Request{Method: http.MethodGet, URL: rootURL, ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	if addr := c.RemoteAddr(); addr != nil {
		last.RemoteAddr = addr.String()
	}
	caller := &caller{lane: l, last: last}
	if secure {
		last.TLS = overTLS
		caller.strict, caller.name = l.server.StrictSNIHost != nil && *l.server.StrictSNIHost, serverName
	}
	return caller.redirect
}

// redirect is the [http1.Caller] of a connection.
func (c *caller) redirect(q *http1.Request, closing bool) *http1.Answer {
	l := c.lane
	headers := l.headersNow()
	if headers == nil || l.handler == nil || !c.isRedirected(q) {
		return nil
	}
	kind, r := c.kindOf(q)
	if kind == redirect.ToProxy {
		return nil
	}
	s := l.handler.Redirector.View.State()
	if s != c.state || string(q.Host) != c.last.Host || q.Proto != nil || c.last.Header != nil || s.Phase().Situation != engine.Active {
		if !c.wouldRedirect(s, q) {
			return nil
		}
	}
	o := redirect.Outcome{State: s, Answer: engine.Redirected}
	if kind == redirect.ToStandby {
		if q.Forwarded || l.trusting {
			return nil // a header may have the client's address, by which a standby may be chosen
		}
		v := redirect.Decide(s, c.withSecrets(r, q), kind)
		if !v.Goes() {
			return nil
		}
		o.Answer, o.Standby = v.Answer, v.Standby
	}
	_, to := o.Destination()
	if to.Loopback && (q.Forwarded || l.trusting) {
		return nil // a header may have the client's address
	}
	l.handler.Redirector.View.Stats().Answers.Add(o.Answer)
	return l.answer(s, to, headers, !closing && caddy.Exiting())
}

// isRedirected reports whether the handler would redirect or proxy a request: it is not for the health endpoints, or for Caddy itself.
func (c *caller) isRedirected(q *http1.Request) bool {
	h := c.lane.handler
	path := q.Path
	if q.Escaped {
		unescaped, err := url.PathUnescape(string(path))
		if err != nil {
			return false
		}
		path = []byte(unescaped)
	}
	if bytes.HasPrefix(path, []byte("/.well-known/")) { // Caddy answers ACME challenges there
		return false
	}
	return !h.Owns(path)
}

// kindOf returns how a request gets to a node, ToProxy if the handler has to find out, and the request as matchers see it.
func (c *caller) kindOf(q *http1.Request) (redirect.Kind, *http.Request) {
	h := c.lane.handler
	if h.KindOf == nil {
		return redirect.ToRedirect, nil
	}
	target, err := url.ParseRequestURI(string(q.Target))
	if err != nil {
		return redirect.ToProxy, nil
	}
	r := c.last.WithContext(context.WithValue(c.last.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
	r.Method, r.URL = string(q.Method), target
	kind, err := h.KindOf(r)
	if err != nil {
		return redirect.ToProxy, nil
	}
	return kind, r
}

// withSecrets returns a request with the headers by which its standby is chosen, and by which a loop is found.
func (c *caller) withSecrets(r *http.Request, q *http1.Request) *http.Request {
	r.Host, r.Header = c.last.Host, http.Header{}
	for name, value := range map[string][]byte{"X-Forwarded-Proto": q.Proto, "X-Vault-Token": q.Token, "Authorization": q.Authorization} {
		if value != nil {
			r.Header[name] = []string{string(value)}
		}
	}
	return r
}

// wouldRedirect reports whether the handler would redirect a request in a state without waiting.
func (c *caller) wouldRedirect(s *engine.State, q *http1.Request) bool {
	c.state = nil
	if string(q.Host) != c.last.Host {
		c.last.Host = string(q.Host)
	}
	c.last.Header = nil
	if q.Proto != nil {
		c.last.Header = http.Header{"X-Forwarded-Proto": {string(q.Proto)}}
	}
	if !c.matchesHost() {
		return false
	}
	situation := s.Phase().Situation
	if situation != engine.Active && situation != engine.Stale {
		return false
	}
	if !redirect.Decide(s, c.last, redirect.ToRedirect).Goes() {
		return false
	}
	c.state = s
	return true
}

// matchesHost reports whether the host of a request is that of the site, and that of SNI if that is checked.
func (c *caller) matchesHost() bool {
	host, _, err := net.SplitHostPort(c.last.Host)
	if err != nil {
		host = c.last.Host
	}
	if c.strict && !strings.EqualFold(c.name, host) || strings.Trim(host, ".") == "" {
		return false
	}
	if len(c.lane.hosts) == 0 {
		return true
	}
	matched, err := c.lane.hosts.MatchWithError(c.last.WithContext(context.WithValue(c.last.Context(), caddy.ReplacerCtxKey, emptyReplacer)))
	return matched && err == nil
}

// emptyReplacer replaces nothing: host names of the matcher have no placeholders.
var emptyReplacer = caddy.NewEmptyReplacer()

// headersNow returns what Caddy's server adds to each answer; nil if that is not known yet.
func (l *FastLane) headersNow() *serverHeaders {
	c := l.headers.Load()
	if c == nil || c.settled {
		return c
	}
	if now := time.Now(); now.Sub(c.asked) > untilSettled/100 {
		l.askServer(now)
	}
	return l.headers.Load()
}

// madeAnswer is an answer, with what it was made from.
type madeAnswer struct {
	http1.Answer
	state   *engine.State
	to      *engine.Target
	headers *serverHeaders
}

// answer returns the answer with a target of a state, which is made from what the handler itself writes.
func (l *FastLane) answer(s *engine.State, to *engine.Target, with *serverHeaders, exiting bool) *http1.Answer {
	var made []*madeAnswer
	if list := l.answers.Load(); list != nil && (*list)[0].state == s && (*list)[0].headers == with {
		made = *list
	}
	for _, t := range made {
		if t.to == to && t.Close == exiting {
			return &t.Answer
		}
	}
	w := &headerOnly{header: with.header.Clone()}
	if exiting {
		redirect.CloseConnection(w.header)
	}
	_ = redirect.WriteRedirect(w, &http.Request{URL: new(url.URL)}, to, "")
	b := bytes.NewBufferString("HTTP/1.1 307 Temporary Redirect\r\n")
	_ = w.header.Write(b)
	before, after, _ := bytes.Cut(b.Bytes(), []byte("\r\nLocation: "+to.URL+"\r\n"))
	t := &madeAnswer{state: s, to: to, headers: with, Answer: http1.Answer{
		Before: append(bytes.Clone(before), "\r\nLocation: "+to.URL...),
		After:  append([]byte("\r\n"), after...),
		Close:  exiting,
	}}
	made = append(slices.Clip(made), t)
	l.answers.Store(&made)
	return &t.Answer
}
