// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what other handlers, and the access log, get to know of how a request was answered.

package vaultredirect

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// outcome is how one request was answered.
type outcome struct {
	state  *engine.State
	answer engine.Answer
	held   time.Duration // how long it waited
}

// heldSince returns how long a request that came at a time has waited: nothing if it was answered at once.
func heldSince(came time.Time) time.Duration {
	if d := time.Since(came); d >= time.Millisecond {
		return d
	}
	return 0
}

// placeholders has the values of {http.vault_redirect.*}, which cost nothing until somebody asks for them.
type placeholders struct {
	of     outcome
	values caddy.ReplacerFunc
}

// note counts a request and tells of it: to handlers by placeholders, to the access log, if there is one, by fields.
func (h *Handler) note(r *http.Request, o outcome) {
	h.view.Stats().Answered(o.answer)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(h.placeholders(o))
	}
	if h.logged {
		h.logFields(r, o)
	}
}

// placeholders returns the values for an outcome. Those for redirects to the same node are the same, and made once.
func (h *Handler) placeholders(o outcome) caddy.ReplacerFunc {
	last := h.memory.last.Load()
	if last == nil || last.of != o {
		last = &placeholders{o, h.valuesOf(o)}
		if o.held == 0 {
			h.memory.last.Store(last)
		}
	}
	return last.values
}

func (h *Handler) valuesOf(o outcome) caddy.ReplacerFunc {
	return func(key string) (any, bool) {
		switch key {
		case "http.vault_redirect.cluster":
			return h.view.Name, true
		case "http.vault_redirect.node":
			return o.state.Node.Name, true
		case "http.vault_redirect.url":
			return o.state.Target.URL, true
		case "http.vault_redirect.reason":
			return string(o.state.ReasonAt(time.Now())), true
		case "http.vault_redirect.result":
			return o.answer.String(), true
		case "http.vault_redirect.held_ms":
			return o.held.Milliseconds(), true
		}
		return nil, false
	}
}

// logFields adds fields to the line of the access log.
func (h *Handler) logFields(r *http.Request, o outcome) {
	extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	if !ok {
		return
	}
	extra.Set(zap.String("vault_result", o.answer.String()))
	if o.state != nil && o.state.Node.Name != "" {
		extra.Set(zap.String("vault_node", o.state.Node.Name))
	}
	if o.held > 0 {
		extra.Set(zap.Duration("vault_held", o.held))
	}
}
