// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"slices"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// State is what is known about the active node: an immutable snapshot, behind one atomic pointer.
type State struct {
	Node       discovery.Node // the active node, or the last known one while stale; its name is empty if there is none
	Target     Target         // where it is reached
	By         string         // what says that it is active: ByProbe or BySource
	Detail     string         // more on the reason, for people; never holds a secret
	Candidates int            // nodes that could have been elected
	Changes    uint64         // how often another node became active since the view began
	Since      time.Time      // since when this node is active, or none is; zero: nothing is known yet
	Polled     time.Time      // when discovery last answered; zero: never
	StaleSince time.Time      // since when the node is only the last one known, also once that has expired; zero: it is not
	Made       time.Time      // when this state began
	Loop       string         // URL of a redirector that is registered as the active node: there is none, and no request waits for one
	LoopSeen   *sync.Once     // a redirect loop to this target is logged once

	phase    Phase
	reason   discovery.Reason
	lastNode string // name of the node that is active, or was last,
	lastURL  string // and where it is reached
	members  []member

	standbys []Standby // fit to serve reads, sorted by identity
}

// What says that a node is active.
const (
	ByProbe  = "probe"     // the node itself
	BySource = "discovery" // the discovery alone
)

// Phase returns the phase now. It reads the clock only while a node is stale.
func (s *State) Phase() Phase {
	if s.phase.Situation != Stale {
		return s.phase
	}
	return s.phase.at(time.Now())
}

// PhaseAt returns the phase at a moment that is not before the state began.
func (s *State) PhaseAt(now time.Time) Phase { return s.phase.at(now) }

// Active reports whether requests are to be redirected to the target now.
func (s *State) Active() bool { return s.Phase().HasTarget() }

// ReasonAt returns the reason at a moment: the use of a stale node ends without a new state.
func (s *State) ReasonAt(now time.Time) discovery.Reason {
	if s.phase.Situation == Stale && s.PhaseAt(now).Situation == None {
		return discovery.ReasonStaleExpired
	}
	return s.reason
}

// Nodes returns how many nodes are registered.
func (s *State) Nodes() (n int) {
	for i := range s.members {
		if !s.members[i].gone {
			n++
		}
	}
	return n
}

// Fate is what has become of a node that was active, for requests that wait for its answer.
type Fate int

// The fates.
const (
	Serving  Fate = iota // it is active, or no other node is
	Replaced             // another node is active
	Dead                 // the same, and this one does not answer its probes, or discovery calls it critical
)

// FateOf returns what has become of the node that was active in an earlier state.
func (s *State) FateOf(then *State) Fate {
	if !s.Active() || s.Target.URL == then.Target.URL {
		return Serving
	}
	id := then.Node.Identity()
	i := slices.IndexFunc(s.members, func(m member) bool { return m.node.Identity() == id })
	if i < 0 {
		return Replaced
	}
	switch m := &s.members[i]; m.verdict.kind {
	case verdictDead:
		return Dead
	case verdictNone, verdictUnreachable, verdictOverruled: // only its checks tell
		if m.health == healthCritical {
			return Dead
		}
	}
	return Replaced
}

// identity returns that of the active node, the zero value if there is none.
func (s *State) identity() discovery.Identity {
	if !s.Active() {
		return discovery.Identity{}
	}
	return s.Node.Identity()
}

// same reports whether two states look the same to all readers.
func (s *State) same(o *State) bool {
	return s.phase == o.phase && s.reason == o.reason && s.Detail == o.Detail && s.Loop == o.Loop && s.Target == o.Target && s.By == o.By &&
		s.Node.Identity() == o.Node.Identity() && s.Candidates == o.Candidates && s.Polled.Equal(o.Polled) &&
		s.StaleSince.Equal(o.StaleSince) &&
		slices.EqualFunc(s.members, o.members, func(a, b member) bool {
			return a.node.Identity() == b.node.Identity() && a.verdict.kind == b.verdict.kind && a.hidden == b.hidden && a.marked == b.marked &&
				a.health == b.health && a.target == b.target && a.bad == b.bad && a.fit == b.fit && a.unfit == b.unfit && a.outcome.same(b.outcome)
		})
}

// Situation is the kind of a phase. The set is closed.
type Situation int

// The situations.
const (
	Starting Situation = iota // nothing is known yet, not even a failure
	Active                    // a node is active
	Silent                    // a node is active, but leaves a probe unanswered since
	Stale                     // discovery proves nothing any more: the last known node is used until
	None                      // no node is active since; the zero time: none ever was
)

// Phase is a situation with the one time that belongs to it: since when a node is silent or none is active, or until when
// a stale node is used.
type Phase struct {
	Situation Situation
	Time      time.Time
}

// HasTarget reports whether there is a node to redirect to.
func (p Phase) HasTarget() bool {
	return p.Situation == Active || p.Situation == Silent || p.Situation == Stale
}

// at returns the phase that one is at a later moment. Only the use of a stale node ends by itself.
func (p Phase) at(now time.Time) Phase {
	if p.Situation == Stale && !now.Before(p.Time) {
		return Phase{None, p.Time}
	}
	return p
}

// holdUntil returns until when a request that came at a moment waits for another phase, at most hold; the zero time if it does
// not. For the first outcome it waits at least startGrace whatever hold says, so that a start or a reload rejects no requests for
// lack of some milliseconds.
func (p Phase) holdUntil(came, now time.Time, hold time.Duration) (end time.Time) {
	switch {
	case p.Situation == Starting:
		end = came.Add(max(hold, startGrace))
	case p.Situation == Silent:
		end = came.Add(hold)
	case p.Situation == None && !p.Time.IsZero():
		end = came.Add(hold)
		if byLoss := p.Time.Add(hold); byLoss.Before(end) {
			end = byLoss
		}
	}
	if !end.After(now) {
		return time.Time{}
	}
	return end
}

// startGrace is how long requests wait for the first outcome, at least.
const startGrace = time.Second
