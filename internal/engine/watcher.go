// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the watch loop over a discovery, and the pool that shares one watcher between handlers and reloads.

package vaultredirect

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// Discovery knows where to ask which Vault nodes there are. Its implementations are the guest modules in the namespace
// http.vault_redirect.discovery; the config of a handler names one in its discovery field.
type Discovery interface {
	// Key identifies the source: discoveries with equal keys share one watcher. It holds no secret in readable form.
	Key() string
	// Selection says what marks the active node. Discoveries that differ only in this share a watcher.
	Selection() Selection
	// MaxWait is the longest time between two queries.
	MaxWait() time.Duration
	// Endpoint is where the source is, for people; it holds no secret.
	Endpoint() string
	// Open returns the source. It must not use the network yet, and what it returns outlives the module.
	Open() (Source, error)
}

// Source answers queries for all nodes of a Vault cluster.
type Source interface {
	// Query returns the full set of nodes. With an index above 0 it waits until there is something newer than the answer
	// that had this index, at most about wait. An error may be a [QueryError], which gives it a reason. Where one query does
	// not do, the answer says how many it took, for the limit on their rate.
	Query(ctx context.Context, index uint64, wait time.Duration) (Answer, error)
	// Close releases the connections.
	Close()
}

// Answer is the outcome of a query.
type Answer struct {
	// Nodes is the full set, in an order that does not depend on chance.
	Nodes []Node
	// Index of the answer, 0 where the source does not have one.
	Index uint64
	// Doubt is set where the answer proves nothing by what it lacks: acl_filtered or consul_error.
	Doubt Reason
	// Detail says more on the doubt, for people.
	Detail string
	// Again is how many queries it took beyond the first one. With an error, it alone counts.
	Again int
}

// QueryError is a failed query with the reason to show for it.
type QueryError struct {
	Reason Reason
	Err    error
}

func (e *QueryError) Error() string { return e.Err.Error() }
func (e *QueryError) Unwrap() error { return e.Err }

// The limits of the watch loop.
const (
	querySlack  = 10 * time.Second       // what a query may take beyond its wait
	backoffMin  = 250 * time.Millisecond // after the first failure, at most
	backoffMax  = 10 * time.Second       // after many failures, at most
	queryRate   = rate.Limit(2)          // queries a second under churn,
	queryBurst  = 10                     // after so many at once: the changes of one failover are seen as they come
	idleAnswers = 3                      // so many answers in a row that did not wait, and the source is merely polled
	startGrace  = time.Second            // how long the first requests wait for the first answer
)

// watchers has the watchers of the process by the key of their discovery.
var watchers = caddy.NewUsagePool()

// watcher asks one source for as long as anybody wants to know, and reports to its views. It is the only writer.
type watcher struct {
	key      string
	source   Source
	interval time.Duration
	logs     loggers

	once   sync.Once // the loop is started, or never will be
	cancel context.CancelFunc
	ctx    context.Context // of the loop
	done   chan struct{}   // closed when the loop has ended

	mu     sync.Mutex
	views  []*view
	report report
}

func newWatcher(key string, source Source, interval time.Duration) *watcher {
	w := &watcher{key: key, source: source, interval: interval, done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// acquire returns the view for the config, on the watcher for the discovery. Release it with the same logger.
func acquire(d Discovery, c viewConfig, log *zap.Logger) (*view, error) {
	val, _, err := watchers.LoadOrNew(d.Key(), func() (caddy.Destructor, error) {
		source, err := d.Open()
		if err != nil {
			return nil, err
		}
		return newWatcher(d.Key(), source, d.MaxWait()), nil
	})
	if err != nil {
		return nil, err
	}
	v, err := val.(*watcher).attach(c, log)
	if err != nil {
		_, _ = watchers.Delete(d.Key())
		return nil, err
	}
	return v, nil
}

// release gives a view back. The last user of the watcher ends it.
func (v *view) release(log *zap.Logger) error {
	if v.watcher.detach(v, log) {
		v.stop()
	}
	_, err := watchers.Delete(v.watcher.key)
	return err
}

func (w *watcher) attach(c viewConfig, log *zap.Logger) (*view, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.views, func(v *view) bool { return v.viewConfig == c })
	if i < 0 {
		var sibling *view
		if len(w.views) > 0 {
			sibling = w.views[len(w.views)-1]
		}
		v, err := newView(c, w, sibling)
		if err != nil {
			return nil, err
		}
		i = len(w.views)
		w.views = append(w.views, v)
	}
	v := w.views[i]
	v.refs++
	v.logs.add(log)
	w.logs.add(log)
	if v.refs == 1 && !w.report.at.IsZero() {
		v.apply(w.report)
	}
	return v, nil
}

// detach returns whether it was the last use of the view.
func (w *watcher) detach(v *view, log *zap.Logger) (last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logs.remove(log)
	v.logs.remove(log)
	v.refs--
	if v.refs == 0 {
		w.views = slices.DeleteFunc(w.views, func(o *view) bool { return o == v })
	}
	return v.refs == 0
}

// start starts the loop unless it runs already.
func (w *watcher) start() {
	w.once.Do(func() { go w.run(w.ctx) })
}

// Destruct ends the loop and waits for its end. The pool calls it after the last release.
func (w *watcher) Destruct() error {
	w.cancel()
	w.once.Do(func() { close(w.done) })
	<-w.done
	w.source.Close()
	return nil
}

// run is the loop: query, report, and decide when to query again.
func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	var (
		bucket   = rate.NewLimiter(queryRate, queryBurst)
		index    uint64 // of the last answer; 0: the next query is not to wait
		failures int    // in a row
		idle     int    // answers in a row that neither waited nor brought anything
		wait     = w.interval
	)
	for bucket.Wait(ctx) == nil {
		began := time.Now()
		answer, err := w.query(ctx, index, wait)
		took := time.Since(began)
		bucket.ReserveN(time.Now(), answer.Again)
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

		waited := index > 0 && took >= wait/2
		switch {
		case answer.Index == 0: // nothing to wait for a change of
			idle++
		case answer.Index == index && !changed && !waited:
			idle++
		default:
			idle = 0
		}
		if answer.Index < index {
			answer.Index = 0 // Consul's state was replaced: start again
		}
		index = answer.Index
		wait = w.interval
		if answer.Doubt != "" { // no index tells when it is over
			wait = min(wait, backoffMax)
		}
		if idle >= idleAnswers {
			pause(ctx, wait-took)
		}
	}
}

// query asks once, with a deadline of its own. Consul adds up to a sixteenth to the wait.
func (w *watcher) query(ctx context.Context, index uint64, wait time.Duration) (Answer, error) {
	limit := querySlack
	if index > 0 {
		limit += wait + wait/16
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a, err := w.source.Query(ctx, index, wait)
	if err == nil && len(keysOf(a.Nodes)) != len(a.Nodes) {
		err = &QueryError{ReasonConsulError, errors.New("unusable answer: two instances have the same name and ID")}
	}
	return a, err
}

// answered reports an answer and returns whether it differs from the one before.
func (w *watcher) answered(a Answer) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.report.failing.IsZero() {
		w.logs.latest().Info("discovery answers again", zap.Duration("outage", now.Sub(w.report.failing)))
	}
	last := w.report
	if a.Doubt != "" && a.Doubt != last.doubt {
		w.logs.latest().Warn("discovery may not tell all", zap.String("reason", string(a.Doubt)), zap.String("detail", a.Detail))
	} else if a.Doubt == "" && last.doubt != "" {
		w.logs.latest().Info("discovery tells all again")
	}
	changed = last.polled.IsZero() || a.Doubt != last.doubt || !reflect.DeepEqual(a.Nodes, last.nodes)
	w.publish(report{nodes: a.Nodes, doubt: a.Doubt, detail: a.Detail, polled: now, at: now})
	return changed
}

// failed reports a failure: what was known before stands beside it.
func (w *watcher) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.report
	r.at, r.failure, r.detail = time.Now(), ReasonConsulError, err.Error()
	if qe, ok := errors.AsType[*QueryError](err); ok {
		r.failure = qe.Reason
	}
	level := zap.DebugLevel
	if r.failing.IsZero() {
		level, r.failing = zap.WarnLevel, r.at
	}
	if c := w.logs.latest().Check(level, "discovery failed"); c != nil {
		c.Write(zap.String("reason", string(r.failure)), zap.Error(err))
	}
	w.publish(r)
}

// publish lets every view see a report.
func (w *watcher) publish(r report) {
	w.report = r
	for _, v := range w.views {
		v.apply(r)
	}
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
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
