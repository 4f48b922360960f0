// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the State that readers see, and the view that makes it from what a watcher reports.

package vaultredirect

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// state is what is known about the active node: an immutable snapshot, behind one atomic pointer.
type state struct {
	node       *Node  // the active node, or the last known one while stale; nil if there is none
	target     target // where it is reached
	reason     Reason // ok; why there is no node; or, while stale, why nothing newer is known
	detail     string // more on the reason, for people; never holds a secret
	nodes      int    // instances that are registered
	candidates int    // instances that could have been elected
	changes    uint64 // how often another node became active since the view began

	made   time.Time // when this state began
	polled time.Time // when discovery last answered; zero: never
	stale  time.Time // since when the node is merely the last one known; zero: it is not
	expiry time.Time // when a stale node is no longer to be used; zero: it is not stale
	lost   time.Time // since when no node is active; zero: one is, or none ever was
	mute   time.Time // since when the active node leaves a probe unanswered; zero: it does not, or there are no probes

	loop    *sync.Once    // a redirect loop to this target is logged once
	changed chan struct{} // closed when a newer state replaces this one
}

// active reports whether requests are to be redirected to the target. Only a stale state costs a look at the clock.
func (s *state) active() bool {
	return s.node != nil && (s.expiry.IsZero() || s.activeAt(time.Now()))
}

func (s *state) activeAt(now time.Time) bool {
	return s.node != nil && (s.expiry.IsZero() || now.Before(s.expiry))
}

// reasonAt returns the reason at a time: a stale node expires without a new state.
func (s *state) reasonAt(now time.Time) Reason {
	if s.node != nil && !s.activeAt(now) {
		return ReasonStaleExpired
	}
	return s.reason
}

// lostAt returns since when no node is active; zero: one is, or none ever was.
func (s *state) lostAt() time.Time {
	if s.node != nil {
		return s.expiry
	}
	return s.lost
}

// waits reports whether requests do well to wait for the next state.
func (s *state) waits() bool {
	if s.active() {
		return !s.mute.IsZero()
	}
	return !s.lostAt().IsZero()
}

// waitsSince returns the moment from which requests wait at most for hold.
func (s *state) waitsSince() time.Time {
	if s.active() {
		return s.mute
	}
	return s.lostAt()
}

// report is what a watcher knows after an answer or a failure of its discovery.
type report struct {
	nodes  []Node    // the full set of the last answer
	doubt  Reason    // set if the last answer proves nothing by what it lacks
	polled time.Time // when that answer came; zero: there was none yet

	failure Reason    // set if the last query failed
	detail  string    // more on the failure
	failing time.Time // since when queries fail
	at      time.Time // when this report was made
}

// viewConfig is what a view depends on besides the discovery. It is comparable: handlers that have it in common share a view.
type viewConfig struct {
	policy
	maxStale time.Duration
	probe    probeConfig
}

// view elects the active node from what a watcher reports and probes find out, by one policy, for any number of readers.
// It is shared by the handlers whose config is the same, across reloads.
type view struct {
	viewConfig
	watcher *watcher
	logs    *loggers
	current atomic.Pointer[state]

	once    sync.Once // the probes are started, or never will be
	prober  *prober   // nil without probes
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{} // closed when the prober has ended
	settled chan struct{} // closed once there is an outcome, or the start has taken long enough
	settle  func()        // closes settled

	// The rest is guarded by the watcher's mutex.
	refs       int
	last       *Node              // the node that stands until something newer is proven
	contenders []string           // warned about last
	nodes      []Node             // of the last report
	verdicts   map[string]verdict // by key of the node
	url        string             // where the node that was active last is reached
	silent     string             // key of the active node while it leaves a probe unanswered
}

// newView returns a view that knows nothing yet but what a sibling, if there is one, has last seen: created in the midst
// of an outage, it starts from there.
func newView(c viewConfig, w *watcher, sibling *view) (*view, error) {
	v := &view{
		viewConfig: c, watcher: w, logs: new(loggers), verdicts: map[string]verdict{},
		done: make(chan struct{}), settled: make(chan struct{}),
	}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.settle = sync.OnceFunc(func() { close(v.settled) })
	if c.probing {
		var err error
		if v.prober, err = newProber(c.probe, v); err != nil {
			return nil, err
		}
	}
	first := &state{reason: ReasonStarting, loop: new(sync.Once), changed: make(chan struct{})}
	if sibling != nil {
		s := sibling.current.Load()
		first.lost = s.lostAt()
		if sibling.selection == c.selection {
			v.last, first.stale = s.node, s.stale
		}
	}
	v.current.Store(first)
	return v, nil
}

// start starts the watcher and the probes unless they run already.
func (v *view) start() {
	v.watcher.start()
	v.once.Do(func() {
		time.AfterFunc(startGrace, v.settle)
		go func() {
			defer close(v.done)
			if v.prober != nil {
				v.prober.run(v.ctx)
			}
		}()
	})
}

// stop ends the probes and waits for their end.
func (v *view) stop() {
	v.cancel()
	v.once.Do(func() { close(v.done) })
	<-v.done
	v.settle()
}

// load returns the state. Before the first outcome it waits for that, but no longer than startGrace after the start, so
// that neither a start nor a reload with a new discovery turns requests away for want of a few milliseconds.
//
// It starts a watcher that does not run yet: a request shows that the config is run, and Caddy may serve it before it
// comes to our app, or never come to that if another app fails to start.
func (v *view) load(ctx context.Context) *state {
	s := v.current.Load()
	if s.reason != ReasonStarting {
		return s
	}
	v.start()
	select {
	case <-v.settled:
	case <-ctx.Done():
	}
	return v.current.Load()
}

// activeKey returns the key of the active node, empty if there is none.
func (v *view) activeKey() string {
	if s := v.current.Load(); s.active() {
		return s.node.key()
	}
	return ""
}

// reported returns the nodes of the last report.
func (v *view) reported() []Node {
	v.watcher.mu.Lock()
	defer v.watcher.mu.Unlock()
	return v.nodes
}

// judge takes the verdict of a probe into account, unless what discovery says of the node has changed since: then
// another probe is under way.
func (v *view) judge(n Node, verdict verdict) {
	v.watcher.mu.Lock()
	defer v.watcher.mu.Unlock()
	spoke := v.silent == n.key()
	if spoke {
		v.silent = ""
	}
	news := v.verdicts[n.key()] != verdict && slices.ContainsFunc(v.nodes, n.saysSame)
	if news {
		v.verdicts[n.key()] = verdict
	}
	if news || spoke {
		v.again()
	}
}

// mute has requests that can wait do so until a node has answered its probe.
func (v *view) mute(key string) {
	v.watcher.mu.Lock()
	defer v.watcher.mu.Unlock()
	v.silent = key
	v.again()
}

// again applies the last report again. The watcher's mutex is held.
func (v *view) again() {
	r := v.watcher.report
	r.at = time.Now()
	v.apply(r)
}

// judged returns the nodes of a report with the verdicts of the probes. A verdict on a node of which discovery has
// something new no longer counts: the node is probed again at once.
func (v *view) judged(r report) []Node {
	if v.prober == nil {
		return r.nodes
	}
	before := make(map[string]*Node, len(v.nodes))
	for i := range v.nodes {
		before[v.nodes[i].key()] = &v.nodes[i]
	}
	news := len(v.nodes) != len(r.nodes)
	nodes := slices.Clone(r.nodes)
	for i := range nodes {
		n := &nodes[i]
		if old := before[n.key()]; old == nil || !old.saysSame(*n) {
			news = true
			delete(v.verdicts, n.key())
		}
		n.verdict = v.verdicts[n.key()]
		if r.failure != "" && n.health() == healthCritical {
			n.Checks = nil // outdated: the node knows better
		}
	}
	here := keysOf(nodes)
	maps.DeleteFunc(v.verdicts, func(key string, _ verdict) bool { return !here[key] })
	v.nodes = r.nodes
	if news {
		v.prober.poke()
	}
	return nodes
}

// awaited reports whether the node's first probe is still to be waited for.
func (v *view) awaited(n Node) bool {
	_, err := v.addressing.target(&n)
	return v.probing && !n.verdict.known && err == nil
}

// apply makes the next state from a report. The watcher's mutex is held.
func (v *view) apply(r report) {
	prev := v.current.Load()
	incumbent := ""
	if v.last != nil {
		incumbent = v.last.key()
	}
	nodes := v.judged(r)
	e := elect(nodes, v.policy, incumbent)
	next := &state{
		node: e.node, target: e.target, reason: e.reason, detail: e.detail,
		nodes: len(nodes), candidates: len(e.contenders), changes: prev.changes,
		polled: r.polled, made: r.at, loop: prev.loop, changed: make(chan struct{}),
	}
	// A failure, or an answer that may lack what was kept from us, is no proof that the last node is gone. Where nodes
	// are probed, they prove it themselves.
	cause := r.failure
	if cause == "" && e.node == nil {
		cause = r.doubt
	}
	if cause != "" {
		next.reason, next.detail = cause, cmp.Or(r.detail, e.detail)
		if !v.probing {
			next.keep(v.last, r.nodes, v.addressing)
			next.stale = cmp.Or(prev.stale, r.failing, r.at)
			next.expiry = next.stale.Add(v.maxStale)
		}
	}
	if next.node == nil && prev.reason == ReasonStarting && slices.ContainsFunc(nodes, v.awaited) {
		next.reason = ReasonStarting
	}
	v.last = next.node
	if next.node != nil && next.target.url != v.url {
		v.url = next.target.url
		next.loop = new(sync.Once)
		next.changes++
	}
	if next.node != nil && next.node.key() == v.silent {
		next.mute = cmp.Or(prev.mute, next.made)
	}
	if next.node == nil {
		next.lost = prev.lostAt()
		if prev.activeAt(next.made) {
			next.lost = next.made
		}
	}
	v.current.Store(next)
	close(prev.changed)
	if next.reason != ReasonStarting {
		v.settle()
		v.log(prev, next)
	}
	if len(e.contenders) > 1 && !slices.Equal(e.contenders, v.contenders) {
		v.logs.latest().Warn("several nodes are marked as active", zap.Strings("nodes", e.contenders), zap.String("elected", e.node.key()))
	}
	v.contenders = e.contenders
}

// keep gives the state the last known node where the election gave it none. What the answer does show of that node, such
// as a critical check, is no matter of doubt: then it is not kept.
func (s *state) keep(last *Node, nodes []Node, a addressing) {
	if s.node != nil || last == nil || slices.ContainsFunc(nodes, func(n Node) bool { return n.key() == last.key() }) {
		return
	}
	if t, err := a.target(last); err == nil {
		s.node, s.target = last, t
	}
}

// log tells transitions, each once.
func (v *view) log(prev, next *state) {
	was, is := prev.activeAt(prev.made), next.activeAt(next.made)
	switch {
	case is && (!was || prev.target.url != next.target.url):
		v.logs.latest().Info("active node", zap.String("node", next.node.Name), zap.String("url", next.target.url),
			zap.String("previous", prev.target.url))
	case !is && (was || prev.reasonAt(prev.made) != next.reasonAt(next.made)):
		v.logs.latest().Warn("no active node", zap.String("reason", string(next.reasonAt(next.made))), zap.String("detail", next.detail),
			zap.Int("nodes", next.nodes), zap.String("previous", prev.target.url))
	}
}
