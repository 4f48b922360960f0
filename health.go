// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
)

// lastReported notes whether the last health checks failed, by kind.
type lastReported struct{ unhealthy, notReady atomic.Bool }

// startupWait lets a request for the health document wait for the first outcome only.
var startupWait = engine.Queue{Most: math.MaxInt64, Uncounted: true}

// healthEndpoint returns the health endpoint at a path, nil if there is none.
func (h *Handler) healthEndpoint(path string) func(http.ResponseWriter, *http.Request) error {
	rest, ok := strings.CutPrefix(path, h.healthPath)
	if h.healthPath == "" || !ok {
		return nil
	}
	var serve func(http.ResponseWriter, *http.Request) error
	switch rest {
	case "":
		serve = h.serveHealth
	case "/ready":
		serve = h.serveReady
	case "/live":
		serve = h.serveLive
	default:
		return nil
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		redirect.RefuseBody(w, r)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			return redirect.WriteErrors(w, http.StatusMethodNotAllowed, "the health endpoints answer GET and HEAD")
		}
		return serve(w, r)
	}
}

// serveReady answers 503 only if another instance may do better: this one is shutting down, or its discovery fails. It is ready while
// Vault has no active node: requests wait, or get a 503 that says why.
func (h *Handler) serveReady(w http.ResponseWriter, r *http.Request) error {
	d := map[string]any{"ready": true}
	s := h.redirector.View.State()
	now := time.Now()
	if reason := s.ReasonAt(now); !s.PhaseAt(now).HasTarget() && redirect.MayBeOwnFault(reason) {
		d["ready"], d["reason"], d["detail"] = false, reason, redirect.Explain(reason)
	}
	if draining, in := instance.ShuttingDown(r); draining {
		d["ready"], d["draining"], d["shutdown_in"] = false, true, in
	}
	return h.answerCheck(w, r, &h.last.notReady, d["ready"] == true, d)
}

// serveLive answers 200 while requests are answered at all.
func (h *Handler) serveLive(w http.ResponseWriter, r *http.Request) error {
	return h.answerCheck(w, r, new(atomic.Bool), true, map[string]any{"live": true})
}

// answerCheck answers a health check. failed is whether the check of this kind failed before: only the first failure gets a line in
// the access log.
func (h *Handler) answerCheck(w http.ResponseWriter, r *http.Request, failed *atomic.Bool, ok bool, document any) error {
	code := http.StatusOK
	news := failed.Swap(!ok) == ok && !ok
	if !ok {
		code = http.StatusServiceUnavailable
		caddyhttp.SetVar(r.Context(), caddyhttp.LogLevelVar, "warn")
	}
	if !news && !h.LogHealth {
		caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	}
	body, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return redirect.WriteErrors(w, http.StatusInternalServerError, "the document could not be written")
	}
	return redirect.WriteJSON(w, code, append(body, '\n'))
}

// serveHealth answers a request for the health path: 200 if a request would be redirected now, else 503.
func (h *Handler) serveHealth(w http.ResponseWriter, r *http.Request) error {
	s := h.redirector.View.Await(r.Context(), &startupWait, engine.Waiter{})
	d := status.HealthOf(s, h.discoverer.Endpoint(), time.Now())
	if o := redirect.Decide(s, r, redirect.ToRedirect); d.Healthy && !o.Goes() {
		d.Healthy, d.Reason, d.Detail, d.ActiveVault, d.RedirectURL = false, o.Reason, o.Text(), nil, ""
	}
	if d.Draining, d.ShutdownIn = instance.ShuttingDown(r); d.Draining {
		d.Healthy = false
	}
	return h.answerCheck(w, r, &h.last.unhealthy, d.Healthy, d)
}
