// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how the nodes' own word comes into an election.

package engine

import (
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// elect listens to the nodes and elects one of them. Once the active node is no longer what it was, another one is elected
// only by what it says after that.
func (v *View) elect(prev *State, now time.Time) election {
	v.listen(now)
	incumbent, strict := prev.identity(), v.Probe.Mode == ProbeStrict
	e := elect(v.members, incumbent, strict)
	switch {
	case incumbent == (discovery.Identity{}), e.stands && (prev.By != ByProbe || v.member(incumbent).claims()):
		v.prober.lostBy = discovery.Identity{}
	case v.prober.lose(incumbent, now):
		v.listen(now)
		e = elect(v.members, incumbent, strict)
	}
	return e
}

// listen has the members say what their probes found.
func (v *View) listen(now time.Time) {
	if v.Probe.Mode == ProbeOff {
		return
	}
	claimed := v.prober.anyClaims()
	policy := v.policy()
	for i := range v.members {
		m := &v.members[i]
		s := v.prober.nodes[m.node.Identity()]
		if s == nil {
			m.verdict.kind = verdictNotActive // it has no usable address
			continue
		}
		if v.Probe.Mode == ProbeAuto {
			s.expire(now)
		}
		if v.insists(m, claimed) && s.overrule(now) {
			v.watcher.teller.log(&v.logs, zap.WarnLevel, "node does not answer probes, but discovery insists that it is active: redirecting to it again",
				zap.String("node", m.node.Name), zap.String("url", m.target.URL), zap.String("probe", s.finding.Detail),
				zap.Duration("dead_for", now.Sub(s.verdict.at)))
		}
		m.verdict, m.finding, m.reached, m.latest = s.verdict, s.finding, s.reached, s.latest
		m.leader, m.known = s.leader, s.dialer.known
		policy.locate(m)
	}
}

// insists reports whether discovery says of a node that it is active, and fine, and no node says anything else. While there
// is no news of it, a dead node that was believed is believed on.
func (v *View) insists(m *member, claimed bool) bool {
	s := v.prober.nodes[m.node.Identity()]
	switch {
	case claimed, !m.marked, m.health != healthPassing, v.Probe.Mode != ProbeAuto:
		s.believeProbes()
		return false
	}
	return v.evidence() == whole
}
