// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// evidence says what the last report is worth.
type evidence int

const (
	whole   evidence = iota // it is complete
	partial                 // the nodes that it shows are there, others may be, too
	old                     // it is the last one before a failure
	nothing                 // there is no answer yet, only what the cluster knew before
)

func (v *View) evidence() evidence {
	r := &v.watcher.report
	switch {
	case r.failure != "":
		return old
	case r.polled.IsZero():
		return nothing
	case r.incomplete == discovery.ReasonACLFiltered:
		return partial
	}
	return whole
}

// derive makes the next state: apply the probe results, elect, derive the phase, publish, record the transition. It reports
// whether the state has changed.
func (v *View) derive(prev *State, now time.Time) (changed bool) {
	v.applyProbes(now)
	e := v.elect(prev, now)
	next, is := v.next(prev, e, now), v.current.Load()
	if is != nil && next.same(is) && (is == prev || !v.started()) {
		return false
	}
	v.stamp(next, prev, now)
	v.current.Store(next)
	if v.started() {
		v.logTransition(prev, next, e)
	}
	return true
}

// next returns the next state. A node that says itself that it is active is active. Otherwise it depends on the evidence whether
// the elected node is active, or only the last one known.
func (v *View) next(prev *State, e election, now time.Time) *State {
	next := &State{
		reason: e.reason, Detail: e.detail, Candidates: len(e.candidates), Changes: prev.Changes, LoopSeen: prev.LoopSeen,
		Polled: v.watcher.report.polled, Made: now, lastNode: prev.lastNode, lastURL: prev.lastURL,
	}
	if next.Polled.IsZero() {
		next.Polled = prev.Polled // of another watcher
	}
	worth, node := v.evidence(), e.elected
	if node == nil && worth != whole || worth == nothing && !node.claims() {
		node = v.keep(prev, worth)
	}
	switch {
	case worth == nothing && !node.claims() && (node != nil || !prev.phase.HasTarget()):
		next.reason, next.Detail = prev.reason, prev.Detail
	case worth == old, worth == partial && e.elected == nil:
		next.reason, next.Detail = cmp.Or(v.watcher.report.failure, v.watcher.report.incomplete), cmp.Or(v.watcher.report.detail, e.detail)
	}
	switch {
	case node == nil:
		next.phase = v.loss(prev, e, now)
		if next.phase.Situation == Starting {
			next.reason, next.Detail = discovery.ReasonStarting, ""
		}
		if worth != whole && prev.reason == discovery.ReasonStaleExpired { // nothing has been proven since
			next.reason, next.StaleSince = prev.reason, prev.StaleSince
		}
	case node.claims(), worth == whole, worth == partial && !node.hidden, worth == nothing && prev.phase.Situation != Stale:
		next.phase = v.presence(prev, node, now)
	case worth == nothing:
		next.phase, next.StaleSince = prev.phase, prev.StaleSince
	default:
		next.StaleSince = cmp.Or(prev.StaleSince, v.watcher.report.failing, now)
		next.phase = Phase{Stale, next.StaleSince.Add(v.MaxStale)}
	}
	if next.phase = next.phase.at(now); node != nil && !next.phase.HasTarget() {
		node, next.reason = nil, discovery.ReasonStaleExpired
	}
	if node == nil && next.phase.Situation == None {
		next.Loop = e.loop
	}
	v.fill(next, prev, node, now)
	if v.Standbys {
		next.standbys = v.findStandbys(node)
	}
	next.members = slices.Clone(v.members)
	next.Detail = v.detail(next, node, worth)
	return next
}

// detail returns more on the reason of a state, or on what is odd about its active node, for people.
func (v *View) detail(next *State, node *member, worth evidence) string {
	switch {
	case node == nil && next.reason == discovery.ReasonNoActive && worth == whole && NothingMarks(v.selection, v.watcher.report.nodes):
		return "nothing marks an active node: the instances have no checks"
	case next.Detail != "" || node == nil:
		return next.Detail
	case LacksPort(&node.node, node.target.URL):
		return "node " + node.node.Name + ": " + withoutPort(&node.node)
	case node.gone:
		return "node " + node.node.Name + " is no longer registered, and says that it is active: its configuration may lack service_registration \"consul\" {}"
	case v.haveOneAddress():
		return "all nodes are registered with the same address, " + node.target.URL + ": api_addr has to be each node's own"
	}
	return ""
}

// withoutPort says that api_addr has no port.
func withoutPort(n *discovery.Node) string { return "api_addr has no port: registered as " + n.ID }

// haveOneAddress reports whether several nodes are registered, all with the same address.
func (v *View) haveOneAddress() bool {
	return len(v.members) > 1 && !slices.ContainsFunc(v.members, func(m member) bool {
		return m.gone || m.bad != "" || m.target.URL != v.members[0].target.URL || m.node.Name == v.members[0].node.Name && m.node.ID != v.members[0].node.ID
	})
}

// fill fills in the active node, and since when it is active.
func (v *View) fill(next, prev *State, node *member, now time.Time) {
	if next.phase.Situation == Starting {
		return
	}
	if node == nil {
		next.Since = cmp.Or(next.phase.Time, prev.Since, now)
		return
	}
	next.Node, next.Target, next.By = node.node, node.target, BySource
	if node.claims() {
		next.By = ByProbe
	}
	if next.Since = prev.Since; !prev.PhaseAt(now).HasTarget() || prev.identity() != node.node.Identity() && prev.Target.URL != node.target.URL {
		next.Since = now
	}
	if next.Target.URL != prev.lastURL {
		next.LoopSeen = new(sync.Once)
		next.Changes++
	}
	next.lastNode, next.lastURL = next.Node.Name, next.Target.URL
}

// presence is the phase in which a node is active.
func (v *View) presence(prev *State, node *member, now time.Time) Phase {
	if !node.silent {
		return Phase{Situation: Active}
	}
	if prev.phase.Situation == Silent && prev.identity() == node.node.Identity() {
		return prev.phase
	}
	return Phase{Silent, now}
}

// loss is the phase in which no node is active.
func (v *View) loss(prev *State, e election, now time.Time) Phase {
	was := prev.PhaseAt(now)
	switch {
	case was.Situation == Starting && (e.pending || v.evidence() == nothing):
		return was
	case was.HasTarget():
		return Phase{None, now}
	}
	return Phase{None, was.Time} // zero if there never was one
}

// keep returns the node that was active until now if the election gave none, but nothing proves that it is gone: the report
// may lack it, or is old. A node that is critical or dead, or that says that it is not active, is not kept.
func (v *View) keep(prev *State, worth evidence) *member {
	if v.Probe.Mode == ProbeStrict || !prev.phase.HasTarget() {
		return nil
	}
	m := v.member(prev.Node.Identity())
	if m == nil || m.health <= healthCritical || m.bad != "" || m.verdict.kind == verdictDead || m.verdict.kind == verdictNotActive || worth == partial && !m.hidden {
		return nil
	}
	return m
}
