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
	answers
)

var answerNames = [answers]string{"redirected", "standby", "proxied", "unavailable", "loop", "bad_request", "passed"}

func (a Answer) String() string { return answerNames[a] }

// Answers is the whole set.
var Answers = []Answer{Redirected, SentToStandby, Proxied, Unavailable, Loop, BadRequest, Passed}

// HoldEnd is how the wait of a request ended.
type HoldEnd int

// The ends.
const (
	Released  HoldEnd = iota // there was a node
	Expired                  // hold was over
	Abandoned                // the client left
	Overflow                 // there was no place to wait
	Shutdown                 // the process was about to end
	holdEnds
)

var holdEndNames = [holdEnds]string{"released", "expired", "abandoned", "overflow", "shutdown"}

func (e HoldEnd) String() string { return holdEndNames[e] }

// HoldEnds is the whole set.
var HoldEnds = []HoldEnd{Released, Expired, Abandoned, Overflow, Shutdown}

// Retry is why a proxied request was sent again.
type Retry int

// The reasons.
const (
	RetryUnconnected Retry = iota // no connection to the node could be made, or it had closed the one that was kept
	RetryNotActive                // the node said that it is not active, and has done nothing
	RetrySealed                   // the node said that it is sealed; reads only
	RetryBroken                   // the node broke the connection before it answered, or was given up; reads only
	retries
)

var retryNames = [retries]string{"unconnected", "not_active", "sealed", "broken"}

func (r Retry) String() string { return retryNames[r] }

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
	history history
	noticed [answers]uint64 // the answers until the traffic was last looked at; guarded by the cluster

	answers [answers]atomic.Uint64
	holds   [holdEnds]atomic.Uint64
	retries [retries]atomic.Uint64
	losses  [6]atomic.Uint64  // in the order of LossReasons
	probes  [12]atomic.Uint64 // in the order of Results
	without atomic.Int64      // nanoseconds without an active node, without the present outage
	shown   atomic.Int64      // the largest value that WithoutActive has returned
	changed atomic.Int64      // when the last change or loss was, in nanoseconds since 1970; 0: never

	Failovers *Histogram // from a loss to the next active node
	Probing   *Histogram // of answered probes
	Holding   *Histogram // of requests that were released
}

func newStats() *Stats {
	return &Stats{
		Failovers: newHistogram(.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60),
		Probing:   newHistogram(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1),
		Holding:   newHistogram(.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30),
	}
}

// Answered counts a request.
func (s *Stats) Answered(a Answer) { s.answers[a].Add(1) }

// Answers returns how many requests were answered in a way.
func (s *Stats) Answers(a Answer) uint64 { return s.answers[a].Load() }

// Holds returns how many waits ended in a way.
func (s *Stats) Holds(e HoldEnd) uint64 { return s.holds[e].Load() }

// Retried counts that a proxied request was sent again.
func (s *Stats) Retried(r Retry) { s.retries[r].Add(1) }

// Retries returns how often a proxied request was sent again, by reason.
func (s *Stats) Retries(r Retry) uint64 { return s.retries[r].Load() }

// Losses returns how often the active node was lost, by reason.
func (s *Stats) Losses(r discovery.Reason) uint64 { return s.losses[indexOf(LossReasons, r)].Load() }

// Probes returns how many probes had a result.
func (s *Stats) Probes(r Result) uint64 { return s.probes[indexOf(Results, r)].Load() }

// LastChange returns when the last change or loss was; zero: never.
func (s *Stats) LastChange() time.Time {
	if n := s.changed.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// indexOf returns the place of an element in a closed set, the last one for what is not in it.
func indexOf[T comparable](set []T, e T) int {
	if i := slices.Index(set, e); i >= 0 {
		return i
	}
	return len(set) - 1
}

// since returns how many requests were answered in a way since the last call.
func (s *Stats) since(a Answer) float64 {
	before := s.noticed[a]
	s.noticed[a] = s.Answers(a)
	return float64(s.noticed[a] - before)
}

// probed counts a probe.
func (s *Stats) probed(o ProbeOutcome) {
	s.probes[indexOf(Results, o.Result)].Add(1)
	if o.Result.answered() {
		s.Probing.Observe(o.Took)
	}
}

// changedBy counts a change of the active node.
func (s *Stats) changedBy(e Event) {
	s.changed.Store(e.At.UnixNano())
	if e.Kind == ActiveLost {
		s.losses[indexOf(LossReasons, e.Reason)].Add(1)
		return
	}
	if e.Gap > 0 {
		s.Failovers.Observe(e.Gap)
		s.without.Add(int64(e.Gap))
	}
}

// held counts the end of a wait.
func (s *Stats) held(e HoldEnd, took time.Duration) {
	s.holds[e].Add(1)
	if e == Released {
		s.Holding.Observe(took)
	}
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
