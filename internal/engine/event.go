// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// EventKind is the kind of an event.
type EventKind string

// The kinds. They are unique among all events of Caddy, whose Caddyfile cannot tell one plugin's from another's.
const (
	ActiveChanged EventKind = "vault_active_changed"
	ActiveLost    EventKind = "vault_active_lost"
	DiscoveryDown EventKind = "vault_discovery_down"
	DiscoveryUp   EventKind = "vault_discovery_up"
	NodeChanged   EventKind = "vault_node_changed"
)

// Event is one thing that happened to a cluster. Which fields are set depends on the kind.
type Event struct {
	Kind          EventKind
	At            time.Time
	Cluster       string
	Node          string // that became active, or whose state changed
	URL           string
	Previous      string // the node that was active before
	PreviousURL   string
	Reason        discovery.Reason
	By            string        // ByProbe or BySource
	Gap           time.Duration // how long no node was active
	Active        time.Duration // how long the node that is lost was active
	Outage        time.Duration // of discovery
	Changes       uint64
	State         NodeState
	PreviousState NodeState
}

// Listen registers f, which is called with each event of the pool, in order for each cluster. f must neither wait nor call the
// engine: the pool is locked meanwhile.
func (p *Pool) Listen(f func(Event)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners = append(p.listeners, f)
}

// announce calls all listeners with an event. Events do not go through the log queue: a log that blocks holds up no event.
func (p *Pool) announce(v *View, e Event) {
	e.Cluster = v.Name
	for _, hear := range p.listeners {
		hear(e)
	}
}
