// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// Queue is where the requests of one handler wait. The zero value lets none wait.
type Queue struct {
	Hold time.Duration // how long a request waits at most, and how long after the loss of a node any does
	Most int64         // how many wait at once

	Uncounted bool // what becomes of those who wait is not counted: they are no clients of Vault

	waiting atomic.Int64
}

// HoldUntil returns until when a request that came at a moment waits for another state, the zero time if it does not.
func (q *Queue) HoldUntil(s *State, came, now time.Time) time.Time {
	return s.PhaseAt(now).holdUntil(came, now, q.Hold)
}

// Waiting returns how many requests wait now.
func (q *Queue) Waiting() int64 { return q.waiting.Load() }

// Await returns the state for a request. While the active node has been lost for less than hold, leaves a probe unanswered,
// or nothing is known yet, it waits for a state in which that is over, if not too many do already. Each request has one
// deadline; it leaves early when its context ends or the process is about to. If another view comes to serve the site of this
// one meanwhile, the request is given the node that either is the first to know.
//
// It starts a view that does not run yet: a request shows that the config is run, and Caddy may serve it before it comes
// to starting the view, or never come to that if something else fails to start.
func (v *View) Await(ctx context.Context, q *Queue) *State {
	if s := v.current.Load(); s != nil && s.phase.Situation == Active {
		return s
	}
	return v.AwaitSince(ctx, q, time.Now())
}

// AwaitSince is Await with a deadline that counts from when a request came, so that one that waits several times, since it did
// not reach the node that it was given, has one deadline.
func (v *View) AwaitSince(ctx context.Context, q *Queue, came time.Time) *State {
	began, s := time.Now(), v.State()
	if q.HoldUntil(s, came, began).IsZero() {
		return s
	}
	v = v.enter(q)
	if v == nil {
		return s
	}
	defer v.leave(q)
	v.Start()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for lost := false; ; {
		changed, site := v.Changed(), v.servedBy()
		now, own, its := time.Now(), v.State(), site.State()
		end, last := q.HoldUntil(own, came, now), q.HoldUntil(its, came, now)
		switch {
		case last.IsZero() && its.Active():
			site.held(q, Released, now.Sub(began))
			return its
		case end.IsZero() && own.Active():
			v.held(q, Released, now.Sub(began))
			return own
		case end.IsZero() && last.IsZero():
			if lost { // a request that waits for the first outcome only does not wait in vain
				site.held(q, Expired, now.Sub(began))
			}
			return its
		case last.After(end):
			end = last
		}
		lost = lost || own.phase.Situation != Starting
		timer.Reset(end.Sub(now))
		if why, over := v.wait(ctx, changed, timer.C); over {
			site = v.servedBy()
			site.held(q, why, time.Since(began))
			return site.State()
		}
	}
}

// Pause has a request that could not be brought to its node wait for another state than s, or for d to pass: then it is to be
// tried again. It takes a place in the queue, as one that waits for a node does. It reports false where the request is not to
// go on: too many wait already, its context has ended, or the process is about to.
func (v *View) Pause(ctx context.Context, q *Queue, s *State, d time.Duration) bool {
	if v = v.enter(q); v == nil {
		return false
	}
	defer v.leave(q)
	timer := time.NewTimer(d)
	defer timer.Stop()
	for end := time.Now().Add(d); ; {
		changed := v.Changed()
		if v.State() != s && v.servedBy().State() != s || !time.Now().Before(end) {
			return true
		}
		if _, over := v.wait(ctx, changed, timer.C); over {
			return false
		}
	}
}

// enter takes a place in a queue for a request that waits on the view, which lives until it leaves. A request that came to a view
// after its end waits on the one that serves its site now. It returns the view that the request waits on, nil if it cannot.
func (v *View) enter(q *Queue) *View {
	if q.waiting.Add(1) > q.Most {
		q.waiting.Add(-1)
		v.held(q, Overflow, 0)
		return nil
	}
	on := v
	for on != nil && !on.need(0, q.weight()) {
		on, _ = v.cluster.pool.serving(on)
	}
	if on == nil {
		q.waiting.Add(-1)
	}
	return on
}

// leave is called for each request that has entered.
func (v *View) leave(q *Queue) {
	q.waiting.Add(-1)
	v.need(0, -q.weight())
}

// weight is what a request counts for among those that wait.
func (q *Queue) weight() int {
	if q.Uncounted {
		return 0
	}
	return 1
}

// wait waits for the cluster to change, or for a timer. It reports whether the request is not to wait any more, and why.
func (v *View) wait(ctx context.Context, changed <-chan struct{}, timer <-chan time.Time) (why HoldEnd, over bool) {
	select {
	case <-changed:
	case <-timer:
	case <-v.cluster.pool.ending:
		return Shutdown, true
	case <-ctx.Done():
		return Abandoned, true
	}
	return 0, false
}

// servedBy returns the view that serves the site of this one, itself if none does.
func (v *View) servedBy() *View {
	if site := v.site.Load(); site != nil {
		return site
	}
	return v
}

// held counts the end of a wait.
func (v *View) held(q *Queue, e HoldEnd, took time.Duration) {
	if !q.Uncounted {
		v.Stats().held(e, took)
	}
}
