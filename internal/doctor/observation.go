// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"cmp"
	"fmt"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/machine"
)

// Observation is what was observed of one cluster: facts, without an opinion on them.
type Observation struct {
	engine.Config // Name, Probe and Standbys are used

	Source    string // of the discovery: consul, vault or another
	Endpoint  string // of the discovery
	Selection discovery.Selection
	Sites     []Site // that redirect to the cluster; none if no config was given
	Here      machine.Addresses
	Now       time.Time

	Queries

	Reason     discovery.Reason // why a node is active, or none is
	Detail     string
	By         string // what says so: engine.ByProbe or engine.BySource
	Candidates int
	Nodes      []*Node
}

// Site is a server in a config that redirects or proxies to the cluster.
type Site struct {
	Listen []Listen
	Hosts  []string  // by which clients address it
	TLS    bool      // it serves https
	Proxy  bool      // it proxies rather than redirects, so that clients do not see where to
	Reads  []Matcher // of the requests that a standby may answer
}

// Listen is where a site listens.
type Listen struct {
	Host     string // empty: at all addresses
	From, To uint   // ports
}

// Node is what the engine knows of a node, and what a single probe saw of it.
type Node struct {
	engine.NodeStatus
	Label string // tells it from others, for people
	engine.Inspection
}

// Title names the cluster and its discovery for people.
func (o *Observation) Title() string {
	if o.Selection.Mode == discovery.ByProbe {
		return o.Name + " (without Consul)"
	}
	return fmt.Sprintf("%s (%s %s)", o.Name, cmp.Or(o.Source, "discovery"), o.Endpoint)
}

// said is what the node says that it is, whether it is trusted or not. The zero value: nothing.
func (n *Node) said() engine.Role {
	switch {
	case n.Health != nil && n.Health.Vault:
		return n.Health.Role
	case n.Health == nil && n.Probe.Code != 0:
		r := engine.RoleOf(n.Probe.Code)
		r.Result = n.Probe.Result
		return r
	}
	return engine.Role{}
}
