// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how a request waits for the active node.

package engine

import (
	"context"
	"sync"
	"time"
)

// Queue is where the requests of one handler wait. The zero value lets none wait.
type Queue struct {
	Hold time.Duration // how long a request waits at most, and how long after the loss of a node any does
	Most int64         // how many wait at once

	Uncounted bool // what becomes of those who wait is not counted: they are no clients of Vault

	mu      sync.Mutex
	waiting int64
	unseen  int64            // of them
	clients map[string]int64 // the same by client
}

// shares is into how many parts the places of a queue are shared: no client has more than one, and those whose leaving cannot
// be noticed have one in all.
const shares = 10

// Waiter is a request that may have to wait.
type Waiter struct {
	Client string    // address of its client, by which places are shared
	Unseen bool      // nobody would notice that the client leaves
	Came   time.Time // hold counts from here, however often it waits; zero: from now
	Begin  func()    // called when it has a place, before it waits; may be nil
}

// Waiting returns how many requests wait now.
func (q *Queue) Waiting() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// enter takes a place, and reports whether there is one for this request.
func (q *Queue) enter(w *Waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	share := max(1, q.Most/shares)
	if q.waiting >= q.Most || q.clients[w.Client] >= share || w.Unseen && q.unseen >= share {
		return false
	}
	if q.clients == nil {
		q.clients = map[string]int64{}
	}
	q.waiting++
	q.clients[w.Client]++
	if w.Unseen {
		q.unseen++
	}
	return true
}

// leave gives a place back.
func (q *Queue) leave(w *Waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting--
	if q.clients[w.Client]--; q.clients[w.Client] == 0 {
		delete(q.clients, w.Client)
	}
	if w.Unseen {
		q.unseen--
	}
}

// Await returns the state for a request. While the active node has been lost for less than hold, leaves a probe unanswered,
// or nothing is known yet, it waits for a state in which that is over, if there is a place for it. Each request has one
// deadline; it leaves early when its context ends or the process is about to. If another config takes the place of the
// view's meanwhile, the request is given the node that either is the first to know.
//
// It starts a view that does not run yet: a request shows that the config is run, and Caddy may serve it before it comes
// to starting the view, or never come to that if something else fails to start.
func (v *View) Await(ctx context.Context, q *Queue, w Waiter) *State {
	if s := v.current.Load(); s.phase.Situation == Active {
		return s
	}
	return v.await(ctx, q, v.State(), w)
}

func (v *View) await(ctx context.Context, q *Queue, s *State, w Waiter) *State {
	began := time.Now()
	came := firstOf(w.Came, began)
	if s.waitsUntil(came, began, q.Hold).IsZero() {
		return s
	}
	if !q.enter(&w) {
		v.held(q, Overflow, 0)
		return s
	}
	defer q.leave(&w)
	on := v.pool.enter(v)
	if on == nil {
		return s
	}
	defer on.leave()
	on.first.Start()
	if w.Begin != nil {
		w.Begin()
	}

	timer := time.NewTimer(0)
	defer timer.Stop()
	for lost := false; ; {
		now, next := time.Now(), on.heir.State()
		s = on.first.State()
		end, last := s.waitsUntil(came, now, q.Hold), next.waitsUntil(came, now, q.Hold)
		switch {
		case last.IsZero() && next.Active():
			on.heir.held(q, Released, now.Sub(began))
			return next
		case end.IsZero() && s.Active():
			on.first.held(q, Released, now.Sub(began))
			return s
		case end.IsZero() && last.IsZero():
			if lost { // who waits for the first outcome only does not wait in vain
				on.heir.held(q, Expired, now.Sub(began))
			}
			return next
		case last.After(end):
			end = last
		}
		lost = lost || s.phase.Situation != Starting
		timer.Reset(end.Sub(now))
		select {
		case <-s.changed: // closed for all who wait, at once
		case <-next.changed:
		case <-on.retired:
			on.follow()
		case <-timer.C:
		case <-v.pool.ending:
			on.heir.held(q, Shutdown, time.Since(began))
			return on.heir.State()
		case <-ctx.Done():
			on.heir.held(q, Abandoned, time.Since(began))
			return on.heir.State()
		}
	}
}

// waitsUntil returns until when a request that came at a moment waits for another state, the zero time if it does not.
func (s *State) waitsUntil(came, now time.Time, hold time.Duration) time.Time {
	if end, ok := s.PhaseAt(now).waitUntil(came, hold); ok && end.After(now) {
		return end
	}
	return time.Time{}
}

// Pause has a request that could not be brought to its node wait for another state than s, or for d to pass: then it is to be
// tried again. It takes a place in the queue, as one that waits for a node does. It reports false where the request is not to
// go on: too many wait already, its context has ended, or the process is about to.
func (v *View) Pause(ctx context.Context, q *Queue, w Waiter, s *State, d time.Duration) bool {
	if !q.enter(&w) {
		v.held(q, Overflow, 0)
		return false
	}
	defer q.leave(&w)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.changed:
	case <-timer.C:
	case <-v.pool.ending:
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// held counts the end of a wait.
func (v *View) held(q *Queue, e HoldEnd, took time.Duration) {
	if !q.Uncounted {
		v.Stats().held(e, took)
	}
}
