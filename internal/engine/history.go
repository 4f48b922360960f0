// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"slices"
	"strings"

	"go.uber.org/zap"
)

// HistoryLength is how many changes of the active node are remembered.
const HistoryLength = 64

// History returns the last changes of the active node, the newest first.
func (v *View) History() []Event {
	v.cluster.pool.mu.Lock()
	defer v.cluster.pool.mu.Unlock()
	return slices.Clone(v.Stats().history)
}

// record remembers, counts and announces a change of the active node, if it is news: a view that continues the history of another
// one may see what is in it already.
func (v *View) record(e Event) {
	s := v.Stats()
	if !v.records() || len(s.history) > 0 && s.history[0].Kind == e.Kind && s.history[0].URL == e.URL {
		return
	}
	s.history = slices.Insert(s.history, 0, e)[:min(len(s.history)+1, HistoryLength)]
	s.changedBy(e)
	v.cluster.pool.announce(v, e)
}

// logTransition logs and records what is new in a state.
func (v *View) logTransition(prev, next *State, by election) {
	was, is := prev.phase.HasTarget(), next.phase.HasTarget()
	e := Event{Kind: ActiveChanged, At: next.Made, Previous: prev.lastNode, PreviousURL: prev.lastURL, Reason: next.reason, By: next.By, Changes: next.Changes}
	switch {
	case is && (!was || prev.Target.URL != next.Target.URL):
		e.Node, e.URL = next.Node.Name, next.Target.URL
		if !was && !prev.phase.Time.IsZero() {
			e.Gap = next.Made.Sub(prev.phase.Time)
		}
		v.record(e)
		v.cluster.log.log(&v.logs, zap.InfoLevel, "active node", zap.String("node", e.Node), zap.String("url", e.URL), zap.String("previous", e.PreviousURL))
	case !is && next.phase.Situation != Starting && (was || prev.reason != next.reason):
		if was {
			e.Kind, e.Active = ActiveLost, next.Made.Sub(prev.Since)
			v.record(e)
		}
		v.cluster.log.log(&v.logs, zap.WarnLevel, "no active node", zap.String("reason", string(next.reason)), zap.String("detail", next.Detail),
			zap.Int("nodes", next.Nodes()), zap.String("previous", e.PreviousURL))
	}
	v.warn(next, by)
}

// warn warns of what is wrong with a state, though a node may be active: once, until something else is wrong.
func (v *View) warn(next *State, by election) {
	queue := v.cluster.log
	node, url := zap.String("node", next.Node.Name), zap.String("url", next.Target.URL)
	several := ""
	if len(by.candidates) > 1 {
		several = strings.Join(by.candidates, " ")
	}
	if v.isNew("several", several) {
		message := "several nodes are marked as active"
		if by.clusters {
			message = "nodes of different Vault clusters are active under one service name"
		}
		queue.log(&v.logs, zap.WarnLevel, message, zap.Strings("nodes", by.candidates), zap.String("elected", by.elected.node.Identity().String()))
	}
	one := ""
	if v.haveOneAddress() {
		one = v.members[0].target.URL
	}
	if v.isNew("one address", one) {
		queue.log(&v.logs, zap.WarnLevel, "all nodes are registered with the same address: api_addr has to be each node's own", zap.String("url", one), zap.Int("nodes", len(v.members)))
	}
	m := v.member(next.identity())
	if m == nil {
		return
	}
	departed := ""
	if m.gone {
		departed = m.node.Identity().String()
	}
	if v.isNew("departed", departed) {
		queue.log(&v.logs, zap.WarnLevel, "active node is no longer registered: redirecting to it for as long as it says that it is active", node, url)
	}
	unverified := m.verdict.kind == verdictUnreachable || m.verdict.kind == verdictAliveOnly
	if unverified && m.outcome.Result != ResultNone && v.isNew("unverified", m.node.Identity().String()) {
		queue.log(&v.logs, zap.WarnLevel, "cannot verify the active node by probing; relying on discovery alone", node, url, zap.String("probe", m.outcome.Detail))
	}
}

// isNew reports whether what is wrong is about something else than the last time; an empty text says that it is not wrong.
func (v *View) isNew(wrong, about string) bool {
	last := v.warned[wrong]
	v.warned[wrong] = about
	return about != "" && about != last
}
