// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the phase: what there is to say of the active node at a moment.

package engine

import "time"

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

// waitUntil returns until when a request that came at a moment waits for another phase, at most hold; ok is false if it
// does not wait. For the first outcome it waits a second whatever hold says, so that neither a start nor a reload turns
// requests away for want of some milliseconds.
func (p Phase) waitUntil(came time.Time, hold time.Duration) (end time.Time, ok bool) {
	switch {
	case p.Situation == Starting:
		return came.Add(max(hold, startGrace)), true
	case hold <= 0:
		return time.Time{}, false
	case p.Situation == Silent:
		return came.Add(hold), true
	case p.Situation == None && !p.Time.IsZero():
		end = came.Add(hold)
		if byLoss := p.Time.Add(hold); byLoss.Before(end) {
			end = byLoss
		}
		return end, true
	}
	return time.Time{}, false
}

// startGrace is how long requests wait for the first outcome, at least.
const startGrace = time.Second
