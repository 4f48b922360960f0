// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"context"
	"net/netip"
	"sync"
	"time"
)

// Queue is where the requests of one handler wait. The zero value lets none wait.
type Queue struct {
	Hold time.Duration // how long a request waits at most, and how long after the loss of a node any does
	Most int64         // how many wait at once

	Uncounted bool // its requests come from no clients of Vault: that they wait, and how it ends, is not counted

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
	Unseen bool      // the client could leave unnoticed
	Came   time.Time // hold counts from here, however often it waits; zero: from now
	Begin  func()    // called when it has a place, before it waits, and must not wait itself; may be nil
}

// holdUntil returns until when a request that came at a moment waits for another state, the zero time if it does not.
func (q *Queue) holdUntil(s *State, came, now time.Time) time.Time {
	if s.Loop != "" { // time does not mend it
		return time.Time{}
	}
	return s.PhaseAt(now).holdUntil(came, now, q.Hold)
}

// Waiting returns how many requests wait now.
func (q *Queue) Waiting() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}

// enter takes a place for a request, and returns what gives it back; nil: there is no place.
func (q *Queue) enter(w *Waiter) (leave func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	client, unseen, share := clientOf(w.Client), w.Unseen, max(1, q.Most/shares)
	if q.waiting >= q.Most || q.clients[client] >= share || unseen && q.unseen >= share {
		return nil
	}
	if q.clients == nil {
		q.clients = map[string]int64{}
	}
	q.waiting++
	q.clients[client]++
	if unseen {
		q.unseen++
	}
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.waiting--
		if q.clients[client]--; q.clients[client] == 0 {
			delete(q.clients, client)
		}
		if unseen {
			q.unseen--
		}
	}
}

// clientOf returns by what the places of the client with an address are counted: over IPv6 its network, of whose addresses a client
// has as many as it likes.
func clientOf(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// Await returns the state for a request. While the active node has been lost for less than hold, leaves a probe unanswered,
// or nothing is known yet, it waits for a state in which that is over, if there is a place for it. Each request has one
// deadline; it leaves early when its context ends or the process is about to. If another view comes to serve the site
// meanwhile, the request gets the node that either view is the first to find.
//
// It starts a view that does not run yet: a request shows that the config is run, and Caddy may serve it before it starts the
// view, or never start it if something else fails to start.
func (v *View) Await(ctx context.Context, q *Queue, w Waiter) *State {
	if s := v.current.Load(); s != nil && s.phase.Situation == Active {
		return s
	}
	began, s := time.Now(), v.State()
	came := cmp.Or(w.Came, began)
	if q.holdUntil(s, came, began).IsZero() {
		return s
	}
	v, leave := v.enter(q, &w)
	if leave == nil {
		return s
	}
	defer leave()
	if v.current.Load() == nil { // nothing will change any more
		return s
	}
	v.Start()
	if w.Begin != nil {
		w.Begin()
	}

	for lost := false; ; {
		changed, site := v.Changed(), v.servedBy()
		now, own, served := time.Now(), v.State(), site.State()
		end, last := q.holdUntil(own, came, now), q.holdUntil(served, came, now)
		switch {
		case last.IsZero() && served.Active():
			site.held(q, Released, now.Sub(began))
			return served
		case end.IsZero() && own.Active():
			v.held(q, Released, now.Sub(began))
			return own
		case end.IsZero() && last.IsZero():
			if lost { // else it waited for the first outcome, which is no hold that was in vain
				site.held(q, Expired, now.Sub(began))
			}
			return served
		case last.After(end):
			end = last
		}
		lost = lost || own.phase.Situation != Starting
		if end := v.wait(ctx, changed, end.Sub(now)); end != "" {
			site = v.servedBy()
			site.held(q, end, time.Since(began))
			return site.State()
		}
	}
}

// Pause delays the next try of a request that did not reach its node, until there is another state than s or d has passed. The
// request takes a place in the queue meanwhile, as one that waits for a node does. Pause reports false if there is to be no
// other try: there is no place, the context has ended, or the process is about to end.
func (v *View) Pause(ctx context.Context, q *Queue, w Waiter, s *State, d time.Duration) bool {
	v, leave := v.enter(q, &w)
	if leave == nil {
		return false
	}
	defer leave()
	for end := time.Now().Add(d); ; {
		changed := v.Changed()
		if v.State() != s && v.servedBy().State() != s || !time.Now().Before(end) {
			return true
		}
		if v.wait(ctx, changed, time.Until(end)) != "" {
			return false
		}
	}
}

// enter takes a place in a queue for a request, and returns what gives it back; nil: there is no place. It also returns the view that the
// request waits on, which does not end before the request leaves: if this one has ended, the one that serves its site now.
func (v *View) enter(q *Queue, w *Waiter) (on *View, leave func()) {
	leaveQueue := q.enter(w)
	if leaveQueue == nil {
		v.held(q, Overflow, 0)
		return nil, nil
	}
	weight := 1 // how much the request adds to the number of those that wait
	if q.Uncounted {
		weight = 0
	}
	for on = v; !on.need(0, weight); {
		next := on.servedBy()
		if next == on {
			break
		}
		on = next
	}
	return on, func() {
		leaveQueue()
		on.need(0, -weight)
	}
}

// wait waits until the cluster changes, or for so long at most. If the request is not to wait any more, wait returns why.
func (v *View) wait(ctx context.Context, changed <-chan struct{}, most time.Duration) HoldEnd {
	select {
	case <-changed:
	case <-time.After(most):
	case <-v.cluster.pool.ending.Done():
		return Shutdown
	case <-ctx.Done():
		return Abandoned
	}
	return ""
}

// held counts the end of a wait.
func (v *View) held(q *Queue, e HoldEnd, took time.Duration) {
	if !q.Uncounted {
		v.Stats().held(e, took)
	}
}
