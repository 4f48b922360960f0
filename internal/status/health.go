// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package status

import (
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

// Health is the document of the health endpoint. Since it is public, it does not quote text from other machines. The first seven
// keys are those of vault-redirector, with the same meaning.
type Health struct {
	Healthy        bool       `json:"healthy"`          // requests are redirected now
	Application    string     `json:"application"`      // vault-redirector
	Version        string     `json:"version"`          // of this plugin
	Source         string     `json:"source"`           // URL of its source code
	ConsulHostPort string     `json:"consul_host_port"` // address of discovery
	ActiveVault    *string    `json:"active_vault"`     // host:port of the active node, null if there is none
	LastConsulPoll *time.Time `json:"last_consul_poll"` // when Consul last answered, null if it never did

	Reason      discovery.Reason `json:"reason"`                 // ok, or what is wrong
	Detail      string           `json:"detail,omitempty"`       // what the reason means
	ActiveNode  string           `json:"active_node,omitempty"`  // the node's name in Consul
	RedirectURL string           `json:"redirect_url,omitempty"` // scheme://host:port of redirects
	StaleSince  *time.Time       `json:"stale_since,omitempty"`  // since when active_vault is only the last known node
	Nodes       int              `json:"nodes"`                  // instances that are registered
	Candidates  int              `json:"candidates"`             // instances that could have been elected
	Changes     uint64           `json:"changes"`                // how often another node became active
	Draining    bool             `json:"draining,omitempty"`     // the process is shutting down
	ShutdownIn  string           `json:"shutdown_in,omitempty"`  // when the listener closes
}

// HealthOf returns the health document for a state at a time, given the address of discovery.
func HealthOf(s *engine.State, endpoint string, now time.Time) Health {
	d := Health{
		Healthy: s.PhaseAt(now).HasTarget(), Application: instance.Application, Version: instance.Version(), Source: instance.SourceURL, ConsulHostPort: endpoint,
		LastConsulPoll: engine.TimeOrNil(s.Polled), StaleSince: engine.TimeOrNil(s.StaleSince),
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
