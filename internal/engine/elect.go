// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds Node, the rules by which one node is elected, and the reasons why none is.

package vaultredirect

import (
	"reflect"
	"slices"
	"strings"
)

// Node is one instance of Vault as a [Discovery] sees it: what decides whether it is the active one, and where it is reached.
type Node struct {
	// Name of the node: in Consul, the name of the agent's node.
	Name string
	// ID of the service instance. Name and ID together tell one instance from another.
	ID string
	// Address of the node, a host name or IP address.
	Address string
	// ServiceAddress is the address that the instance itself registered (Vault: its api_addr). May be empty.
	ServiceAddress string
	// Port that the instance registered.
	Port int
	// Scheme under which the instance is reached: http, https, or empty where the config of the handler says it.
	Scheme string
	// ServerName that the instance's certificate has, for probes. Default: the host that is redirected to.
	ServerName string
	// Datacenter of the node. May be empty.
	Datacenter string
	// Tags of the instance. Vault's own registration sets active, standby or performance-standby.
	Tags []string
	// Meta data of the node, overlaid with that of the instance.
	Meta map[string]string
	// Tagged addresses of the instance, and for keys that it lacks those of the node (then without a port).
	Tagged map[string]TaggedAddress
	// Checks of the node and of the instance.
	Checks []Check
	// Index of the last change to the registration (Consul: ModifyIndex of the service).
	Index uint64

	verdict verdict // of the probe, if there are probes
}

// verdict is what a probe found out about a node.
type verdict struct {
	known   bool   // there was a probe
	active  bool   // the node says that it is the active one
	standby bool   // the node says that it is alive, and not the active one
	leader  string // URL of the active node as this node names it, if that was asked for
	detail  string // why it is not active
}

// TaggedAddress is an alternative address of a node, such as its WAN address.
type TaggedAddress struct {
	// Host is a host name or IP address.
	Host string
	// Port, or 0 where the node's own port holds.
	Port int
}

// Check is one health check of a node or of the instance on it.
type Check struct {
	// ID of the check (Consul: CheckID).
	ID string
	// Status is passing, warning or critical. Anything else counts as critical.
	Status string
	// Service is whether the check belongs to the instance rather than to the node.
	Service bool
	// Index of the last change to the check.
	Index uint64
}

// Selection says what marks the active node among those that are eligible.
type Selection struct {
	// Mode is tag, check or auto, or probe where only the nodes themselves can tell.
	Mode string
	// Tag that the active node carries, for modes tag and auto.
	Tag string
	// CheckID of the check that passes on the active node only, for modes check and auto.
	CheckID string
	// Service is the name of the service; without CheckID, its default check is "service:<name>".
	Service string
}

// Modes of a [Selection].
const (
	selectAuto  = "auto"
	selectTag   = "tag"
	selectCheck = "check"
	selectProbe = "probe" // nothing marks the active node but the probe
)

// Reason says why there is an active node or why there is none. The set is closed:
// it is used in the status document, in logs and as a label of metrics.
type Reason string

// The reasons.
const (
	ReasonOK                Reason = "ok"                 // a node is active
	ReasonStarting          Reason = "starting"           // no answer yet, and no failure either
	ReasonNoService         Reason = "no_service"         // no instance is registered
	ReasonNoActive          Reason = "no_active"          // instances, but none is marked as active
	ReasonUnhealthy         Reason = "unhealthy"          // the marked nodes are critical or in maintenance
	ReasonBadAddress        Reason = "bad_address"        // the marked nodes have no usable address or port
	ReasonACLDenied         Reason = "acl_denied"         // Consul refused the token
	ReasonACLFiltered       Reason = "acl_filtered"       // Consul hid results from the token, so that nothing is proven
	ReasonConsulUnreachable Reason = "consul_unreachable" // no answer from Consul
	ReasonConsulError       Reason = "consul_error"       // an answer that cannot be used
	ReasonStaleExpired      Reason = "stale_expired"      // the last known node is older than max_stale allows
)

// election is the outcome of elect.
type election struct {
	node       *Node    // the active node, nil if there is none
	target     target   // where it is reached
	reason     Reason   // ok, or why there is none
	detail     string   // more on the reason, for people
	contenders []string // keys of all nodes that could have been elected, sorted: more than one means that something is wrong
}

// policy is all that an election depends on besides the nodes.
type policy struct {
	selection  Selection
	addressing addressing
	probing    bool // nodes must have a verdict, and it outranks what marks them
}

// elect returns the active node. It is a pure function: the order of nodes does not matter. The incumbent is the key of
// the node that is active now, preferred among equals, so that nothing moves unless something that decides has changed.
func elect(nodes []Node, p policy, incumbent string) election {
	if len(nodes) == 0 {
		return election{reason: ReasonNoService}
	}
	var (
		best      candidate
		e         = election{reason: ReasonNoActive}
		marks     = p.selection.marks(nodes)
		unhealthy string
	)
	for i := range nodes {
		n := &nodes[i]
		index, marked := marks(n)
		if !marked && !(p.probing && n.verdict.active) {
			continue
		}
		// Of several details the greatest, so that the outcome is the same for every order.
		rank := n.health()
		if rank <= healthCritical {
			unhealthy = max(unhealthy, "node "+n.Name+": critical or in maintenance")
			continue
		}
		t, err := p.addressing.target(n)
		if err != nil {
			e.reason, e.detail = ReasonBadAddress, max(e.detail, "node "+n.Name+": "+err.Error())
			continue
		}
		if p.probing && !n.verdict.active {
			if n.verdict.known && !n.verdict.standby {
				unhealthy = max(unhealthy, "node "+n.Name+": "+n.verdict.detail)
			}
			continue
		}
		e.contenders = append(e.contenders, n.key())
		c := candidate{n, t, marked, rank, index, n.key() == incumbent}
		if best.node == nil || c.before(best) {
			best = c
		}
	}
	switch {
	case best.node != nil:
		e.node, e.target, e.reason, e.detail = best.node, best.target, ReasonOK, ""
		slices.Sort(e.contenders)
	case unhealthy != "" && e.reason == ReasonNoActive:
		e.reason, e.detail = ReasonUnhealthy, unhealthy
	}
	return e
}

// candidate is an eligible, marked node with all that ranks it.
type candidate struct {
	node      *Node
	target    target
	marked    bool
	health    health
	index     uint64
	incumbent bool
}

// before reports whether c is to be preferred to o: a total order, so that the election is deterministic.
func (c candidate) before(o candidate) bool {
	switch {
	case c.marked != o.marked:
		return c.marked
	case c.health != o.health:
		return c.health > o.health
	case c.index != o.index:
		return c.index > o.index
	case c.incumbent != o.incumbent:
		return c.incumbent
	case c.node.Name != o.node.Name:
		return c.node.Name < o.node.Name
	case c.node.ID != o.node.ID:
		return c.node.ID < o.node.ID
	default:
		return c.target.url < o.target.url
	}
}

// marks returns the test for what marks the active node; the test also gives the index of what it decided on.
func (s Selection) marks(nodes []Node) func(*Node) (index uint64, marked bool) {
	mode := s.Mode
	if mode == selectAuto {
		mode = selectCheck
		if slices.ContainsFunc(nodes, s.tagged) {
			mode = selectTag
		}
	}
	if mode == selectProbe {
		return func(*Node) (uint64, bool) { return 0, true }
	}
	if mode == selectTag {
		return func(n *Node) (uint64, bool) { return n.Index, slices.Contains(n.Tags, s.Tag) }
	}
	id := s.CheckID
	if id == "" {
		id = "service:" + s.Service
		if !slices.ContainsFunc(nodes, func(n Node) bool { return n.check(id) != nil }) {
			return (*Node).allServiceChecksPass
		}
	}
	return func(n *Node) (uint64, bool) {
		c := n.check(id)
		if c == nil {
			return 0, false
		}
		return c.Index, c.Status == statusPassing
	}
}

// tagged reports whether n carries a tag that tells active nodes from standbys. One is enough for mode auto to go by tags:
// a cluster in mid-election has only standbys, and every unsealed standby passes its checks.
func (s Selection) tagged(n Node) bool {
	return slices.ContainsFunc(n.Tags, func(tag string) bool {
		switch tag {
		case s.Tag, "active", "standby", "performance-standby":
			return true
		}
		return false
	})
}

// key tells one instance from another.
func (n *Node) key() string { return n.Name + "/" + n.ID }

// saysSame reports whether two registrations of an instance say the same. That one was written again, or that a check
// passed once more, makes an index rise and nothing else.
func (n Node) saysSame(o Node) bool {
	plain := func(n Node) Node {
		n.Index, n.verdict = 0, verdict{}
		n.Checks = slices.Clone(n.Checks)
		for i := range n.Checks {
			n.Checks[i].Index = 0
		}
		return n
	}
	return reflect.DeepEqual(plain(n), plain(o))
}

// check returns the check with the ID, nil if there is none.
func (n *Node) check(id string) *Check {
	for i := range n.Checks {
		if n.Checks[i].ID == id {
			return &n.Checks[i]
		}
	}
	return nil
}

// allServiceChecksPass marks a node by all checks of its instance. One without any proves nothing, so it is not marked.
func (n *Node) allServiceChecksPass() (index uint64, marked bool) {
	for _, c := range n.Checks {
		if !c.Service {
			continue
		}
		if c.Status != statusPassing {
			return 0, false
		}
		index, marked = max(index, c.Index), true
	}
	return index, marked
}

// health is the aggregate of all checks of a node; the greater the better.
type health int

const (
	healthMaintenance health = iota
	healthCritical           // or a status that is not known
	healthWarning
	healthPassing
)

// Statuses of a [Check], as Consul names them.
const (
	statusPassing = "passing"
	statusWarning = "warning"
)

// health aggregates the checks of the node and of the instance as Consul does: the worst one counts.
// See https://developer.hashicorp.com/consul/docs/services/usage/checks.
func (n *Node) health() health {
	h := healthPassing
	for _, c := range n.Checks {
		switch {
		case c.ID == "_node_maintenance" || strings.HasPrefix(c.ID, "_service_maintenance:"):
			return healthMaintenance
		case c.Status == statusPassing:
		case c.Status == statusWarning:
			h = min(h, healthWarning)
		default:
			h = healthCritical
		}
	}
	return h
}
