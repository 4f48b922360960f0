// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what a view begins with that takes the place of another one.

package engine

import (
	"slices"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// inherit has a new view begin with what its predecessor knew: who is active or how long nobody is, what the nodes said,
// and which nodes there are.
func (v *View) inherit(first *State, predecessor *View) {
	s := predecessor.current.Load()
	now := time.Now()
	phase := s.PhaseAt(now)
	var known []discovery.Node
	for _, m := range s.members {
		known = append(known, m.node)
	}
	policy := v.policy()
	v.undoubted, v.members = known, policy.members(known)
	for i := range v.members { // the same nodes in the same order
		if m, old := &v.members[i], &s.members[i]; v.Probe.Mode != ProbeOff {
			m.verdict, m.finding, m.latest = old.verdict, old.finding, old.latest
			if m.probeURL == old.probeURL {
				m.reached, m.known = old.reached, old.known
			}
			if v.Probe.TLSKey == predecessor.Probe.TLSKey { // else it may have been believed for want of verification
				m.leader = old.leader
			}
			policy.locate(m)
		}
		v.members[i].state, v.members[i].stateSince = s.members[i].state, s.members[i].stateSince
	}
	first.phase, first.reason, first.Detail = phase, s.ReasonAt(now), s.Detail
	first.Since, first.StaleSince, first.Polled, first.Made, first.Changes = s.Since, s.StaleSince, s.Polled, now, s.Changes
	first.members, first.last = slices.Clone(v.members), s.last
	if !phase.HasTarget() {
		return
	}
	for i := range v.members {
		m := &v.members[i]
		if m.node.Identity() == s.Node.Identity() && m.bad == "" {
			first.Node, first.Target, first.By = m.node, m.target, s.By
			first.last = reached{m.node.Name, m.target.URL}
			return
		}
	}
	// The new config has no address for the node that is active.
	first.phase, first.reason, first.Detail, first.Since = Phase{None, now}, discovery.ReasonBadAddress, "", now
	v.dropped = s
}

// begin begins with what was inherited, until there is a report.
func (v *View) begin() {
	v.began = time.Now()
	if len(v.members) == 0 {
		return
	}
	first := v.current.Load()
	if v.dropped != nil {
		v.tell(v.dropped, first, election{})
		v.dropped = nil
	}
	v.prober.sync(v.members, nil, v.began)
	for i := range v.members {
		if s := v.prober.nodes[v.members[i].node.Identity()]; s != nil {
			s.inherit(&v.members[i], v.Probe.Mode == ProbeStrict)
			s.silence.unconfirmed = s.reached && s.verdict.kind != verdictOverruled && first.phase.Situation == Silent && s.id == first.Node.Identity()
		}
	}
	v.plan()
}

// inherit has the node begin with what was known of it, until it has answered.
func (s *probedNode) inherit(m *member, strict bool) {
	s.leader = m.leader
	switch kind := m.verdict.kind; {
	case kind == verdictActive, kind == verdictNotActive, kind == verdictAliveOnly && !strict:
		s.verdict = m.verdict
	case !m.reached:
		return
	case kind == verdictDead, kind == verdictOverruled:
		s.verdict = m.verdict
	}
	s.reached, s.finding = m.reached, m.finding
	if s.reached && s.finding.Result != ResultTLS && s.verdict.kind == verdictPending {
		s.verdict.at = time.Time{}
	}
}
