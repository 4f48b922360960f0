// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Transition is one change of the active node.
type Transition struct {
	At       time.Time
	Active   bool   // a node became active; false: the active node was lost
	Node     string // name of the node that became active
	URL      string // where it is reached
	Previous string // name of the node that was active before
	PrevURL  string // where that was reached
	Reason   discovery.Reason
	Gap      time.Duration // how long none was active before
	By       string        // ByProbe or BySource
}

// HistoryLength is how many transitions are remembered.
const HistoryLength = 64

// history holds the last transitions of a cluster.
type history struct {
	mu   sync.Mutex
	ring []Transition
}

// add adds a transition and reports whether it is news: a view that continues the history may see what is in it already.
func (h *history) add(t Transition) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.ring); n > 0 && h.ring[n-1].Active == t.Active && h.ring[n-1].URL == t.URL {
		return false
	}
	if len(h.ring) == HistoryLength {
		h.ring = slices.Delete(h.ring, 0, 1)
	}
	h.ring = append(h.ring, t)
	return true
}

// list returns the transitions, the oldest first.
func (h *history) list() []Transition {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ring)
}

// History returns the last transitions, the newest first.
func (v *View) History() []Transition {
	list := v.Stats().history.list()
	slices.Reverse(list)
	return list
}

// record remembers, counts and announces a change of the active node.
func (v *View) record(t Transition, prev, next *State) {
	if !v.records() || !v.Stats().history.add(t) {
		return
	}
	v.Stats().changedBy(t)
	e := Event{
		Kind: ActiveChanged, At: t.At, Node: t.Node, URL: t.URL, Previous: t.Previous, PreviousURL: t.PrevURL,
		Reason: t.Reason, By: t.By, Gap: t.Gap, Changes: next.Changes,
	}
	if !t.Active {
		e.Kind, e.Active = ActiveLost, t.At.Sub(prev.Since)
	}
	v.cluster.pool.announce(v, e)
}

// logTransition logs and records what is new in a state.
func (v *View) logTransition(prev, next *State, e election) {
	was, is := prev.phase.HasTarget(), next.phase.HasTarget()
	t := Transition{At: next.Made, Active: is, Previous: prev.last.name, PrevURL: prev.last.url, Reason: next.reason, By: next.By}
	switch {
	case is && (!was || prev.Target.URL != next.Target.URL):
		t.Node, t.URL = next.Node.Name, next.Target.URL
		if !was && !prev.phase.Time.IsZero() {
			t.Gap = next.Made.Sub(prev.phase.Time)
		}
		v.record(t, prev, next)
		v.cluster.log.log(&v.logs, zap.InfoLevel, "active node", zap.String("node", t.Node), zap.String("url", t.URL), zap.String("previous", t.PrevURL))
	case !is && next.phase.Situation != Starting && (was || prev.reason != next.reason):
		if was {
			v.record(t, prev, next)
		}
		v.cluster.log.log(&v.logs, zap.WarnLevel, "no active node", zap.String("reason", string(next.reason)), zap.String("detail", next.Detail),
			zap.Int("nodes", next.Nodes()), zap.String("previous", t.PrevURL))
	}
	if len(e.candidates) > 1 && !slices.Equal(e.candidates, v.candidates) {
		message := "several nodes are marked as active"
		if e.clusters {
			message = "nodes of different Vault clusters are active under one service name"
		}
		v.cluster.log.log(&v.logs, zap.WarnLevel, message, zap.Strings("nodes", e.candidates), zap.String("elected", e.elected.node.Identity().String()))
	}
	v.candidates = e.candidates
	v.warnUnproven(next)
	v.warnRegistration(next)
}

// warnRegistration warns once of an active node that is not registered any more, and of nodes that all have the same address.
func (v *View) warnRegistration(next *State) {
	node := next.identity()
	m := v.member(node)
	switch {
	case m == nil || m.gone == nil:
		if m != nil {
			v.departed = discovery.Identity{}
		}
	case v.departed != node:
		v.departed = node
		v.cluster.log.log(&v.logs, zap.WarnLevel, "active node is no longer registered: redirecting to it for as long as it says that it is active",
			zap.String("node", next.Node.Name), zap.String("url", next.Target.URL))
	}
	if one := v.haveOneAddress(); one != v.oneAddress {
		if v.oneAddress = one; one {
			v.cluster.log.log(&v.logs, zap.WarnLevel, "all nodes are registered with the same address: api_addr has to be each node's own",
				zap.String("url", v.members[0].target.URL), zap.Int("nodes", len(v.members)))
		}
	}
}

// warnUnproven warns once of an active node that probes cannot verify, because it cannot be reached from here or its certificate
// is not trusted.
func (v *View) warnUnproven(next *State) {
	m := v.member(next.Node.Identity())
	if m == nil || m.outcome.Result == ResultNone || m.node.Identity() == v.unproven {
		return
	}
	if m.verdict.kind == verdictUnreachable || m.verdict.kind == verdictAliveOnly {
		v.unproven = m.node.Identity()
		v.cluster.log.log(&v.logs, zap.WarnLevel, "cannot verify the active node by probing; relying on discovery alone",
			zap.String("node", next.Node.Name), zap.String("url", next.Target.URL), zap.String("probe", m.outcome.Detail))
	}
}
