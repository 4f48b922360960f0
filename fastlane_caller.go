// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how the fast lane answers: as the handler decides, for requests of which it knows all that the handler
// would look at.

package vaultredirect

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/fastlane"
)

var rootURL = &url.URL{Path: "/"}

// overTLS stands for the state of a connection of which nothing is asked but whether it is there.
var overTLS = new(tls.ConnectionState)

// laneCaller answers for one connection.
type laneCaller struct {
	lane   *FastLane
	strict bool          // the name that the client asked for by SNI must be that in its requests
	name   string        // that name
	like   *http.Request // the last request, as the handler would see it, but for its path

	state *engine.State // in which like would be redirected; nil: it would not, or not always
}

// Caller implements [fastlane.Site].
func (l *FastLane) Caller(c net.Conn, secure bool, serverName string) fastlane.Caller {
	ctx := context.WithValue(context.Background(), http.LocalAddrContextKey, c.LocalAddr())
	like := (&http.Request{Method: http.MethodGet, URL: rootURL, ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	if addr := c.RemoteAddr(); addr != nil {
		like.RemoteAddr = addr.String()
	}
	caller := &laneCaller{lane: l, like: like}
	if secure {
		like.TLS = overTLS
		caller.strict, caller.name = l.server.StrictSNIHost != nil && *l.server.StrictSNIHost, serverName
	}
	return caller
}

// Panicked implements [fastlane.Site].
func (l *FastLane) Panicked(c net.Conn, value any, stack []byte) {
	l.logger.Error("panic while serving a connection", zap.Stringer("remote", c.RemoteAddr()), zap.Any("panic", value), zap.ByteString("stack", stack))
}

// AcceptFailed implements [fastlane.Site].
func (l *FastLane) AcceptFailed(err error, pause time.Duration) {
	l.logger.Debug("accepting a connection failed, it is tried again", zap.Error(err), zap.Duration("pause", pause))
}

// Redirect implements [fastlane.Caller].
func (c *laneCaller) Redirect(q *fastlane.Request, closing bool) *fastlane.Answer {
	l := c.lane
	common := l.commonNow()
	if common == nil || l.handler == nil || !c.ours(q) {
		return nil
	}
	s := l.handler.view.State()
	if s != c.state || string(q.Host) != c.like.Host || q.Proto != nil || c.like.Header != nil || s.Phase().Situation != engine.Active {
		if !c.wouldRedirect(s, q) {
			return nil
		}
	}
	if s.Target.Loopback && (q.Forwarded || l.trusting) {
		return nil // who the client is may be said by a header, or be unknown
	}
	l.handler.view.Stats().Answered(engine.Redirected)
	return l.answer(s, common, !closing && caddy.Exiting())
}

// ours reports whether a request is one for the handler to redirect: not for the health endpoints, for Caddy itself, or for
// the proxy.
func (c *laneCaller) ours(q *fastlane.Request) bool {
	h := c.lane.handler
	path := q.Path
	if q.Escaped {
		unescaped, err := url.PathUnescape(string(path))
		if err != nil {
			return false
		}
		path = []byte(unescaped)
	}
	if bytes.HasPrefix(path, []byte("/.well-known/")) { // Caddy answers there to prove that a name is its own
		return false
	}
	if h.healthPath != "" && bytes.HasPrefix(path, []byte(h.healthPath)) && h.healthEndpoint(string(path[len(h.healthPath):])) != nil {
		return false
	}
	if h.Proxy == nil {
		return true
	}
	target, err := url.ParseRequestURI(string(q.Target))
	if err != nil {
		return false
	}
	r := c.like.WithContext(context.WithValue(c.like.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
	r.Method, r.URL = string(q.Method), target
	proxied, err := h.Proxy.matches(r)
	return !proxied && err == nil
}

// wouldRedirect reports whether the handler would redirect a request in a state, at once.
func (c *laneCaller) wouldRedirect(s *engine.State, q *fastlane.Request) bool {
	c.state = nil
	if string(q.Host) != c.like.Host {
		c.like.Host = string(q.Host)
	}
	c.like.Header = nil
	if q.Proto != nil {
		c.like.Header = http.Header{"X-Forwarded-Proto": {string(q.Proto)}}
	}
	if !c.named() {
		return false
	}
	situation := s.Phase().Situation
	if situation != engine.Active && situation != engine.Stale {
		return false
	}
	if answer, _ := decide(s, c.like); answer != engine.Redirected {
		return false
	}
	c.state = s
	return true
}

// named reports whether the request names the site, and does not contradict SNI where that counts.
func (c *laneCaller) named() bool {
	host, _, err := net.SplitHostPort(c.like.Host)
	if err != nil {
		host = c.like.Host
	}
	if c.strict && !strings.EqualFold(c.name, host) || strings.Trim(host, ".") == "" {
		return false
	}
	if len(c.lane.hosts) == 0 {
		return true
	}
	matched, err := c.lane.hosts.MatchWithError(c.like.WithContext(context.WithValue(c.like.Context(), caddy.ReplacerCtxKey, emptyReplacer)))
	return matched && err == nil
}

// emptyReplacer replaces nothing: the names have no placeholders.
var emptyReplacer = caddy.NewEmptyReplacer()

// commonNow returns what Caddy's server adds to each answer; nil if that is not known yet.
func (l *FastLane) commonNow() *common {
	c := l.common.Load()
	if c == nil || c.settled {
		return c
	}
	if now := time.Now(); now.Sub(c.learned) > settling/100 {
		l.learn(now)
	}
	return l.common.Load()
}

// laneAnswer is an answer, with what it was made of.
type laneAnswer struct {
	fastlane.Answer
	state  *engine.State
	common *common
}

// answer returns the answer in a state. It is made of what the handler itself writes.
func (l *FastLane) answer(s *engine.State, with *common, exiting bool) *fastlane.Answer {
	if t := l.answers.Load(); t != nil && t.state == s && t.common == with && t.Close == exiting {
		return &t.Answer
	}
	w := &headerOnly{header: with.header.Clone()}
	if exiting {
		closeConnection(w.header)
	}
	_ = redirect(w, &http.Request{URL: new(url.URL)}, &s.Target, "")
	b := bytes.NewBufferString("HTTP/1.1 307 Temporary Redirect\r\n")
	_ = w.header.Write(b)
	before, after, _ := bytes.Cut(b.Bytes(), []byte("\r\nLocation: "+s.Target.URL+"\r\n"))
	t := &laneAnswer{state: s, common: with, Answer: fastlane.Answer{
		Before: append(bytes.Clone(before), "\r\nLocation: "+s.Target.URL...),
		After:  append([]byte("\r\n"), after...),
		Close:  exiting,
	}}
	l.answers.Store(t)
	return &t.Answer
}
