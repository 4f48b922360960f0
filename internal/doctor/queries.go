// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// blockingPart is the part of the timeout for which a query that waits for a change is watched.
const blockingPart = 10

// Blocking is what was seen of a query that waits for a change.
type Blocking struct {
	Wait   time.Duration // that was asked for; 0: there was no such query
	Held   time.Duration // for how long it waited until it was answered, failed, or was no longer watched
	Failed string        // why it failed
}

// queries is what is known of the queries of a source.
type queries struct {
	mu       sync.Mutex
	asked    bool
	took     time.Duration // that of the first
	last     discovery.Answer
	err      error     // of the last one, unless it waited: then the engine asks again
	blocking Blocking  // the last one that waited, or the first one of these that failed
	waiting  time.Time // since when one waits; zero: none does
}

func (q *queries) begin(index uint64, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if index > 0 && q.blocking.Failed == "" {
		q.blocking, q.waiting = Blocking{Wait: wait}, time.Now()
	}
}

// end is called after a query that began then.
func (q *queries) end(began time.Time, index uint64, a discovery.Answer, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	took := time.Since(began)
	if !q.asked {
		q.asked, q.took = true, took
	}
	if index == 0 || err == nil {
		q.last, q.err = a, err
	}
	if index > 0 && q.blocking.Failed == "" {
		q.blocking.Held, q.waiting = took, time.Time{}
		if err != nil {
			q.blocking.Failed = sanitize.Line(err.Error())
		}
	}
}

// await waits until a query that waits for a change is answered, fails, or has waited for the limit, and returns what was seen of it.
// Where there are no such queries, it returns at once.
func (q *queries) await(ctx context.Context, limit time.Duration) Blocking {
	ctx, cancel := context.WithTimeout(ctx, limit+time.Second) // such a query follows the first answer at once
	defer cancel()
	for {
		if b, over := q.seen(limit); over || ctx.Err() != nil {
			return b
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (q *queries) seen(limit time.Duration) (b Blocking, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b = q.blocking
	if !q.waiting.IsZero() {
		b.Held = time.Since(q.waiting)
	}
	return b, q.err != nil || q.last.Index == 0 || b.Wait > 0 && (q.waiting.IsZero() || b.Held >= limit)
}

// describe fills in what an observation says of the queries.
func (q *queries) describe(o *Observation) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o.Asked, o.Took, o.Incomplete, o.IncompleteDetail = q.asked, q.took, q.last.Incomplete, q.last.Detail
	if q.err == nil {
		return
	}
	o.Failed, o.FailedWith = discovery.ReasonConsulError, strings.TrimPrefix(sanitize.Line(q.err.Error()), "consul at "+o.Endpoint+": ")
	if known, ok := errors.AsType[*discovery.Error](q.err); ok {
		o.Failed = known.Reason
	}
}

// recorder is a discoverer that records its queries.
type recorder struct {
	discovery.Discoverer
	queries *queries
}

func (r *recorder) Open() (discovery.Source, error) {
	s, err := r.Discoverer.Open()
	if err != nil {
		return nil, err
	}
	return &recordedSource{s, r.queries}, nil
}

type recordedSource struct {
	discovery.Source
	queries *queries
}

func (s *recordedSource) Query(ctx context.Context, index uint64, wait time.Duration) (discovery.Answer, error) {
	s.queries.begin(index, wait)
	began := time.Now()
	a, err := s.Source.Query(ctx, index, wait)
	if !errors.Is(ctx.Err(), context.Canceled) { // else the observation is over
		s.queries.end(began, index, a, err)
	}
	return a, err
}
