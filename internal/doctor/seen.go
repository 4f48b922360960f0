// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what was seen of a cluster: facts, without an opinion on them.

package doctor

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Seen is what was seen of one cluster.
type Seen struct {
	Name      string // of the cluster
	Source    string // of the discovery: consul, vault or another
	Endpoint  string // of the discovery
	Selection discovery.Selection
	Mode      engine.Mode // of the probes
	Verify    bool        // the probes verify certificates
	Sites     []Site      // that redirect to the cluster; none where no config says so
	Here      []netip.Addr
	Now       time.Time

	Asked      bool          // discovery has answered or failed in time
	Took       time.Duration // until it did, at the first time
	Failure    discovery.Reason
	FailedWith string           // text of the failure
	Doubt      discovery.Reason // of the answer, if there was one
	DoubtWhy   string

	Reason     discovery.Reason // why a node is active, or none is
	Detail     string
	By         string // what says so: engine.ByProbe or engine.BySource
	Candidates int
	Nodes      []Node
}

// Site is a server in a config that redirects or proxies to the cluster.
type Site struct {
	Listen []Listen
	Hosts  []string // under which clients know it
	TLS    bool     // it serves https
	Proxy  bool     // it proxies rather than redirects: clients do not see where to
}

// Listen is where a site listens.
type Listen struct {
	Host     string // empty: everywhere
	From, To uint   // ports
}

// Node is what is known of one node by the engine, and what the doctor has seen of it.
type Node struct {
	engine.NodeStatus
	Label string // tells it from others, for people
	Look  Look
}

// Look is what was seen of a node from here.
type Look struct {
	Host, Port string
	Addresses  []netip.Addr // what Host stands for
	LookupErr  string
	Connected  time.Duration // what connecting took
	ConnectErr string
	Cert       *Cert  // of a node that is reached by https
	TLSErr     string // why TLS did not come about
	OtherKind  bool   // it is http where https was expected, or the other way round
	Health     *Health
	HealthErr  string // why there is no such answer
}

// Cert is what was seen of a certificate.
type Cert struct {
	Names     string // it is for
	For       string // the name that it must be for
	WrongName string // why it is not
	Untrusted string // why it is not trusted, whatever its name and its dates
	From, To  time.Time
}

// Health is a node's own word, from /v1/sys/health.
type Health struct {
	Code      int
	Vault     bool // the answer is one of Vault's
	Version   string
	ClusterID string
	HasClock  bool
	Ahead     time.Duration // of the clock here; negative: behind
}

// Title names the cluster and its discovery for people.
func (s *Seen) Title() string {
	if s.Selection.Mode == discovery.ByProbe {
		return s.Name + " (without Consul)"
	}
	return fmt.Sprintf("%s (%s %s)", s.Name, orElse(s.Source, "discovery"), s.Endpoint)
}

// local reports whether an address is one of this machine.
func (s *Seen) local(ip netip.Addr) bool {
	if ip = ip.Unmap(); ip.IsLoopback() {
		return true
	}
	for _, here := range s.Here {
		if here.Unmap() == ip {
			return true
		}
	}
	return false
}

// code is the node's own word on its role: what the doctor heard, else what a probe found. 0: it said nothing.
func (n *Node) code() int {
	if n.Look.Health != nil && n.Look.Health.Vault {
		return n.Look.Health.Code
	}
	if n.Look.Health != nil {
		return 0
	}
	return n.Probe.Code
}
