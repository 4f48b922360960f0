// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package redirect decides how a handler answers a request in a State of its cluster, and writes the answer.
package redirect

import (
	"cmp"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Redirector answers the requests of one handler. The handler, its proxy and the fast lane share it.
type Redirector struct {
	View       *engine.View
	Queue      *engine.Queue
	RetryAfter []string // value of the header
	Log        *zap.Logger
	AccessLog  bool // the server has access logs

	shared     atomic.Pointer[[]placeholders] // of requests that did not wait, in the last State
	nobodyNext sync.Once                      // it was logged that no handler comes next
}

// Kind is how a request gets to a node.
type Kind int

// The kinds.
const (
	ToRedirect Kind = iota // the client goes to the active node
	ToStandby              // the client goes to a standby that serves reads, or to the active node if none does
	ToProxy                // the request is proxied to the active node
)

// Decide says where a request goes in a State.
func Decide(s *engine.State, r *http.Request, kind Kind) Outcome {
	switch {
	case s.Loop != "":
		return Outcome{State: s, Answer: engine.Loop, Reason: discovery.ReasonBadAddress, Proven: true}
	case !s.Active():
		return Outcome{State: s, Answer: engine.Unavailable, Reason: s.ReasonAt(time.Now())}
	}
	unusable := Outcome{State: s, Answer: engine.Unavailable, Reason: discovery.ReasonBadAddress}
	if kind == ToProxy {
		switch {
		case loopbackOfAnotherHost(s):
			return unusable
		case marked(r), isSocket(s.Target.Addr, r.Context()):
			return Outcome{State: s, Answer: engine.Loop, Reason: discovery.ReasonBadAddress, Proven: true}
		}
		return Outcome{State: s, Answer: engine.Proxied}
	}
	if kind == ToStandby {
		if to := standbyFor(s, r); to != nil {
			return Outcome{State: s, Answer: engine.SentToStandby, Standby: to}
		}
	}
	switch loop, proven := leadsBack(&s.Target, r); {
	case loop:
		return Outcome{State: s, Answer: engine.Loop, Reason: discovery.ReasonBadAddress, Proven: proven}
	case onlyLocal(&s.Target, r):
		return unusable
	}
	return Outcome{State: s, Answer: engine.Redirected}
}

// Redirect answers a request by a redirect of its path to a node, for which it may wait, or by an error. If next is not nil, it gets the
// request in place of a 503.
func (d *Redirector) Redirect(w http.ResponseWriter, r *http.Request, path string, kind Kind, next caddyhttp.Handler) error {
	if r.Header[engine.ProbeHeader] != nil { // by a redirector that takes this one for a node of Vault
		RefuseBody(w, r)
		w.Header().Set(engine.RedirectorHeader, "1")
		d.Note(r, Outcome{State: d.View.State(), Answer: engine.Loop})
		return WriteErrors(w, http.StatusLoopDetected, "this is a redirector, not a Vault node: correct api_addr in Vault's configuration")
	}
	var held time.Duration
	if next != nil { // it gets the body, too: nothing may read that before
		var s *engine.State
		s, held = d.await(r, 0, nil)
		if o := Decide(s, r, kind); o.Answer == engine.Unavailable {
			o.Held = held
			return d.Pass(w, r, o, next)
		}
	}
	RefuseBody(w, r)
	readBeforeReply(w, r)
	s, held := d.await(r, held, discardWhileWaiting)
	o := Decide(s, r, kind)
	o.Held = held
	d.Note(r, o)
	if !o.Goes() {
		return d.Refuse(w, o)
	}
	_, to := o.Destination()
	return WriteRedirect(w, r, to, path)
}

// await waits, if need be, until a node is active. It returns the state then, and for how long the request was held, with what it was
// held before. While the request waits, read reads its body; nil: nothing does.
func (d *Redirector) await(r *http.Request, held time.Duration, read func(*http.Request) (end func())) (*engine.State, time.Duration) {
	s := d.View.State()
	switch p := s.Phase(); {
	case p.Situation == engine.Active, p.Situation == engine.Stale, p.Situation == engine.None && p.Time.IsZero():
		return s, held
	}
	came, end := time.Now().Add(-held), func() {}
	defer func() { end() }()
	s = d.View.Await(r.Context(), d.Queue, engine.Waiter{
		Client: ClientAddress(r), Came: came, Unseen: hidesLeaving(r, read != nil), Begin: func() {
			if read != nil {
				end = read(r)
			}
		},
	})
	return s, HeldSince(came)
}

// Pass gives a request that would get a 503 to the next handler. If there is none, the request gets its 503: Caddy would answer with an
// empty 200, which clients of Vault take for success.
func (d *Redirector) Pass(w http.ResponseWriter, r *http.Request, refused Outcome, next caddyhttp.Handler) error {
	o := refused
	o.Answer = engine.Passed
	d.Note(r, o) // first: what another handler notes of the same request takes precedence
	err := next.ServeHTTP(w, r)
	if nobody, _ := caddyhttp.GetVar(r.Context(), unhandledVar).(bool); err != nil || !nobody {
		return err
	}
	caddyhttp.SetVar(r.Context(), unhandledVar, nil)
	d.nobodyNext.Do(func() {
		d.Log.Warn("pass_thru: no other handler has answered the request: clients get 503 while there is no active node")
	})
	RefuseBody(w, r)
	return d.Refuse(w, refused)
}

// unhandledVar is the variable of a request that Caddy sets at the end of the handlers.
const unhandledVar = "unhandled"

// Refuse answers a request that may not go to a node.
func (d *Redirector) Refuse(w http.ResponseWriter, o Outcome) error {
	if o.Answer != engine.Loop {
		w.Header()["Retry-After"] = d.RetryAfter
		return WriteErrors(w, http.StatusServiceUnavailable, "no active Vault node: "+o.Text())
	}
	if s := o.State; o.Proven {
		s.LoopSeen.Do(func() {
			d.Log.Warn("redirect loop: the active node is registered with the address of this site",
				zap.String("node", s.Node.Name), zap.String("url", cmp.Or(s.Loop, s.Target.URL)))
		})
	}
	w.Header().Set(engine.RedirectorHeader, "1")
	return WriteErrors(w, http.StatusLoopDetected, o.Text())
}

// RefuseBad answers a bad request with 400.
func (d *Redirector) RefuseBad(w http.ResponseWriter, r *http.Request, text string) error {
	RefuseBody(w, r)
	d.Note(r, Outcome{State: d.View.State(), Answer: engine.BadRequest})
	return WriteErrors(w, http.StatusBadRequest, text)
}
