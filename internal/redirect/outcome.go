// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Outcome is how one request is answered.
type Outcome struct {
	State   *engine.State
	Answer  engine.Answer
	Standby *engine.Standby  // to which it is sent; nil: to the active node, if there is one
	Reason  discovery.Reason // why it may not go to a node
	Proven  bool             // the loop does not only follow from what the client sent, which may be forged
	Held    time.Duration    // how long it waited
}

// Goes reports whether the request may go to a node.
func (o Outcome) Goes() bool {
	return o.Answer == engine.Redirected || o.Answer == engine.SentToStandby || o.Answer == engine.Proxied
}

// Text says why the request may not go to a node.
func (o Outcome) Text() string {
	if o.Answer == engine.Loop {
		return "the active Vault node is registered as " + cmp.Or(o.State.Loop, o.State.Target.URL) +
			", which is the address of this redirector: correct api_addr in Vault's configuration"
	}
	return Explain(o.Reason)
}

// Destination returns the node to which the request is sent, and where that is reached.
func (o *Outcome) Destination() (node *discovery.Node, to *engine.Target) {
	if o.Standby != nil {
		return &o.Standby.Node, &o.Standby.Target
	}
	return &o.State.Node, &o.State.Target
}

// HeldSince returns for how long a request that came at a time was held: 0 below a millisecond.
func HeldSince(came time.Time) time.Duration {
	if d := time.Since(came); d >= time.Millisecond {
		return d
	}
	return 0
}

// placeholders has the values of {http.vault_redirect.*}, which are computed when they are used.
type placeholders struct {
	of     Outcome
	values caddy.ReplacerFunc
}

// Note counts a request, and sets its placeholders and the fields of the access log, if there is one.
func (d *Redirector) Note(r *http.Request, o Outcome) {
	d.View.Stats().Answered(o.Answer)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		values := d.placeholders(o)
		if o.Answer == engine.Passed {
			values = unlessLater(repl, values)
		}
		repl.Map(values)
	}
	if d.AccessLog {
		logFields(r, o)
	}
}

// placeholders returns the values for an Outcome. Redirects to the same node in the same State share them.
func (d *Redirector) placeholders(o Outcome) caddy.ReplacerFunc {
	var shared []placeholders
	if list := d.shared.Load(); list != nil && (*list)[0].of.State == o.State {
		shared = *list
	}
	for i := range shared {
		if shared[i].of == o {
			return shared[i].values
		}
	}
	values := d.valuesOf(o)
	if o.Held == 0 {
		shared = append(slices.Clip(shared), placeholders{o, values})
		d.shared.Store(&shared)
	}
	return values
}

// unlessLater returns placeholders for which the values of a handler that gets the request later take precedence. A replacer uses the
// first function that has a value.
func unlessLater(repl *caddy.Replacer, values caddy.ReplacerFunc) caddy.ReplacerFunc {
	asking := false
	return func(key string) (any, bool) {
		own, ok := values(key)
		if !ok || asking {
			return nil, false
		}
		asking = true
		defer func() { asking = false }()
		if later, found := repl.Get(key); found {
			return later, true
		}
		return own, true
	}
}

func (d *Redirector) valuesOf(o Outcome) caddy.ReplacerFunc {
	return func(key string) (any, bool) {
		switch key {
		case "http.vault_redirect.cluster":
			return d.View.Name, true
		case "http.vault_redirect.node":
			node, _ := o.Destination()
			return node.Name, true
		case "http.vault_redirect.url":
			_, to := o.Destination()
			return to.URL, true
		case "http.vault_redirect.reason":
			return string(o.State.ReasonAt(time.Now())), true
		case "http.vault_redirect.result":
			return o.Answer.String(), true
		case "http.vault_redirect.held_ms":
			return o.Held.Milliseconds(), true
		}
		return nil, false
	}
}

// logFields adds fields to the line of the access log.
func logFields(r *http.Request, o Outcome) {
	extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	if !ok {
		return
	}
	extra.Set(zap.String("vault_result", o.Answer.String()))
	if node, _ := o.Destination(); node.Name != "" {
		extra.Set(zap.String("vault_node", node.Name))
	}
	if o.Held > 0 {
		extra.Set(zap.Duration("vault_held", o.Held))
	}
}
