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

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

// status is the status document. The first seven keys are those of vault-redirector, with their meaning.
type status struct {
	Healthy        bool       `json:"healthy"`          // requests are redirected now
	Application    string     `json:"application"`      // vault-redirector
	Version        string     `json:"version"`          // of this plugin
	Source         string     `json:"source"`           // where its source is
	ConsulHostPort string     `json:"consul_host_port"` // which Consul is asked
	ActiveVault    *string    `json:"active_vault"`     // host:port of the active node, null if there is none
	LastConsulPoll *time.Time `json:"last_consul_poll"` // when Consul last answered, null if it never did

	Reason      discovery.Reason `json:"reason"`                 // ok, or what is wrong
	Detail      string           `json:"detail,omitempty"`       // what the reason means
	ActiveNode  string           `json:"active_node,omitempty"`  // the node's name in Consul
	RedirectURL string           `json:"redirect_url,omitempty"` // scheme://host:port of redirects
	StaleSince  *time.Time       `json:"stale_since,omitempty"`  // since when active_vault is merely the last node known
	Nodes       int              `json:"nodes"`                  // instances that are registered
	Candidates  int              `json:"candidates"`             // instances that could have been elected
	Changes     uint64           `json:"changes"`                // how often another node became active
	Draining    bool             `json:"draining,omitempty"`     // the process is about to end
	ShutdownIn  string           `json:"shutdown_in,omitempty"`  // when the listener closes
}

// lastReported is what the last checks of health were answered with, of each kind.
type lastReported struct{ unhealthy, unready atomic.Bool }

// statusOf returns the document for a state at a time. Anybody may read it: it quotes nothing that another machine said.
func statusOf(s *engine.State, endpoint string, now time.Time) status {
	d := status{
		Healthy: s.PhaseAt(now).HasTarget(), Application: instance.Application, Version: instance.Version(), Source: instance.SourceURL, ConsulHostPort: endpoint,
		LastConsulPoll: timeOrNil(s.Polled), StaleSince: timeOrNil(s.StaleSince),
		Reason: s.ReasonAt(now), Nodes: s.Nodes(), Candidates: s.Candidates, Changes: s.Changes,
	}
	if d.Reason != discovery.ReasonOK {
		d.Detail = redirect.Explain(d.Reason)
	}
	if d.Healthy {
		d.ActiveVault, d.ActiveNode, d.RedirectURL = &s.Target.Authority, s.Node.Name, s.Target.URL
	}
	return d
}

// startupWait lets a request for the health document wait for the first outcome, and for nothing else.
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

// serveReady answers 503 only where another copy may do better: this one is about to end, or cannot ask discovery. While
// Vault has no active node, it is ready: requests wait here, or are told the truth.
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
	return h.answerCheck(w, r, &h.last.unready, d["ready"] == true, d)
}

// serveLive answers 200 for as long as requests are answered at all.
func (h *Handler) serveLive(w http.ResponseWriter, r *http.Request) error {
	return h.answerCheck(w, r, new(atomic.Bool), true, map[string]any{"live": true})
}

// answerCheck answers a check of health, which has its own memory of the last answer. What is well is not worth a line in
// the access log, nor is what was unwell before.
func (h *Handler) answerCheck(w http.ResponseWriter, r *http.Request, unwell *atomic.Bool, well bool, document any) error {
	code := http.StatusOK
	news := unwell.Swap(!well) == well && !well
	if !well {
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
	d := statusOf(s, h.discoverer.Endpoint(), time.Now())
	if v := redirect.Decide(s, r, redirect.ToRedirect); d.Healthy && !v.Goes() {
		d.Healthy, d.Reason, d.Detail, d.ActiveVault, d.RedirectURL = false, v.Reason, v.Text(s), nil, ""
	}
	if d.Draining, d.ShutdownIn = instance.ShuttingDown(r); d.Draining {
		d.Healthy = false
	}
	return h.answerCheck(w, r, &h.last.unhealthy, d.Healthy, d)
}
