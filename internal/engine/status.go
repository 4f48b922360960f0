// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"strconv"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// NodeState is the state of a node: a closed set.
type NodeState string

// The states of nodes.
const (
	NodeActive        NodeState = "active"
	NodeStandby       NodeState = "standby"
	NodeSealed        NodeState = "sealed"
	NodeUninitialized NodeState = "uninitialized"
	NodeUnreachable   NodeState = "unreachable"
	NodeCritical      NodeState = "critical"
	NodeMaintenance   NodeState = "maintenance"
	NodeBadAddress    NodeState = "bad_address"
	NodeUnknown       NodeState = "unknown"
)

// NodeStates is the whole set.
var NodeStates = []NodeState{
	NodeActive, NodeStandby, NodeSealed, NodeUninitialized, NodeUnreachable, NodeCritical, NodeMaintenance, NodeBadAddress, NodeUnknown,
}

// NodeStatus is what is known of one node.
type NodeStatus struct {
	Node    discovery.Node
	URL     string // where it is reached; empty: nowhere
	State   NodeState
	Since   time.Time    // since when it is in that state
	Elected bool         // requests are redirected to it
	Marked  bool         // discovery marks it as the active one
	Why     string       // why it is not elected; empty if it is
	Failing []string     // IDs of the checks that are not passing
	Probe   ProbeOutcome // the last one that counted; its Result is empty if there was none

	Reads      bool   // it is one of the State's Standbys
	WhyNoReads string // why it is not; empty for the active node, and if the view's config has no Standbys
}

// NodeStatuses returns the status of each node, in the order of discovery.
func (s *State) NodeStatuses() []NodeStatus {
	list := make([]NodeStatus, len(s.members))
	active := s.identity()
	for i := range s.members {
		m := &s.members[i]
		elected := m.node.Identity() == active
		list[i] = NodeStatus{
			Node: m.node, URL: m.target.URL, State: m.state, Since: m.stateSince, Elected: elected, Marked: m.marked,
			Failing: failingChecks(&m.node), Probe: m.outcome, Reads: m.fit && s.Active(), WhyNoReads: m.unfit,
		}
		if m.latest != nil { // a probe that finds the same makes no new state
			list[i].Probe = *m.latest.Load()
		}
		if !elected {
			list[i].Why = m.why()
		}
	}
	return list
}

// stateOf returns the state of a member. For a node that is not probed it is what discovery says.
func (m *member) stateOf(elected bool) NodeState {
	switch {
	case m.health == healthMaintenance:
		return NodeMaintenance
	case m.bad != "":
		return NodeBadAddress
	case m.verdict.kind == verdictDead:
		return NodeUnreachable
	case m.verdict.kind == verdictActive:
		return NodeActive
	case m.verdict.kind == verdictNotActive:
		if r := m.outcome.Result; r == ResultStandby || r == ResultSealed || r == ResultUninitialized {
			return NodeState(r)
		}
		return NodeUnknown
	case elected:
		return NodeActive
	case m.health == healthCritical:
		return NodeCritical
	case !m.marked:
		return NodeStandby
	}
	return NodeUnknown
}

// why says why a member is not elected.
func (m *member) why() string {
	switch {
	case m.health == healthMaintenance:
		return "in maintenance in Consul"
	case m.bad != "":
		return m.bad
	case m.failsProbes():
		return m.failure()
	case m.verdict.kind == verdictNotActive:
		return m.outcome.Detail
	case m.health == healthCritical && !m.claims():
		return m.critical()
	case m.verdict.kind == verdictPending:
		return "has not answered its first probe yet"
	case m.gone:
		return "no longer registered"
	case m.verdict.kind == verdictRedirector:
		return "probe: " + m.outcome.Detail
	case !m.marked && !m.claims():
		return "not marked as active"
	case m.hidden:
		return "not in the last answer of discovery"
	}
	return "another node has the better claim"
}

// critical says which checks of a critical node are not passing.
func (m *member) critical() string {
	ids := failingChecks(&m.node)
	for i, id := range ids {
		ids[i] = strconv.Quote(id)
	}
	return "critical: " + strings.Join(ids, ", ")
}

// stamp notes the states of the members and since when they hold, and announces those that have changed.
func (v *View) stamp(next, prev *State, now time.Time) {
	before, active := byIdentity(prev.members), next.identity()
	for i := range next.members {
		m := &next.members[i]
		m.state, m.stateSince = m.stateOf(m.node.Identity() == active), now
		old := before[m.node.Identity()]
		switch {
		case old == nil || old.state == "":
		case old.state == m.state:
			m.stateSince = old.stateSince
		case v.records():
			v.cluster.pool.announce(v, Event{Kind: NodeChanged, At: now, Node: m.node.Name, URL: m.target.URL, State: m.state, PreviousState: old.state})
		}
	}
}

// DiscoveryStatus is what is known of a discovery, as the status document has it.
type DiscoveryStatus struct {
	Source       string     `json:"source"` // its name, such as consul
	Endpoint     string     `json:"endpoint"`
	Service      string     `json:"service,omitempty"`
	ActiveBy     string     `json:"active_by"` // auto, tag, check or probe: what marks the active node
	Up           bool       `json:"up"`        // the last query was answered, and the answer proves something
	LastSuccess  *time.Time `json:"last_success"`
	FailingSince *time.Time `json:"failing_since"`
	Failures     int64      `json:"failures"` // in a row
	Index        uint64     `json:"index"`

	Queries *Counter[discovery.Reason] `json:"-"`
}

// Discovery returns what is known of the view's discovery.
func (v *View) Discovery() DiscoveryStatus {
	w := v.watcher
	r := w.latest()
	return DiscoveryStatus{
		Source: discovery.SourceName(w.discoverer), Endpoint: w.discoverer.Endpoint(), Service: v.selection.Service, ActiveBy: v.selection.Mode,
		Up: !r.polled.IsZero() && r.failure == "" && r.incomplete == "", LastSuccess: TimeOrNil(r.polled), FailingSince: TimeOrNil(r.failing),
		Failures: r.failures, Index: r.index, Queries: w.queries,
	}
}

// TimeOrNil returns a time in UTC, nil for the zero time.
func TimeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// failingChecks returns the IDs of the checks that are not passing.
func failingChecks(n *discovery.Node) []string {
	var ids []string
	for _, c := range n.Checks {
		if c.Status != discovery.StatusPassing {
			ids = append(ids, c.ID)
		}
	}
	return ids
}
