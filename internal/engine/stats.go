// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Answer is how a request was answered.
type Answer int

// The answers.
const (
	Redirected    Answer = iota // to the active node
	SentToStandby               // redirected to a standby
	Proxied
	Unavailable
	Loop
	BadRequest
	Passed // to the next handler
)

func (a Answer) String() string {
	return [...]string{"redirected", "standby", "proxied", "unavailable", "loop", "bad_request", "passed"}[a]
}

// Answers is the whole set, in order.
var Answers = []Answer{Redirected, SentToStandby, Proxied, Unavailable, Loop, BadRequest, Passed}

// HoldEnd is how the wait of a request ended.
type HoldEnd string

// The ends.
const (
	Released  HoldEnd = "released"  // there was a node
	Expired   HoldEnd = "expired"   // hold was over
	Abandoned HoldEnd = "abandoned" // the client left
	Overflow  HoldEnd = "overflow"  // there was no place to wait
	Shutdown  HoldEnd = "shutdown"  // the process was about to end
)

// HoldEnds is the whole set.
var HoldEnds = []HoldEnd{Released, Expired, Abandoned, Overflow, Shutdown}

// Retry is why a proxied request was sent again.
type Retry string

// The reasons.
const (
	RetryUnconnected Retry = "unconnected" // no connection to the node could be made, or it had closed the one that was kept
	RetryNotActive   Retry = "not_active"  // the node said that it is not active, and has done nothing
	RetrySealed      Retry = "sealed"      // the node said that it is sealed; reads only
	RetryBroken      Retry = "broken"      // the node broke the connection before it answered, or was given up; reads only
)

// Retries is the whole set.
var Retries = []Retry{RetryUnconnected, RetryNotActive, RetrySealed, RetryBroken}

// QueryResults is the closed set of the outcomes of discovery's queries.
var QueryResults = []discovery.Reason{
	discovery.ReasonOK, discovery.ReasonACLDenied, discovery.ReasonACLFiltered, discovery.ReasonConsulUnreachable, discovery.ReasonConsulError,
}

// LossReasons is the closed set of why the active node was lost.
var LossReasons = []discovery.Reason{
	discovery.ReasonNoService, discovery.ReasonNoActive, discovery.ReasonUnhealthy, discovery.ReasonBadAddress, discovery.ReasonStaleExpired, "other",
}

// Stats are the counters and the history of a view. A view that replaces another one continues them: a copy would fall behind
// while the old view still counts, and a counter that falls looks like a new one. They are safe for concurrent use, and counting
// never locks.
type Stats struct {
	Answers *Counter[Answer]
	Holds   *Counter[HoldEnd]
	Retries *Counter[Retry]
	Losses  *Counter[discovery.Reason] // of the active node
	Probes  *Counter[Result]

	Failovers *Histogram // from a loss to the next active node
	Probing   *Histogram // of answered probes
	Holding   *Histogram // of requests that were released

	history []Event           // the last changes, the newest first; guarded by the pool
	noticed map[Answer]uint64 // the answers until the traffic was last looked at; guarded by the pool
	without atomic.Int64      // nanoseconds without an active node, without the present outage
	shown   atomic.Int64      // the largest value that WithoutActive has returned
}

func newStats() *Stats {
	return &Stats{
		Answers:   newCounter(Answers),
		Holds:     newCounter(HoldEnds),
		Retries:   newCounter(Retries),
		Losses:    newCounter(LossReasons),
		Probes:    newCounter(Results),
		Failovers: newHistogram(.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60),
		Probing:   newHistogram(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1),
		Holding:   newHistogram(.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30),
		noticed:   map[Answer]uint64{},
	}
}

// Answered counts a request: each one does, so that nothing is looked up for it.
func (s *Stats) Answered(a Answer) { s.Answers.counts[a].Add(1) }

// since returns how many requests were answered in a way since the last call.
func (s *Stats) since(a Answer) float64 {
	before := s.noticed[a]
	s.noticed[a] = s.Answers.Count(a)
	return float64(s.noticed[a] - before)
}

// probed counts a probe.
func (s *Stats) probed(o ProbeOutcome) {
	s.Probes.Add(o.Result)
	if o.Result.answered() {
		s.Probing.Observe(o.Took)
	}
}

// changedBy counts a change of the active node.
func (s *Stats) changedBy(e Event) {
	if e.Kind == ActiveLost {
		s.Losses.Add(e.Reason)
		return
	}
	if e.Gap > 0 {
		s.Failovers.Observe(e.Gap)
		s.without.Add(int64(e.Gap))
	}
}

// held counts the end of a wait.
func (s *Stats) held(e HoldEnd, took time.Duration) {
	s.Holds.Add(e)
	if e == Released {
		s.Holding.Observe(took)
	}
}

// Counter counts by the elements of a closed set. What is not in it counts as the last one.
type Counter[T comparable] struct {
	set    []T
	counts []atomic.Uint64
}

func newCounter[T comparable](set []T) *Counter[T] {
	return &Counter[T]{set, make([]atomic.Uint64, len(set))}
}

// Add counts one.
func (c *Counter[T]) Add(e T) { c.of(e).Add(1) }

// Count returns how many were counted.
func (c *Counter[T]) Count(e T) uint64 { return c.of(e).Load() }

func (c *Counter[T]) of(e T) *atomic.Uint64 {
	if i := slices.Index(c.set, e); i >= 0 {
		return &c.counts[i]
	}
	return &c.counts[len(c.set)-1]
}

// Histogram counts durations by upper bounds in seconds.
type Histogram struct {
	bounds []float64
	counts []atomic.Uint64 // one more than bounds: the rest
	nanos  atomic.Int64
}

func newHistogram(bounds ...float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	i, _ := slices.BinarySearch(h.bounds, d.Seconds())
	h.counts[i].Add(1)
	h.nanos.Add(int64(d))
}

// Read returns the count, the sum in seconds and the cumulative counts by upper bound, as Prometheus wants them.
func (h *Histogram) Read() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(h.bounds))
	for i := range h.counts {
		count += h.counts[i].Load()
		if i < len(h.bounds) {
			buckets[h.bounds[i]] = count
		}
	}
	return count, float64(h.nanos.Load()) / float64(time.Second), buckets
}
