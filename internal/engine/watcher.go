// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// The limits of the watch loop.
const (
	querySlack  = 10 * time.Second       // what a query may take beyond its wait
	backoffMin  = 250 * time.Millisecond // after the first failure, at most
	backoffMax  = 10 * time.Second       // after many failures, at most
	queryRate   = rate.Limit(2)          // queries a second under churn,
	queryBurst  = 10                     // after so many at once: the changes of one failover are seen as they come
	idleAnswers = 3                      // after so many answers in a row that did not wait, the source is polled
	waitedLeast = time.Second            // a query that took so long did wait, whatever ended it
	pollLeast   = time.Second            // between two queries that a source does not let wait
)

// report is what a watcher knows after an answer or a failure of its discovery.
type report struct {
	nodes      []discovery.Node // the set of the last answer; before that, what the cluster knew
	complete   []discovery.Node // the same of the last complete answer
	incomplete discovery.Reason // set if the last answer was incomplete
	polled     time.Time        // when that answer came; zero: there was none yet

	failure discovery.Reason // set if the last query failed
	detail  string           // more on the failure or on what is incomplete
	failing time.Time        // since when queries fail, or answers are no news

	failures int64  // in a row
	index    uint64 // of the last answer
}

// all returns the nodes that the last answer shows, followed by those of the last complete one that it may lack.
func (r *report) all() []discovery.Node {
	shown := discovery.Identities(r.nodes)
	lacks := slices.DeleteFunc(slices.Clone(r.complete), func(n discovery.Node) bool { return shown[n.Identity()] })
	return append(slices.Clone(r.nodes), lacks...)
}

// watcher queries one source of a cluster for as long as a view needs it.
type watcher struct {
	cluster    *Cluster
	discoverer discovery.Discoverer
	key        string // the discoverer's
	source     discovery.Source
	logs       loggers

	once   sync.Once // the loop is started, or never will be
	ctx    context.Context
	cancel context.CancelFunc
	loop   sync.WaitGroup

	report  report // guarded by the pool
	told    bool   // the log says that blocking queries fail
	queries *Counter[discovery.Reason]
}

func newWatcher(c *Cluster, d discovery.Discoverer) (*watcher, error) {
	source, err := d.Open()
	if err != nil {
		return nil, err
	}
	w := &watcher{cluster: c, discoverer: d, key: d.Key(), source: source, queries: newCounter(QueryResults)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w, nil
}

// start starts the loop unless it runs already.
func (w *watcher) start() { w.once.Do(func() { w.loop.Go(w.run) }) }

// stop ends the loop, which closes the source. A source that does not end a query with its context is left behind, to be
// closed when it does.
func (w *watcher) stop() {
	w.cancel()
	w.once.Do(w.source.Close)
	await(&w.loop)
}

// latest returns the last report.
func (w *watcher) latest() report {
	w.cluster.pool.mu.Lock()
	defer w.cluster.pool.mu.Unlock()
	return w.report
}

// run is the loop: query, report, and decide when to query again.
func (w *watcher) run() {
	defer w.source.Close()
	var (
		ctx      = w.ctx
		bucket   = rate.NewLimiter(queryRate, queryBurst)
		index    uint64 // of the last answer; 0: the next query is not to wait
		failures int    // in a row
		idle     int    // answers in a row that neither waited nor brought anything
		interval = max(w.discoverer.MaxWait(), pollLeast)
		wait     = interval
	)
	for ctx.Err() == nil {
		began := time.Now()
		answer, err := w.query(ctx, index, wait)
		took := time.Since(began)
		cut := err != nil && index > 0 && mayBeCut(err)
		if cut { // something in between may have ended the wait: then a query that does not wait is answered
			blocking := err
			if answer, err = w.query(ctx, 0, 0); err == nil {
				w.cut(blocking, took)
			}
		} else if err == nil && took >= wait {
			w.told = false // it waited as long as it may
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.failed(err)
			index = 0
			failures++
			pause(ctx, backoff(failures)-took)
			continue
		}
		failures = 0
		changed := w.answered(answer)

		waited := index > 0 && took >= min(waitedLeast, wait/2)                        // at least half a second: nothing runs hot
		if answer.Index == 0 || answer.Index == index && !changed && !waited && !cut { // 0: nothing to wait for a change of
			idle++
		} else {
			idle = 0
		}
		if answer.Index < index {
			answer.Index = 0 // Consul's state was replaced: start again
		}
		index = answer.Index
		wait = interval
		if answer.Incomplete != "" { // no index tells when it is over
			wait = min(wait, backoffMax)
		}
		if idle >= idleAnswers {
			pause(ctx, wait-took)
		}
		if !waited { // a query that waits is bounded by itself
			queries := 1 + answer.ExtraQueries
			if cut {
				queries++
			}
			pause(ctx, bucket.ReserveN(time.Now(), min(max(1, queries), queryBurst)).Delay())
		}
	}
}

// mayBeCut reports whether a query that waited may have been ended by something between here and the source, such as a proxy with
// a shorter limit: it failed, but neither by our own deadline nor by a refusal.
func mayBeCut(err error) bool {
	known, ok := errors.AsType[*discovery.Error](err)
	return ok && known.Reason != discovery.ReasonACLDenied && !errors.Is(err, context.DeadlineExceeded)
}

// cut logs that a query that waited has failed where one that does not wait is answered: once, until one waits for as long as it
// may. Discovery is up.
func (w *watcher) cut(err error, took time.Duration) {
	level := zap.DebugLevel
	if !w.told {
		level, w.told = zap.WarnLevel, true
	}
	w.cluster.log.log(&w.logs, level, "blocking queries fail while others are answered: if a proxy cuts them short, set poll_interval below its limit",
		zap.Duration("after", took), zap.Error(err))
}

// query asks once, with a deadline of its own. Consul adds up to a sixteenth to the wait.
func (w *watcher) query(ctx context.Context, index uint64, wait time.Duration) (discovery.Answer, error) {
	limit := querySlack
	if index > 0 {
		limit += wait + wait/16
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a, err := w.source.Query(ctx, index, wait)
	if err == nil && len(discovery.Identities(a.Nodes)) != len(a.Nodes) {
		err = &discovery.Error{Reason: discovery.ReasonConsulError, Err: errors.New("unusable answer: two instances have the same name and ID")}
	}
	return a, err
}

// answered reports an answer and returns whether it differs from the one before.
func (w *watcher) answered(a discovery.Answer) (changed bool) {
	now, last := time.Now(), w.latest()
	r := report{nodes: a.Nodes, complete: a.Nodes, incomplete: a.Incomplete, detail: a.Detail, index: a.Index, polled: now}
	if a.Incomplete != "" { // nodes that the answer may lack are still probed
		r.complete = last.complete
	}
	outdated := a.Incomplete != "" && a.Incomplete != discovery.ReasonACLFiltered
	if outdated { // by a failure that shows nodes
		r.failure, r.failures = a.Incomplete, last.failures
		if r.failing = last.failing; r.failing.IsZero() {
			r.failing = now
			w.announce(Event{Kind: DiscoveryDown, At: now, Reason: a.Incomplete})
		}
	}
	w.queries.Add(cmp.Or(a.Incomplete, discovery.ReasonOK))
	changed = last.polled.IsZero() || a.Incomplete != last.incomplete || !reflect.DeepEqual(a.Nodes, last.nodes)
	if !last.failing.IsZero() && !outdated {
		w.cluster.log.log(&w.logs, zap.InfoLevel, "discovery recovered", zap.Duration("outage", now.Sub(last.failing)))
		w.announce(Event{Kind: DiscoveryUp, At: now, Outage: now.Sub(last.failing)})
	}
	switch {
	case a.Incomplete != "" && a.Incomplete != last.incomplete:
		w.cluster.log.log(&w.logs, zap.WarnLevel, "discovery answer incomplete", zap.String("reason", string(a.Incomplete)), zap.String("detail", a.Detail))
	case a.Incomplete == "" && last.incomplete != "":
		w.cluster.log.log(&w.logs, zap.InfoLevel, "discovery answer complete again")
	}
	w.publish(r)
	return changed
}

// failed reports a failure, with the nodes of the last answer.
func (w *watcher) failed(err error) {
	r := w.latest()
	now := time.Now()
	r.failure, r.detail = discovery.ReasonConsulError, err.Error()
	if known, ok := errors.AsType[*discovery.Error](err); ok {
		r.failure = known.Reason
	}
	level := zap.DebugLevel
	if r.failing.IsZero() {
		level, r.failing = zap.WarnLevel, now
		w.announce(Event{Kind: DiscoveryDown, At: now, Reason: r.failure})
	}
	r.failures++
	w.queries.Add(r.failure)
	w.cluster.log.log(&w.logs, level, "discovery failed", zap.String("reason", string(r.failure)), zap.Error(err))
	w.publish(r)
}

// announce announces an event once for each cluster name that depends on this discovery.
func (w *watcher) announce(e Event) {
	w.cluster.pool.mu.Lock()
	defer w.cluster.pool.mu.Unlock()
	for _, v := range w.cluster.views {
		if v.watcher == w && v.records() {
			w.cluster.pool.announce(v, e)
		}
	}
}

// publish hands a report to the cluster.
func (w *watcher) publish(r report) {
	c := w.cluster
	c.update(func(now time.Time) bool {
		w.report = r
		for _, v := range c.views {
			if v.watcher == w && v.started() {
				v.findNodes(v, now)
			}
		}
		c.forgetNodes()
		// Views of other watchers stay as they are, of which there may be many. One that is not started follows from another view.
		c.refresh(now, func(v *View) bool { return v.watcher == w || !v.started() })
		return false
	})
}

// backoff returns how long to wait after so many failures in a row: full jitter, so that many redirectors do not come
// back to a Consul that has just recovered all at once.
func backoff(failures int) time.Duration {
	limit := backoffMax
	if failures < 10 {
		limit = min(limit, backoffMin<<(failures-1))
	}
	return rand.N(limit) + time.Millisecond
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// endGrace is how long Release waits for goroutines to end. Caddy calls it while its configs are locked.
const endGrace = time.Second

// await waits for the end of goroutines whose context has ended, but never for long.
func await(group *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		group.Wait()
	}()
	select {
	case <-done:
	case <-time.After(endGrace):
	}
}
