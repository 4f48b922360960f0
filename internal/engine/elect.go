// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// member is a node with all that decides whether it is the active one.
type member struct {
	node   discovery.Node
	hidden bool   // the last answer does not show it, and may lack it
	marked bool   // discovery marks it as the active one
	index  uint64 // of what marks it
	health health // by all checks
	own    health // by those of the instance: a full disk of the machine is no standby
	target Target // where it is reached,
	bad    string // or why it cannot be
	direct Target // where it is probed; the zero value: nowhere
	gone   bool   // it is no longer registered, and goes on saying that it is active,
	goneOf string // in the Vault cluster with this ID while it was registered

	probed *probedNode // of the cluster, nil if it is not probed; the rest is what was known of it when the state was made
	silent bool        // it leaves a probe unanswered
	findings

	state      NodeState // what all of that amounts to
	stateSince time.Time
	fit        bool   // to serve reads as a standby,
	unfit      string // or why not; empty for the active node, and if nobody wants to know
}

// claims reports whether there is a node that says itself that it is active.
func (m *member) claims() bool { return m != nil && m.verdict.kind == verdictActive }

func byIdentity(members []member) map[discovery.Identity]*member {
	m := make(map[discovery.Identity]*member, len(members))
	for i := range members {
		m[members[i].node.Identity()] = &members[i]
	}
	return m
}

// election is the outcome of elect.
type election struct {
	elected    *member          // the active node, nil if there is none
	reason     discovery.Reason // ok, or why there is none
	loop       string           // URL of a redirector that is registered as the active node
	detail     string           // more on the reason, for people
	candidates []string         // identities of all that could have been elected, sorted: more than one means that something is wrong
	clusters   bool             // the candidates are of different Vault clusters
	pending    bool             // a node that might be elected has yet to answer its first probe
	stands     bool             // the incumbent could have been elected again
}

// elect returns the active node. It is a pure function: the order of members does not matter. The incumbent is the node
// that is active now, preferred among equals, so that nothing moves unless something that decides has changed. It stands
// while its next answer is pending, unless strict.
func elect(members []member, incumbent discovery.Identity, strict bool) election {
	if len(members) == 0 {
		return election{reason: discovery.ReasonNoService}
	}
	e := election{reason: discovery.ReasonNoActive}
	unhealthy := ""
	var electable []*member
	for i := range members {
		m := &members[i]
		stands := m.node.Identity() == incumbent
		switch reason, why := m.eligible(stands, strict); reason {
		case discovery.ReasonOK:
			e.stands = e.stands || stands
			electable = append(electable, m)
		case discovery.ReasonStarting:
			e.pending = true
		case discovery.ReasonBadAddress: // of several details the greatest, so that the outcome is the same for every order
			e.reason, e.detail = reason, max(e.detail, why)
			if m.bad == "" {
				e.loop = max(e.loop, m.target.URL)
			}
		case discovery.ReasonUnhealthy:
			unhealthy = max(unhealthy, why)
		}
	}
	slices.SortFunc(electable, func(a, b *member) int { return a.compare(b, incumbent) })
	for i, m := range electable {
		// Registrations with one address are one Vault, of which the best one counts.
		if slices.ContainsFunc(electable[:i], func(o *member) bool { return o.target.URL == m.target.URL }) {
			continue
		}
		e.candidates = append(e.candidates, m.node.Identity().String())
		a, b := m.outcome.ClusterID, electable[0].outcome.ClusterID
		e.clusters = e.clusters || m.claims() && electable[0].claims() && a != "" && b != "" && a != b
	}
	switch {
	case len(electable) > 0:
		e.elected, e.reason, e.detail, e.loop = electable[0], discovery.ReasonOK, "", ""
		slices.Sort(e.candidates)
	case unhealthy != "" && e.reason == discovery.ReasonNoActive:
		e.reason, e.detail = discovery.ReasonUnhealthy, unhealthy
	}
	return e
}

// elect elects a node. Once the active node is lost, another one is elected only by what it says after the loss.
func (v *View) elect(prev *State, now time.Time) election {
	incumbent, strict := prev.identity(), v.Probe.Mode == ProbeStrict
	e := elect(v.members, incumbent, strict)
	if v.selection.Mode == discovery.ByProbe && slices.ContainsFunc(v.members, func(m member) bool { return m.verdict.kind != verdictRedirector }) {
		e.loop = "" // nothing says that this one would be active
	}
	m := v.member(incumbent)
	switch {
	case !v.started():
	case incumbent == (discovery.Identity{}), e.stands && (prev.By != ByProbe || m.claims()) && (m == nil || !m.gone):
		v.lostNode = discovery.Identity{}
	case v.lose(incumbent, now):
		v.applyProbes(now)
		e = elect(v.members, incumbent, strict)
	}
	return e
}

// lose is called while the active node is lost and no other is active. What others claimed before the loss counts no more; it
// reports whether any did claim to be active.
func (v *View) lose(incumbent discovery.Identity, now time.Time) (any bool) {
	if v.lostNode != incumbent {
		v.lost, v.lostNode = now, incumbent
	}
	for i := range v.members {
		n := v.members[i].probed
		if n == nil || n.key.id == incumbent {
			continue
		}
		if n.schedule.notBefore.Before(v.lost) {
			n.schedule.notBefore = v.lost
		}
		if n.verdict.kind == verdictActive && n.outcome.At.Before(v.lost) {
			n.forget(now)
			any = true
		}
	}
	return any
}

// applyProbes copies to the members what probes found.
func (v *View) applyProbes(now time.Time) {
	if v.Probe.Mode == ProbeOff {
		return
	}
	claimed := slices.ContainsFunc(v.members, func(m member) bool { return m.probed != nil && m.probed.verdict.kind == verdictActive })
	for i := range v.members {
		m := &v.members[i]
		n := m.probed
		if n == nil {
			m.verdict = verdict{kind: verdictNotActive} // it has no usable address
			continue
		}
		if v.Probe.Mode == ProbeAuto {
			n.expire(now)
		}
		if v.started() {
			v.overrule(m, claimed, now)
		}
		m.findings, m.silent = n.findings, n.silent(now)
		if m.claims() && !m.unclear.IsZero() && now.Sub(m.unclear) >= v.MaxStale {
			m.verdict = verdict{kind: verdictNotActive}
		}
		v.Addressing.locate(m)
	}
	v.members = slices.DeleteFunc(v.members, func(m member) bool {
		return m.gone && m.verdict.kind != verdictActive && m.verdict.kind != verdictPending
	})
}

// overrule lets discovery overrule the probes of a dead node, if it has insisted for overruleAfter that the node is active and
// healthy, and no node claims anything else. In an outage of discovery, nothing changes.
func (v *View) overrule(m *member, claimed bool, now time.Time) {
	n := m.probed
	switch {
	case claimed, !m.marked, m.health != healthPassing, v.Probe.Mode != ProbeAuto:
		if n.verdict.kind == verdictOverruled {
			n.verdict.kind = verdictDead
		}
	case v.evidence() == whole && n.verdict.kind == verdictDead && now.Sub(n.verdict.at) >= overruleAfter:
		n.verdict.kind = verdictOverruled // perhaps only this machine cannot reach it
		v.cluster.log.log(&v.logs, zap.WarnLevel, "active node does not answer probes but Consul reports it healthy; using it again",
			zap.String("node", m.node.Name), zap.String("url", m.target.URL), zap.String("probe", n.outcome.Detail),
			zap.Duration("dead_for", now.Sub(n.verdict.at)))
	}
}

// eligible says whether the node can be elected: ok, or why not, and what is wrong if it should be active. A node that stands may be
// pending, unless strict, or it is pending because it says that it is not active.
func (m *member) eligible(stands, strict bool) (reason discovery.Reason, why string) {
	who := "node " + m.node.Name + ": "
	switch {
	case !m.marked && !m.claims(), m.hidden && !m.claims(), m.gone && (!m.claims() || m.outcome.ClusterID != m.goneOf):
		return discovery.ReasonNoActive, ""
	case m.health == healthMaintenance:
		return discovery.ReasonUnhealthy, who + "in maintenance"
	case m.bad != "" && m.health == healthCritical:
		return discovery.ReasonUnhealthy, who + "a check is critical"
	case m.bad != "":
		return discovery.ReasonBadAddress, who + m.bad
	case m.claims():
		return discovery.ReasonOK, ""
	case m.verdict.kind == verdictRedirector: // the address leads back
		return discovery.ReasonBadAddress, who + m.outcome.Detail
	case m.failsProbes():
		return discovery.ReasonUnhealthy, who + m.failure()
	case m.verdict.kind == verdictNotActive:
		return discovery.ReasonNoActive, ""
	case m.verdict.kind == verdictPending && (strict || !stands || m.outcome.Unproven.denies()): // it has yet to answer
		return discovery.ReasonStarting, ""
	case m.health == healthCritical:
		return discovery.ReasonUnhealthy, who + "a check is critical"
	case strict:
		return discovery.ReasonNoActive, ""
	}
	return discovery.ReasonOK, ""
}

// failsProbes reports whether the node is dead, or cannot serve for another reason than that it is a standby.
func (m *member) failsProbes() bool {
	return m.verdict.kind == verdictDead || m.verdict.kind == verdictNotActive && m.outcome.Result != ResultStandby
}

// failure says how the node fails its probes, and why if the registration shows that.
func (m *member) failure() string {
	text := "probe: " + m.outcome.Detail
	if m.verdict.kind == verdictDead && LacksPort(&m.node, m.target.URL) {
		return withoutPort(&m.node) + "; " + text
	}
	return text
}

// denies reports whether the node says of itself that it is not active, be it trusted or not.
func (m *member) denies() bool { return m.outcome.Result.denies() || m.outcome.Unproven.denies() }

// compare orders nodes that can be elected, the best one first: a total order, so that the election is deterministic. First comes
// what the node says and what is said of it, then what may merely be older than something else.
func (m *member) compare(o *member, incumbent discovery.Identity) int {
	first := func(m, o bool) int {
		switch {
		case m == o:
			return 0
		case m:
			return -1
		}
		return 1
	}
	return cmp.Or(
		first(m.claims(), o.claims()),
		first(m.unclear.IsZero(), o.unclear.IsZero()), // it says so now, rather than before it ceased to tell its state
		first(!m.gone, !o.gone),
		first(m.marked, o.marked),
		cmp.Compare(o.own, m.own),
		first(!m.denies(), !o.denies()),
		cmp.Compare(o.index, m.index), // what is marked later is what holds
		cmp.Compare(o.health, m.health),
		first(m.node.Identity() == incumbent, o.node.Identity() == incumbent),
		cmp.Compare(m.node.Name, o.node.Name),
		cmp.Compare(m.node.ID, o.node.ID),
		cmp.Compare(m.target.URL, o.target.URL),
	)
}
