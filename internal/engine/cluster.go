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

// Cluster is a Vault cluster with all that is known of it: what its watchers report, and what probes found. Its views are
// derived from that. It lives for as long as any config, or any request that waits, needs one of them.
type Cluster struct {
	pool    *Pool
	log     *logQueue
	changed broadcast // sent when a view has another state, or a site is served by another view

	ctx    context.Context // of probes and log lines
	cancel context.CancelFunc
	slots  chan struct{}  // bounds the probes that are under way
	probes sync.WaitGroup // that are under way

	mu       sync.Mutex
	watchers []*watcher
	nodes    map[nodeKey]*probedNode
	views    []*View // in the order in which they were made
	timer    *time.Timer
	due      time.Time // when the timer fires: what is due then must not be put off by a result that is no news
}

func newCluster(p *Pool) *Cluster {
	c := &Cluster{pool: p, log: newLogQueue(), slots: make(chan struct{}, probesAtOnce), nodes: map[nodeKey]*probedNode{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.timer = time.AfterFunc(time.Hour, func() { c.update(func(time.Time) bool { return true }) })
	c.timer.Stop() // until something is planned
	c.changed.send()
	return c
}

// isWatchedBy reports whether a discovery watches the cluster, be it by other settings than those that do already.
func (c *Cluster) isWatchedBy(d discovery.Discoverer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.watchers, func(w *watcher) bool {
		name := w.discoverer.Cluster()
		return w.discoverer.Key() == d.Key() || name != "" && name == d.Cluster()
	})
}

// acquire returns the view for a config on a discovery to a handler of the config with a number.
func (c *Cluster) acquire(d discovery.Discoverer, config Config, number uint64, log *zap.Logger) (*View, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.find(d.Key(), config)
	if v.watcher == nil {
		w, err := newWatcher(c, d)
		if err != nil {
			return nil, err
		}
		if like := c.closest(v, func(*View) bool { return true }); like != nil { // its first answer is waited for with what is known
			w.undoubted = like.watcher.report.all()
			w.report.nodes = w.undoubted
		}
		v.watcher, c.watchers = w, append(c.watchers, w)
	}
	if v.users++; v.current.Load() == nil {
		v.stats.Store(c.statsFor(v, number))
		c.views = append(c.views, v)
		v.refresh(time.Now())
	}
	if v.number != number || v.users == 1 {
		c.place(v, number)
	}
	v.logs.add(log)
	v.watcher.logs.add(log)
	c.findSites()
	return v, nil
}

// find returns the view with a config on the discovery with a key, or a new one; its watcher is nil if there is none yet.
func (c *Cluster) find(key string, config Config) *View {
	v := &View{Config: config, cluster: c}
	for _, w := range c.watchers {
		if w.discoverer.Key() == key {
			v.watcher = w
		}
	}
	for _, o := range c.views {
		if o.watcher == v.watcher && o.Config.same(config) {
			return o
		}
	}
	return v
}

// place notes that a view is one of the config with a number, beside those that are already.
func (c *Cluster) place(v *View, number uint64) {
	v.number, v.oneOfSeveral = number, false
	for _, o := range c.views {
		if o == v || o.number != number {
			continue
		}
		if o.Stats() == v.Stats() { // it was acquired before, and has taken what v has counted and goes on to
			o.stats.Store(c.statsFor(o, number))
		}
		if o.Addressing != v.Addressing {
			o.oneOfSeveral, v.oneOfSeveral = true, true
		}
	}
}

// statsFor returns what a view of the config with a number counts into: what was counted under its name, unless another view
// of this config does already.
func (c *Cluster) statsFor(v *View, number uint64) *Stats {
	last := c.closest(v, func(o *View) bool {
		return o.Name == v.Name && o.number < number &&
			!slices.ContainsFunc(c.views, func(u *View) bool { return u != v && u.number == number && u.Stats() == o.Stats() })
	})
	if last == nil {
		return newStats()
	}
	return last.Stats()
}

// closest returns the other view that has most in common with one, the latest of several, of those that will do.
func (c *Cluster) closest(v *View, willDo func(*View) bool) (best *View) {
	most := 0
	for _, o := range c.views {
		if o == v || !willDo(o) {
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

// serving returns the view that serves the site of a view now: itself while it is in use. Where there are several sites on
// a cluster, one of another address may be that of other clients.
func (c *Cluster) serving(v *View) *View {
	if v.users > 0 {
		return v
	}
	return c.closest(v, func(o *View) bool {
		return o.users > 0 && o.started() && (o.Addressing == v.Addressing || !v.oneOfSeveral && !o.oneOfSeveral)
	})
}

// findSites finds for each view the one that serves its site now, so that requests that wait need no lock to know.
func (c *Cluster) findSites() {
	moved := false
	for _, v := range c.views {
		site := c.serving(v)
		moved = v.site.Swap(site) != site || moved
	}
	if moved {
		c.changed.send()
	}
}

// drop ends a view that nobody needs any more, and with the last one its watcher and the cluster. It returns what is to be
// done about that without the lock.
func (c *Cluster) drop(v *View) (stop func()) {
	defer c.findSites()
	if v.users > 0 || v.waiting > 0 {
		return func() {}
	}
	c.views = slices.DeleteFunc(c.views, func(o *View) bool { return o == v })
	v.final = v.current.Load()
	v.current.Store(nil)
	v.site.Store(nil)
	c.changed.send()
	c.forgetNodes()
	var unused []*watcher
	c.watchers = slices.DeleteFunc(c.watchers, func(w *watcher) bool {
		if slices.ContainsFunc(c.views, func(o *View) bool { return o.watcher == w }) {
			return false
		}
		unused = append(unused, w)
		return true
	})
	return func() {
		c.pool.remove(c)
		for _, w := range unused {
			w.stop()
		}
		if c.ctx.Err() != nil {
			c.awaitProbes()
		}
	}
}

// update has something become known, and every view derived from it unless it is no news.
func (c *Cluster) update(learn func(now time.Time) (news bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	now := time.Now()
	if learn(now) {
		changed := false
		for _, v := range c.views {
			changed = v.refresh(now) || changed
		}
		if changed {
			c.changed.send()
		}
	}
	c.plan(now)
}

// broadcast wakes all who wait, at once.
type broadcast struct{ channel atomic.Pointer[chan struct{}] }

// next returns a channel that is closed by the next send.
func (b *broadcast) next() <-chan struct{} { return *b.channel.Load() }

// send is called once before anybody waits.
func (b *broadcast) send() {
	c := make(chan struct{})
	if last := b.channel.Swap(&c); last != nil {
		close(*last)
	}
}
