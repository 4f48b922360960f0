// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
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
	Standbys   bool // find the standbys that serve reads, see [Standby]. It takes probes

	selection discovery.Selection // the discoverer's
}

// key returns what tells configs apart: TLSKey stands for TLS.
func (c Config) key() Config {
	c.Probe.TLS = nil
	return c
}

// View elects the active node of a cluster by one config, for any number of readers. It is shared by all handlers whose config
// is the same, across reloads.
type View struct {
	Config
	cluster *Cluster
	watcher *watcher
	current atomic.Pointer[State] // nil once the view has ended
	final   *State                // the last one, once the view has ended
	stats   atomic.Pointer[Stats]
	logs    loggers

	// What needs the view. It is guarded by the pool.
	users        int    // handlers that have acquired and not released it
	waiting      int    // requests that wait on it
	number       uint64 // of the last config in which a handler acquired it
	oneOfSeveral bool   // that config has sites with other addresses on the same cluster

	// What the view remembers from one state to the next, besides the state. It is guarded by the pool.
	began    time.Time // when it was started; zero: not yet
	members  []member
	lost     time.Time          // when the last active node was lost
	lostNode discovery.Identity // which one, until another node is active
	warned   map[string]string  // about what, by what was wrong
}

// started reports whether the view probes, logs and counts. Until then its config may come to nothing.
func (v *View) started() bool { return !v.began.IsZero() }

// Start starts the watcher and the probes unless they run already.
func (v *View) Start() {
	c := v.cluster
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if v.started() || v.current.Load() == nil {
		return
	}
	now := time.Now()
	v.began = now
	v.deriveFirst(now) // logged and counted now: the config may have no address for the node that was active
	c.changed.send()
	c.plan(now)
	c.log.start(c.ctx)
	v.watcher.start()
}

// Release gives a view back. The view ends with its last user or the last request that waits on it, and the watcher with its
// last view. Release never waits for long.
func (v *View) Release(log *zap.Logger) {
	v.logs.remove(log)
	v.watcher.logs.remove(log)
	v.need(-1, 0)
}

// need adds to the users and waiting requests that need the view. It reports false if the view has ended already.
func (v *View) need(users, waiting int) bool {
	v.cluster.pool.mu.Lock()
	if v.current.Load() == nil {
		v.cluster.pool.mu.Unlock()
		return false
	}
	v.users += users
	v.waiting += waiting
	stop := func() {}
	if v.users == 0 && v.waiting == 0 {
		stop = v.cluster.drop(v)
	}
	if users != 0 { // before stop, which may take a while: another view may serve the site now
		v.cluster.changed.send()
	}
	v.cluster.pool.mu.Unlock()
	stop()
	return true
}

// State returns what is known now: one atomic load. For a view that has ended, it is the state of the view that serves its site
// now, else the last one of its own.
func (v *View) State() *State {
	if s := v.current.Load(); s != nil {
		return s
	}
	if site := v.servedBy(); site != v {
		return site.State()
	}
	return v.final
}

// servedBy returns the view that serves the site of this one now, itself if none does. It may be of another cluster, if that of this
// view has ended meanwhile.
func (v *View) servedBy() *View {
	c := v.cluster
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if v.current.Load() == nil {
		if c = c.pool.watched(v.watcher.discoverer); c == nil {
			return v
		}
	}
	return cmp.Or(c.serving(v), v)
}

// Changed returns a channel that is closed when any view of the cluster gets another state. Get the channel before the state.
func (v *View) Changed() <-chan struct{} { return v.cluster.changed.next() }

// Stats returns the counters of the view, which earlier views may have begun.
func (v *View) Stats() *Stats { return v.stats.Load() }

// records reports whether this view counts, remembers and announces what happens. While one config replaces another, two views
// with the same counters see it.
func (v *View) records() bool {
	if !v.started() {
		return false
	}
	for _, o := range v.cluster.views {
		if o.number > v.number && o.started() && o.Stats() == v.Stats() {
			return false
		}
	}
	return true
}

// WithoutActive returns how long no node was active since the first one was seen. It never falls: between the state with the
// next active node and the count of the outage before it, it is what it was.
func (v *View) WithoutActive(now time.Time) time.Duration {
	stats := v.Stats()
	d := stats.without.Load()
	if p := v.State().PhaseAt(now); p.Situation == None && !p.Time.IsZero() {
		d += int64(max(0, now.Sub(p.Time)))
	}
	for {
		shown := stats.shown.Load()
		if d <= shown || stats.shown.CompareAndSwap(shown, d) {
			return time.Duration(max(d, shown))
		}
	}
}

// Digest tells the view from others of the same name, in hexadecimal.
func (v *View) Digest() string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %+v", v.watcher.key, v.Config.key())))
}

// Waiting returns how many requests wait at the site that the view serves, also those that came before a reload.
func (v *View) Waiting() (n int64) {
	v.cluster.pool.mu.Lock()
	defer v.cluster.pool.mu.Unlock()
	for _, o := range v.cluster.views {
		if o == v || v.cluster.serving(o) == v {
			n += int64(o.waiting)
		}
	}
	return n
}

// refresh derives the next state and reports whether it differs. Until the view is started, that is the first one again.
func (v *View) refresh(now time.Time) (changed bool) {
	if v.started() {
		return v.derive(v.current.Load(), now)
	}
	return v.deriveFirst(now)
}

// deriveFirst derives the first state. It follows from that of the running view that has most in common with this one, as any
// other state follows from the one before.
func (v *View) deriveFirst(now time.Time) (changed bool) {
	from := v.closestRunning()
	v.findNodes(from, now)
	return v.derive(v.carryOver(from, now), now)
}

// carryOver returns the state of another view with the addresses of this one. Without another view, nothing is known.
func (v *View) carryOver(from *View, now time.Time) *State {
	if from == nil {
		return &State{reason: discovery.ReasonStarting, LoopSeen: new(sync.Once)}
	}
	s := *from.current.Load()
	s.phase, s.reason, s.LoopSeen = s.PhaseAt(now), s.ReasonAt(now), new(sync.Once)
	v.applyProbes(now)
	if m := v.member(s.Node.Identity()); m != nil && m.bad == "" && s.phase.HasTarget() {
		s.Target, s.lastNode, s.lastURL = m.target, m.node.Name, m.target.URL
	}
	return &s
}

// closestRunning returns the running view that has most in common with this one and knows anything; nil if there is none.
func (v *View) closestRunning() *View {
	return v.cluster.closest(v, func(o *View) bool { return o.started() && o.current.Load().phase.Situation != Starting })
}

// findNodes reads from the last report which nodes there are. What is new of a node is told by what another view, or this one,
// read before.
func (v *View) findNodes(last *View, now time.Time) {
	var before map[discovery.Identity]*member
	if last != nil {
		before = byIdentity(last.members)
	}
	r := &v.watcher.report
	members := membersOf(r.all(), v.selection, v.Addressing)
	for i := range members {
		m := &members[i]
		m.hidden = i >= len(r.nodes)
		if v.Probe.Mode != ProbeOff && m.direct.URL != "" {
			v.findProbed(m, before[m.node.Identity()], last == v, now)
		}
	}
	v.members = append(members, departures(members, last)...)
}

// departures returns the nodes of another view, or of this one before, that are no longer registered, but were active, and say that
// they are: that Vault is gone from Consul does not mean that it is gone. One in maintenance is.
func departures(registered []member, last *View) (list []member) {
	if last == nil {
		return nil
	}
	for i := range last.members {
		m := last.members[i]
		if m.probed == nil || m.probed.verdict.kind != verdictActive || m.health == healthMaintenance || m.bad != "" || m.hidden ||
			slices.ContainsFunc(registered, func(o member) bool { return o.node.Identity() == m.node.Identity() || o.target.URL == m.target.URL }) {
			continue
		}
		if !m.gone { // a Vault that stops closes its listener, and then removes its registration
			m.gone, m.goneOf = true, m.probed.outcome.ClusterID
			m.probed.schedule.asap, m.probed.silence.unconfirmed = true, true
		}
		m.marked, m.index, m.health, m.own = false, 0, healthPassing, healthPassing
		list = append(list, m)
	}
	return list
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
