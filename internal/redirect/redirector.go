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

// Verdict says how a request is answered in a State.
type Verdict struct {
	Answer  engine.Answer    // Redirected, SentToStandby or Proxied if it may go to a node, else Unavailable or Loop
	Standby *engine.Standby  // to which it goes; nil: to the active node
	Reason  discovery.Reason // why it may not go anywhere
	Proven  bool             // the loop does not only follow from what the client sent, which may be forged
}

// Decide says where a request goes in a State.
func Decide(s *engine.State, r *http.Request, kind Kind) Verdict {
	switch {
	case s.Loop != "":
		return Verdict{Answer: engine.Loop, Reason: discovery.ReasonBadAddress, Proven: true}
	case !s.Active():
		return Verdict{Answer: engine.Unavailable, Reason: s.ReasonAt(time.Now())}
	}
	unusable := Verdict{Answer: engine.Unavailable, Reason: discovery.ReasonBadAddress}
	if kind == ToProxy {
		switch {
		case loopbackOfAnotherHost(s):
			return unusable
		case marked(r), isSocket(s.Target.Addr, r.Context()):
			return Verdict{Answer: engine.Loop, Reason: discovery.ReasonBadAddress, Proven: true}
		}
		return Verdict{Answer: engine.Proxied, Reason: discovery.ReasonOK}
	}
	if kind == ToStandby {
		if to := standbyFor(s, r); to != nil {
			return Verdict{Answer: engine.SentToStandby, Standby: to, Reason: discovery.ReasonOK}
		}
	}
	switch loop, proven := leadsBack(&s.Target, r); {
	case loop:
		return Verdict{Answer: engine.Loop, Reason: discovery.ReasonBadAddress, Proven: proven}
	case onlyLocal(&s.Target, r):
		return unusable
	}
	return Verdict{Answer: engine.Redirected, Reason: discovery.ReasonOK}
}

// Goes reports whether the request may go to a node.
func (v Verdict) Goes() bool {
	return v.Answer == engine.Redirected || v.Answer == engine.SentToStandby || v.Answer == engine.Proxied
}

// Text says why a request may not go to the active node of a State.
func (v Verdict) Text(s *engine.State) string {
	if v.Answer == engine.Loop {
		return loopText(cmp.Or(s.Loop, s.Target.URL))
	}
	return Explain(v.Reason)
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
		o := d.await(r, nil)
		if v := Decide(o.State, r, kind); v.Answer == engine.Unavailable {
			return d.Pass(w, r, o, v, next)
		}
		held = o.Held
	}
	RefuseBody(w, r)
	readBeforeReply(w, r)
	o := d.await(r, discardWhileWaiting)
	o.Held += held
	v := Decide(o.State, r, kind)
	o.Answer, o.Standby = v.Answer, v.Standby
	d.Note(r, o)
	if !v.Goes() {
		return d.Refuse(w, o.State, v)
	}
	_, to := o.Destination()
	return WriteRedirect(w, r, to, path)
}

// await waits, if need be, until a node is active. It returns the state then, and how long the request was held. While the request
// waits, read reads its body; nil: nothing does.
func (d *Redirector) await(r *http.Request, read func(*http.Request) (end func())) Outcome {
	s := d.View.State()
	switch p := s.Phase(); {
	case p.Situation == engine.Active, p.Situation == engine.Stale, p.Situation == engine.None && p.Time.IsZero():
		return Outcome{State: s}
	}
	came, end := time.Now(), func() {}
	defer func() { end() }()
	s = d.View.Await(r.Context(), d.Queue, engine.Waiter{
		Client: ClientAddress(r), Came: came, Unseen: hidesLeaving(r, read != nil), Begin: func() {
			if read != nil {
				end = read(r)
			}
		},
	})
	return Outcome{State: s, Held: HeldSince(came)}
}

// Pass gives a request that would get a 503 to the next handler. If there is none, the request gets its 503: Caddy would answer with an
// empty 200, which clients of Vault take for success.
func (d *Redirector) Pass(w http.ResponseWriter, r *http.Request, o Outcome, v Verdict, next caddyhttp.Handler) error {
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
	return d.Refuse(w, o.State, v)
}

// unhandledVar is the variable of a request that Caddy sets at the end of the handlers.
const unhandledVar = "unhandled"

// Refuse answers a request that may not go to the active node of a State.
func (d *Redirector) Refuse(w http.ResponseWriter, s *engine.State, v Verdict) error {
	if v.Answer != engine.Loop {
		w.Header()["Retry-After"] = d.RetryAfter
		return WriteErrors(w, http.StatusServiceUnavailable, "no active Vault node: "+v.Text(s))
	}
	if v.Proven {
		s.LoopSeen.Do(func() {
			d.Log.Warn("redirect loop: the active node is registered with the address of this site",
				zap.String("node", s.Node.Name), zap.String("url", cmp.Or(s.Loop, s.Target.URL)))
		})
	}
	w.Header().Set(engine.RedirectorHeader, "1")
	return WriteErrors(w, http.StatusLoopDetected, v.Text(s))
}

// RefuseBad answers a bad request with 400.
func (d *Redirector) RefuseBad(w http.ResponseWriter, r *http.Request, text string) error {
	RefuseBody(w, r)
	d.Note(r, Outcome{State: d.View.State(), Answer: engine.BadRequest})
	return WriteErrors(w, http.StatusBadRequest, text)
}
