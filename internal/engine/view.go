// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the view, which makes states from what its watcher reports and its probes find.

package engine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Config is what a view depends on besides the discovery.
type Config struct {
	Name       string // of the cluster, for people
	Addressing Addressing
	MaxStale   time.Duration // how long the last known node is used while discovery proves nothing
	Probe      Probe

	selection discovery.Selection // the discoverer's
}

// same reports whether two configs can share a view.
func (c Config) same(o Config) bool {
	return c.Probe.same(o.Probe) && c.Name == o.Name && c.Addressing == o.Addressing && c.MaxStale == o.MaxStale && c.selection == o.selection
}

// View elects the active node by one config, for any number of readers. It is shared by all handlers whose config is the
// same, across reloads. One goroutine writes its states.
type View struct {
	Config
	pool     *Pool
	watcher  *watcher
	current  atomic.Pointer[State]
	logs     loggers
	counters atomic.Pointer[Stats] // another one's, if this view takes its place

	once   sync.Once // the goroutine is started, or never will be
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
	news   chan struct{} // has an element when there is a new report
	timer  *time.Timer   // of the goroutine

	// Guarded by the pool.
	users   int           // handlers that have acquired and not released it
	guests  int           // requests that wait on it
	config  uint64        // number of the last config of which a handler has acquired it
	born    uint64        // number of the config in which it was made
	used    uint64        // number of the config since which it has users
	retired chan struct{} // closed when it has no users any more
	beside  bool          // the last config of which a handler has acquired it has others on the same cluster

	// The rest belongs to the goroutine.
	prober     *prober
	began      time.Time
	dropped    *State // of the predecessor, if there is no address for the node that is active in it
	report     report
	due        time.Time        // when the timer fires: what is due then must not be put off by a result that is no news
	undoubted  []discovery.Node // of the last answer that was the whole truth
	members    []member
	candidates []string           // warned about last
	unproven   discovery.Identity // active node that was warned about last because its own word does not count
}

// newView returns a view that knows nothing but what its predecessor, if there is one, knew last.
func newView(c Config, w *watcher, predecessor *View) *View {
	v := &View{Config: c, pool: w.pool, watcher: w, done: make(chan struct{}), news: make(chan struct{}, 1), prober: newProber(c.Probe, w.pool.dial, c.Addressing.Leader())}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	first := &State{reason: discovery.ReasonStarting, LoopSeen: new(sync.Once), changed: make(chan struct{})}
	if predecessor != nil {
		v.inherit(first, predecessor)
	}
	v.current.Store(first)
	return v
}

// Start starts the watcher and the probes unless they run already.
func (v *View) Start() {
	v.once.Do(func() {
		v.Stats().counter.Store(v)
		go v.run()
	})
	v.watcher.start()
}

// State returns what is known now: one atomic load. Of a view that has ended, it is what the one knows that has taken its
// place.
func (v *View) State() *State {
	s := v.current.Load()
	if s.ended != nil {
		return v.pool.known(v, s.ended)
	}
	return s
}

// end ends the view, which is no longer in the pool.
func (v *View) end() {
	v.cancel()
	v.once.Do(func() { close(v.done) })
	await(v.done)
	v.current.Store(&State{reason: discovery.ReasonStarting, ended: v.current.Load()})
}

// Stats returns what the view, and those that it replaced, have counted.
func (v *View) Stats() *Stats { return v.counters.Load() }

// counts reports whether it is this view that counts, remembers and announces. While a config replaces another, two views
// see the same things happen.
func (v *View) counts() bool { return v.Stats().counter.Load() == v }

// WithoutActive returns how long no node was active since the first one was seen. It never falls: between the state with the
// next active node and the count of the outage before it, it is what it was.
func (v *View) WithoutActive(now time.Time) time.Duration {
	counted := v.Stats()
	d := counted.without.Load()
	if p := v.State().PhaseAt(now); p.Situation == None && !p.Time.IsZero() {
		d += int64(max(0, now.Sub(p.Time)))
	}
	for {
		shown := counted.shown.Load()
		if d <= shown || counted.shown.CompareAndSwap(shown, d) {
			return time.Duration(max(d, shown))
		}
	}
}

// Digest tells the view from others of the same name, in hexadecimal.
func (v *View) Digest() string {
	c := v.Config
	c.Probe.TLS = nil
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %+v", v.watcher.discoverer.Key(), c)))
}

// Waiting returns how many requests wait now.
func (v *View) Waiting() int64 {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	return int64(v.guests)
}

// run takes in what comes until the view ends.
func (v *View) run() {
	defer close(v.done)
	defer v.prober.stop()
	v.timer = time.NewTimer(time.Hour)
	defer v.timer.Stop()
	v.begin()
	for {
		incumbent := v.current.Load().identity()
		select {
		case <-v.ctx.Done():
			return
		case <-v.news:
			v.take(v.watcher.latest())
		case r := <-v.prober.results:
			if v.counts() {
				v.Stats().probed(r.finding)
			}
			if !v.prober.hear(r, incumbent) && v.current.Load().phase.Situation != Silent && time.Now().Before(v.due) {
				v.plan()
				continue
			}
		case <-v.prober.broken:
			v.prober.breaks(incumbent)
		case <-v.timer.C:
		}
		v.apply()
	}
}

// take takes over a report: which nodes there are, and what is new of them.
func (v *View) take(r report) {
	if r.number <= v.report.number {
		return
	}
	v.report = r
	if r.polled.IsZero() && len(v.members) > 0 { // a failure; what the predecessor knew is all there is
		return
	}
	nodes, shown := r.nodes, discovery.Identities(r.nodes)
	if r.doubt == "" {
		v.undoubted = r.nodes
	} else { // what the answer may lack is probed on
		nodes = slices.Clone(nodes)
		for _, n := range v.undoubted {
			if !shown[n.Identity()] {
				nodes = append(nodes, n)
			}
		}
	}
	before := make(map[discovery.Identity]*member, len(v.members))
	for i := range v.members {
		before[v.members[i].node.Identity()] = &v.members[i]
	}
	members := v.policy().members(nodes)
	for i := range members {
		members[i].hidden = !shown[members[i].node.Identity()]
	}
	v.prober.sync(members, before, time.Now())
	v.members = members
}

func (v *View) policy() policy { return policy{v.selection, v.Addressing} }

// apply makes the next state of all that is known: listen to the nodes, elect, derive the phase, publish, tell.
func (v *View) apply() {
	now, prev := time.Now(), v.current.Load()
	e := v.elect(prev, now)
	next := v.derive(prev, e, now)
	if !next.same(prev) {
		v.stamp(next, prev, now)
		v.current.Store(next)
		close(prev.changed) // for all who wait, at once
		v.tell(prev, next, e)
	}
	v.plan()
}

// member returns the node with an identity, nil if there is none.
func (v *View) member(id discovery.Identity) *member {
	for i := range v.members {
		if v.members[i].node.Identity() == id {
			return &v.members[i]
		}
	}
	return nil
}

// plan has probed what is to be probed, and sets the timer for what comes next.
func (v *View) plan() {
	now, s := time.Now(), v.current.Load()
	next := time.Hour
	if v.Probe.Mode != ProbeOff {
		next = v.prober.plan(v.ctx, now, s.identity(), v.lostSince())
	}
	if s.phase.Situation == Stale {
		next = soonest(next, s.phase.Time.Sub(now))
	}
	v.due = now.Add(next)
	v.timer.Reset(next)
}

// lostSince returns since when the next active node is searched for.
func (v *View) lostSince() time.Time {
	if p := v.current.Load().Phase(); p.Situation == None && p.Time.After(v.began) {
		return p.Time
	}
	return v.began
}
