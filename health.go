// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the health endpoint and the status document that everything which shows the state has in common.

package vaultredirect

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
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

// statusOf returns the document for a state at a time. Anybody may read it: it quotes nothing that another machine said.
func statusOf(s *engine.State, endpoint string, now time.Time) status {
	d := status{
		Healthy: s.PhaseAt(now).HasTarget(), Application: instance.Application, Version: instance.Version(), Source: instance.SourceURL, ConsulHostPort: endpoint,
		LastConsulPoll: moment(s.Polled), StaleSince: moment(s.StaleSince),
		Reason: s.ReasonAt(now), Nodes: s.Nodes(), Candidates: s.Candidates, Changes: s.Changes,
	}
	if d.Reason != discovery.ReasonOK {
		d.Detail = explain(d.Reason)
	}
	if d.Healthy {
		d.ActiveVault, d.ActiveNode, d.RedirectURL = &s.Target.Authority, s.Node.Name, s.Target.URL
	}
	return d
}

// patience lets a request for the health document wait for the first outcome, and for nothing else.
var patience = engine.Queue{Most: math.MaxInt64, Uncounted: true}

// healthEndpoint returns the endpoint at what follows the health path, nil if there is none.
func (h *Handler) healthEndpoint(rest string) func(http.ResponseWriter, *http.Request) error {
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
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			return writeErrors(w, http.StatusMethodNotAllowed, "the health endpoints answer GET and HEAD")
		}
		return serve(w, r)
	}
}

// serveReady answers 503 only where another copy may do better: this one is about to end, or cannot ask discovery. While
// Vault has no active node, it is ready: requests wait here, or are told the truth.
func (h *Handler) serveReady(w http.ResponseWriter, r *http.Request) error {
	d := map[string]any{"ready": true}
	s := h.view.State()
	now := time.Now()
	if reason := s.ReasonAt(now); !s.PhaseAt(now).HasTarget() && blind(reason) {
		d["ready"], d["reason"], d["detail"] = false, reason, explain(reason)
	}
	if draining, in := instance.ShuttingDown(r); draining {
		d["ready"], d["draining"], d["shutdown_in"] = false, true, in
	}
	return h.answerCheck(w, r, &h.memory.unready, d["ready"] == true, d)
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
		return writeErrors(w, http.StatusInternalServerError, "the document could not be written")
	}
	return writeJSON(w, code, append(body, '\n'))
}

// serveHealth answers a request for the health path: 200 if a request would be redirected now, else 503.
func (h *Handler) serveHealth(w http.ResponseWriter, r *http.Request) error {
	s := h.view.Await(r.Context(), &patience, engine.Waiter{})
	d := statusOf(s, h.discoverer.Endpoint(), time.Now())
	if d.Healthy {
		loop, _ := leadsBack(&s.Target, r)
		if loop {
			d.Detail = loopText(s.Target.URL)
		} else if loop = onlyLocal(&s.Target, r); loop {
			d.Detail = explain(discovery.ReasonBadAddress)
		}
		if loop {
			d.Healthy, d.Reason, d.ActiveVault, d.RedirectURL = false, discovery.ReasonBadAddress, nil, ""
		}
	}
	if d.Draining, d.ShutdownIn = instance.ShuttingDown(r); d.Draining {
		d.Healthy = false
	}
	return h.answerCheck(w, r, &h.memory.unwell, d.Healthy, d)
}

// writeErrors answers in the form in which Vault itself does, so that its clients show the text. It writes the answer
// itself rather than return an error, since Caddy logs the whole request, token included, with errors of 500 and above.
func writeErrors(w http.ResponseWriter, code int, text string) error {
	body, err := json.Marshal(map[string][]string{"errors": {text}})
	if err != nil {
		body = []byte(`{"errors":[]}`)
	}
	return writeJSON(w, code, append(body, '\n'))
}

// writeJSON writes an answer. That the client is gone is nobody's concern.
func writeJSON(w http.ResponseWriter, code int, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(body)
	return nil
}
