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

	"go.uber.org/zap"

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
	probes := c.Probe.same(o.Probe)
	c.Probe, o.Probe = Probe{}, Probe{}
	return probes && c.Name == o.Name && c.Addressing == o.Addressing && c.MaxStale == o.MaxStale && c.selection == o.selection
}

// View elects the active node by one config, for any number of readers. It is shared by all handlers whose config is the
// same, across reloads. One goroutine writes its states.
type View struct {
	Config
	pool    *Pool
	watcher *watcher
	current atomic.Pointer[State]
	waiting atomic.Int64 // requests that wait now
	logs    loggers
	stats   *Stats

	once    sync.Once // the goroutine is started, or never will be
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{} // closed when the goroutine has ended
	news    chan struct{} // has an element when there is a new report
	history history

	// Guarded by the pool.
	users  int // handlers that have acquired and not released it
	guests int // requests that wait on it

	// The rest belongs to the goroutine.
	prober     *prober
	began      time.Time
	report     report
	undoubted  []discovery.Node // of the last answer that was the whole truth
	members    []member
	url        string   // where the node that was active last is reached
	candidates []string // warned about last
}

// newView returns a view that knows nothing but what its predecessor, if there is one, knew last.
func newView(c Config, w *watcher, predecessor *View) *View {
	v := &View{Config: c, pool: w.pool, watcher: w, done: make(chan struct{}), news: make(chan struct{}, 1), prober: newProber(c.Probe, c.Addressing.Leader())}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	first := &State{reason: discovery.ReasonStarting, LoopSeen: new(sync.Once), changed: make(chan struct{})}
	if predecessor != nil {
		v.inherit(first, predecessor)
	}
	if v.stats == nil {
		v.stats = newStats(nil)
	}
	v.current.Store(first)
	return v
}

// Start starts the watcher and the probes unless they run already.
func (v *View) Start() {
	v.watcher.start()
	v.once.Do(func() { go v.run() })
}

// State returns what is known now: one atomic load.
func (v *View) State() *State { return v.current.Load() }

// Stats returns what the view has counted.
func (v *View) Stats() *Stats { return v.stats }

// WithoutActive returns how long no node was active since the first one was seen.
func (v *View) WithoutActive(now time.Time) time.Duration {
	d := time.Duration(v.stats.without.Load())
	if p := v.State().PhaseAt(now); p.Situation == None && !p.Time.IsZero() {
		d += max(0, now.Sub(p.Time))
	}
	return d
}

// Digest tells the view from others of the same name, in hexadecimal.
func (v *View) Digest() string {
	c := v.Config
	c.Probe.TLS = nil
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %+v", v.watcher.discoverer.Key(), c)))
}

// Waiting returns how many requests wait now.
func (v *View) Waiting() int64 { return v.waiting.Load() }

// run takes in what comes until the view ends.
func (v *View) run() {
	defer close(v.done)
	defer v.prober.stop()
	v.begin()
	for {
		incumbent := v.State().identity()
		select {
		case <-v.ctx.Done():
			return
		case <-v.news:
			v.take(v.watcher.latest())
		case r := <-v.prober.results:
			v.stats.probed(r.finding)
			if !v.prober.hear(r, incumbent) {
				v.prober.plan(v.ctx, incumbent, v.lostSince())
				continue
			}
		case <-v.prober.broken:
			v.prober.breaks(incumbent)
		case <-v.prober.wakeups():
		}
		v.apply()
	}
}

// begin begins with what was inherited, until there is a report.
func (v *View) begin() {
	v.began = time.Now()
	if len(v.members) == 0 {
		return
	}
	v.prober.sync(v.members, nil, v.State().identity(), v.began)
	for i := range v.members {
		if s := v.prober.subjects[v.members[i].node.Identity()]; s != nil {
			s.inherit(&v.members[i])
		}
	}
	v.prober.plan(v.ctx, v.State().identity(), v.lostSince())
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
	v.prober.sync(members, before, v.State().identity(), time.Now())
	v.members = members
}

func (v *View) policy() policy { return policy{v.selection, v.Addressing} }

// apply makes the next state of all that is known: listen to the nodes, elect, derive the phase, publish, tell.
func (v *View) apply() {
	now, prev := time.Now(), v.State()
	v.listen(now)
	e := elect(v.members, prev.identity(), v.Probe.Mode == ProbeStrict)
	next := v.derive(prev, e, now)
	if !next.same(prev) {
		v.stamp(next, prev, now)
		v.current.Store(next)
		close(prev.changed) // for all who wait, at once
		v.tell(prev, next, e)
	}
	v.prober.plan(v.ctx, next.identity(), v.lostSince())
}

// listen has the members say what their probes found.
func (v *View) listen(now time.Time) {
	if v.Probe.Mode == ProbeOff {
		return
	}
	claimed := v.prober.anyClaims()
	policy := v.policy()
	for i := range v.members {
		m := &v.members[i]
		s := v.prober.subjects[m.node.Identity()]
		if s == nil {
			m.word = WordPassive // it has no usable address
			continue
		}
		s.impatient(now)
		insists := v.Probe.Mode == ProbeAuto && v.evidence() == whole && m.marked && m.health == healthPassing && !claimed
		if s.believe(insists, now) {
			v.watcher.teller.log(&v.logs, zap.WarnLevel, "node does not answer probes, but discovery insists that it is active: redirecting to it again",
				zap.String("node", m.node.Name), zap.String("url", m.target.URL), zap.String("probe", s.finding.Detail),
				zap.Duration("dead_for", now.Sub(s.died)))
		}
		m.word, m.finding, m.since = s.word, s.finding, s.since
		if s.believed {
			m.word = WordUntold
		}
		policy.locate(m)
	}
}

// lostSince returns since when the next active node is searched for.
func (v *View) lostSince() time.Time {
	if p := v.State().Phase(); p.Situation == None && p.Time.After(v.began) {
		return p.Time
	}
	return v.began
}
