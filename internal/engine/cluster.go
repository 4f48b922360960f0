// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Cluster is a Vault cluster with all that is known of it: what its watchers report and what probes found. Its views are
// derived from that. It lives as long as a config, or a request that waits, needs one of them.
type Cluster struct {
	pool    *Pool
	log     *logQueue
	changed broadcast // sent when a view gets another state, and when another view may serve a site

	ctx    context.Context // of probes and log lines
	cancel context.CancelFunc
	slots  chan struct{}  // limits how many probes are under way
	probes sync.WaitGroup // those under way

	// The rest is guarded by the pool.
	nodes  map[nodeKey]*probedNode
	views  []*View // in the order in which they were made
	timer  *time.Timer
	due    time.Time // when a probe begins, or a state that follows from nothing but time
	looked time.Time // when the traffic was last looked at
	flows  bool      // there was any then
	unable bool      // this machine cannot open connections for probes
}

func newCluster(p *Pool) *Cluster {
	c := &Cluster{pool: p, log: newLogQueue(), slots: make(chan struct{}, probesAtOnce), nodes: map[nodeKey]*probedNode{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.timer = time.AfterFunc(time.Hour, func() { c.update(func(time.Time) bool { return false }) })
	c.timer.Stop() // until something is planned
	c.changed.send()
	return c
}

// acquire returns the view for a config on a discovery to a handler.
func (c *Cluster) acquire(d discovery.Discoverer, config Config, log *zap.Logger) (*View, error) {
	v := c.find(d.Key(), config)
	if v.watcher == nil {
		w, err := newWatcher(c, d)
		if err != nil {
			return nil, err
		}
		if o := c.closest(v, func(*View) bool { return true }); o != nil { // its nodes are used until the new watcher has an answer
			w.report.nodes = o.watcher.report.all()
			w.report.complete = w.report.nodes
		}
		v.watcher = w
	}
	if v.users++; v.current.Load() == nil {
		v.stats.Store(c.statsFor(v))
		c.views = append(c.views, v)
		v.refresh(time.Now())
	}
	if v.number != c.pool.config || v.users == 1 {
		c.place(v)
	}
	v.logs.add(log)
	v.watcher.logs.add(log)
	c.changed.send()
	return v, nil
}

// find returns the view with a config on the discovery with a key, or a new one; its watcher is nil if there is none yet.
func (c *Cluster) find(key string, config Config) *View {
	v := &View{Config: config, cluster: c, warned: map[string]string{}}
	for _, o := range c.views {
		if o.watcher.key != key {
			continue
		}
		if v.watcher = o.watcher; o.Config.key() == config.key() {
			return o
		}
	}
	return v
}

// place makes a view part of the config in which handlers acquire views now.
func (c *Cluster) place(v *View) {
	v.number, v.oneOfSeveral = c.pool.config, false
	for _, o := range c.views {
		if o == v || o.number != v.number {
			continue
		}
		if o.Stats() == v.Stats() { // o was acquired first, and took the counters that v continues
			o.stats.Store(c.statsFor(o))
		}
		if o.Addressing != v.Addressing {
			o.oneOfSeveral, v.oneOfSeveral = true, true
		}
	}
}

// statsFor returns the counters for a view of the config in which handlers acquire views now: those of an earlier view of the same
// name, unless another view of this config has them already.
func (c *Cluster) statsFor(v *View) *Stats {
	number := c.pool.config
	earlier := c.closest(v, func(o *View) bool {
		return o.Name == v.Name && o.number < number &&
			!slices.ContainsFunc(c.views, func(u *View) bool { return u != v && u.number == number && u.Stats() == o.Stats() })
	})
	if earlier == nil {
		return newStats()
	}
	return earlier.Stats()
}

// closest returns the view that has most in common with another one, the latest of several; nil if none is eligible. It is the
// only place that says which view goes with which.
func (c *Cluster) closest(v *View, eligible func(*View) bool) (best *View) {
	most := 0
	for _, o := range c.views {
		if o == v || !eligible(o) {
			continue
		}
		common := 1
		if o.selection == v.selection { // else another node may be marked
			common += 8
		}
		if o.watcher == v.watcher {
			common += 4
		}
		if o.Addressing == v.Addressing { // so that nodes are probed at the same addresses
			common += 2
		}
		if o.Name == v.Name {
			common++
		}
		if common >= most {
			best, most = o, common
		}
	}
	return best
}

// serving returns the view that serves the site of a view now: the view itself while handlers use it; nil if none does. Where a
// cluster has several sites, a view with another address may be for other clients.
func (c *Cluster) serving(v *View) *View {
	if v.users > 0 {
		return v
	}
	return c.closest(v, func(o *View) bool {
		return o.users > 0 && o.started() && (o.Addressing == v.Addressing || !v.oneOfSeveral && !o.oneOfSeveral)
	})
}

// drop ends a view that nothing needs any more, with the last one its watcher, and with the last of all the cluster. It returns
// what remains to be done without the lock.
func (c *Cluster) drop(v *View) (stop func()) {
	c.views = slices.DeleteFunc(c.views, func(o *View) bool { return o == v })
	v.final = v.current.Load()
	v.current.Store(nil)
	c.forgetNodes()
	watched := slices.ContainsFunc(c.views, func(o *View) bool { return o.watcher == v.watcher })
	if len(c.views) == 0 {
		c.pool.clusters = slices.DeleteFunc(c.pool.clusters, func(o *Cluster) bool { return o == c })
		c.cancel()
		c.timer.Stop()
	}
	return func() {
		if !watched {
			v.watcher.stop()
		}
		if c.ctx.Err() != nil {
			await(&c.probes)
		}
	}
}

// update takes in what has happened, by a function that reports whether that is news. If so every view is derived anew, and also
// if anything else was due by now: silence begins without news.
func (c *Cluster) update(takeIn func(now time.Time) (news bool)) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	now := time.Now()
	if takeIn(now) || !now.Before(c.due) {
		c.refresh(now, func(*View) bool { return true })
	}
	c.plan(now)
}

// refresh derives some of the views anew.
func (c *Cluster) refresh(now time.Time, some func(*View) bool) {
	changed := false
	for _, v := range c.views {
		changed = some(v) && v.refresh(now) || changed
	}
	if changed {
		c.changed.send()
	}
}

// broadcast wakes all that wait on it.
type broadcast struct{ channel atomic.Pointer[chan struct{}] }

// next returns a channel that is closed by the next send.
func (b *broadcast) next() <-chan struct{} { return *b.channel.Load() }

// send must be called once before next is.
func (b *broadcast) send() {
	c := make(chan struct{})
	if last := b.channel.Swap(&c); last != nil {
		close(*last)
	}
}
