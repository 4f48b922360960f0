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
	lane    *FastLane
	strict  bool          // the host of requests must be the name that the client sent as SNI
	name    string        // that name
	request *http.Request // the last request as the handler and matchers see it
	served  bool          // its host is one of the site
	state   *engine.State // the state in which requests to this host are redirected to the active node; nil: none
}

// caller is the [http1.Site] of the lane.
func (l *FastLane) caller(c net.Conn, secure bool, serverName string) http1.Caller {
	ctx := context.WithValue(context.Background(), http.LocalAddrContextKey, c.LocalAddr())
	ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, emptyReplacer)
	request := (&http.Request{Method: http.MethodGet, URL: rootURL, ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	if addr := c.RemoteAddr(); addr != nil {
		request.RemoteAddr = addr.String()
	}
	caller := &caller{lane: l, request: request}
	if secure {
		request.TLS = overTLS
		caller.strict, caller.name = l.server.StrictSNIHost != nil && *l.server.StrictSNIHost, serverName
	}
	return caller.redirect
}

// emptyReplacer replaces nothing: the matchers that the lane supports have no placeholders.
var emptyReplacer = caddy.NewEmptyReplacer()

// redirect is the [http1.Caller] of a connection.
func (c *caller) redirect(q *http1.Request, closing bool) *http1.Answer {
	l := c.lane
	headers := l.headersNow()
	if headers == nil || l.handler == nil || !c.isRedirected(q) {
		return nil
	}
	if string(q.Host) != c.request.Host {
		c.request.Host, c.state = string(q.Host), nil
		c.served = c.matchesHost()
	}
	if !c.served {
		return nil
	}
	kind := c.kindOf(q)
	s := l.handler.Redirector.View.State()
	situation := s.Phase().Situation
	if kind == redirect.ToProxy || situation != engine.Active && situation != engine.Stale {
		return nil
	}
	o := redirect.Outcome{State: s, Answer: engine.Redirected}
	if kind == redirect.ToStandby || q.Proto != nil || s != c.state || situation == engine.Stale {
		c.request.Header = headerOf(q)
		o = redirect.Decide(s, c.request, kind)
		c.request.Header = nil // it may have the token, which is kept no longer than this
		if !o.Goes() {
			return nil
		}
		if kind == redirect.ToRedirect && q.Proto == nil {
			c.state = s
		}
	}
	_, to := o.Destination()
	if (to.Loopback || kind == redirect.ToStandby) && (q.Forwarded || l.server.TrustedProxiesUnix) {
		return nil // a header may have the client's address, by which a standby may be chosen
	}
	l.handler.Redirector.View.Stats().Answered(o.Answer)
	return l.answer(s, to, headers, !closing && caddy.Exiting())
}

// isRedirected reports whether the handler would redirect or proxy a request: it is not for the health endpoints, or for Caddy itself.
func (c *caller) isRedirected(q *http1.Request) bool {
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
	return !c.lane.handler.Owns(path)
}

// matchesHost reports whether the host of the last request is that of the site, and that of SNI if that is checked.
func (c *caller) matchesHost() bool {
	host, _, err := net.SplitHostPort(c.request.Host)
	if err != nil {
		host = c.request.Host
	}
	if c.strict && !strings.EqualFold(c.name, host) || strings.Trim(host, ".") == "" {
		return false
	}
	if len(c.lane.hosts) == 0 {
		return true
	}
	matched, err := c.lane.hosts.MatchWithError(c.request)
	return matched && err == nil
}

// kindOf returns how a request gets to a node; ToProxy also if the handler has to find out.
func (c *caller) kindOf(q *http1.Request) redirect.Kind {
	h := c.lane.handler
	if h.KindOf == nil {
		return redirect.ToRedirect
	}
	target, err := url.ParseRequestURI(string(q.Target))
	if err != nil {
		return redirect.ToProxy
	}
	c.request.Method, c.request.URL = string(q.Method), target
	kind, err := h.KindOf(c.request)
	if err != nil {
		return redirect.ToProxy
	}
	return kind
}

// headerOf returns the headers of a request by which its standby is chosen, and by which a loop is found.
func headerOf(q *http1.Request) http.Header {
	header := http.Header{}
	set := func(name string, value []byte) {
		if value != nil {
			header[name] = []string{string(value)}
		}
	}
	set("X-Forwarded-Proto", q.Proto)
	set("X-Vault-Token", q.Token)
	set("Authorization", q.Authorization)
	return header
}

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
