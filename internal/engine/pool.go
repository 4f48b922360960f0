// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package engine knows which node of a Vault cluster is active.
//
// What is known flows one way. A [discovery.Source] is queried by a watcher, which reports the full set of nodes to its
// views. A [View] has the nodes probed, elects one, derives the phase (see [Phase]) and publishes an immutable [State],
// which any number of readers load with one atomic load. One goroutine writes the states of a view, and nobody else.
//
// A [Pool] shares watchers and views between all who want to know the same, and lets a new view begin with what the one
// that it replaces knew. The engine knows nothing of Caddy, of Consul or of HTTP servers.
package engine

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Pool has the watchers and views of a process. Create it with NewPool.
type Pool struct {
	dial   dialFunc      // of probes
	ending chan struct{} // closed when the process is about to end
	end    func()

	mu      sync.Mutex
	views   []*View       // in the order in which they were made
	config  uint64        // number of the config whose handlers acquire views now
	arrival chan struct{} // closed when the next view comes into use

	listening sync.Mutex
	listeners []*listener
}

// dialFunc connects to a node.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// NewPool returns an empty pool.
func NewPool() *Pool {
	p := &Pool{dial: new(net.Dialer).DialContext, ending: make(chan struct{}), arrival: make(chan struct{})}
	p.end = sync.OnceFunc(func() { close(p.ending) })
	return p
}

// NextConfig is called before the handlers of another config acquire views. A view of theirs may replace one of an earlier
// config, and count on where that one is; those of one config stand side by side.
func (p *Pool) NextConfig() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config++
}

// Acquire returns the view for a config on a discovery, a new one only if there is none. It uses no network: Start does.
// Give it back by Release with the same logger, which takes what there is to log meanwhile.
func (p *Pool) Acquire(d discovery.Discoverer, c Config, log *zap.Logger) (*View, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.selection = d.Selection()
	if c.selection.Mode == discovery.ByProbe { // nothing but the nodes' own word tells which one is active
		if c.Probe.Mode == ProbeOff {
			return nil, errors.New("the discovery does not know which node is active, so the nodes must be probed")
		}
		c.Probe.Mode = ProbeStrict
	}
	w, v := p.find(d.Key(), c)
	if v == nil {
		if w == nil {
			var err error
			if w, err = newWatcher(p, d); err != nil {
				return nil, err
			}
		}
		v = newView(c, w, p.predecessor(w, c, p.config))
		v.born = p.config
		v.counters.Store(p.counted(v))
		p.views = append(p.views, v)
		w.add(v)
	}
	if v.users++; v.users == 1 {
		v.used, v.retired = p.config, make(chan struct{})
		close(p.arrival) // for those who wait for one that takes the place of theirs
		p.arrival = make(chan struct{})
	}
	if v.config != p.config {
		v.config, v.beside = p.config, false
		p.keepStats(v)
	}
	for _, o := range p.views {
		if o != v && o.config == p.config && o.watcher.sameCluster(v.watcher) {
			o.beside, v.beside = true, true
		}
	}
	v.logs.add(log)
	v.watcher.logs.add(log)
	return v, nil
}

// find returns the watcher with a key and its view with a config, as far as there are any.
func (p *Pool) find(key string, c Config) (w *watcher, v *View) {
	for _, o := range p.views {
		if o.watcher.discoverer.Key() != key {
			continue
		}
		w = o.watcher
		if o.Config.same(c) {
			return w, o
		}
	}
	return w, nil
}

// predecessor returns the view that knows best what a view with a config on a watcher is to begin with, nil if there is
// none: of the views on the same cluster that know anything the latest of those that are most like it. One that was made in
// the config with a number, or later, knows no more than those before it.
func (p *Pool) predecessor(w *watcher, c Config, config uint64) (best *View) {
	most := 0
	for _, v := range p.views {
		if v.born >= config {
			continue
		}
		if likeness := v.likeness(w, c); likeness > 0 && likeness >= most {
			best, most = v, likeness
		}
	}
	return best
}

// likeness says how much a view has in common with another one. 0: nothing, or it knows nothing yet.
func (v *View) likeness(w *watcher, c Config) (n int) {
	switch {
	case !w.sameCluster(v.watcher), v.current.Load().phase.Situation == Starting:
		return 0
	case v.watcher == w:
		n = 8
	}
	if v.selection == c.selection { // else another node may be marked
		n += 16
	}
	if v.Addressing == c.Addressing { // so that nodes were probed at the same addresses
		n += 4
	}
	if v.Name == c.Name {
		n += 2
	}
	return n + 1
}

// counted returns what was counted under the name of a new view by the one of an earlier config that it replaces.
func (p *Pool) counted(v *View) *Stats {
	var best *View
	for _, o := range p.views {
		if !v.watcher.sameCluster(o.watcher) || o.Name != v.Name || o.config >= p.config || p.taken(o.Stats(), v) {
			continue
		}
		if best == nil || o.Addressing == v.Addressing || best.Addressing != v.Addressing {
			best = o
		}
	}
	if best == nil {
		return newStats()
	}
	return best.Stats()
}

// taken reports whether another view of this config than v has taken over what was counted.
func (p *Pool) taken(s *Stats, v *View) bool {
	return slices.ContainsFunc(p.views, func(o *View) bool { return o != v && o.config == p.config && o.Stats() == s })
}

// keepStats has a view that lives on in this config keep what it has counted: one of the same name may have been acquired
// before it, and has taken that for its own. It does not run yet.
func (p *Pool) keepStats(v *View) {
	for _, o := range p.views {
		if o != v && o.config == p.config && o.Stats() == v.Stats() {
			o.counters.Store(p.counted(o))
		}
	}
}

// Release gives a view back. It is ended with its last user, or with the last request that waits on it, and the watcher
// with its last view. Release never waits for long.
func (v *View) Release(log *zap.Logger) {
	p := v.pool
	p.mu.Lock()
	v.logs.remove(log)
	v.watcher.logs.remove(log)
	if v.users--; v.users == 0 {
		close(v.retired)
	}
	stop := p.drop(v)
	p.mu.Unlock()
	stop()
}

// drop takes a view that nobody needs any more out of the pool, and returns what is to be done about it without the lock.
func (p *Pool) drop(v *View) (stop func()) {
	if v.users > 0 || v.guests > 0 {
		return func() {}
	}
	p.views = slices.DeleteFunc(p.views, func(o *View) bool { return o == v })
	v.watcher.remove(v)
	if v.counts() { // a config that came to nothing: the one before goes on
		var heir *View
		for _, o := range p.views {
			if o.Stats() == v.Stats() {
				heir = o
			}
		}
		v.Stats().counter.Store(heir)
	}
	last := !slices.ContainsFunc(p.views, func(o *View) bool { return o.watcher == v.watcher })
	return func() {
		v.end()
		if last {
			v.watcher.stop()
		}
	}
}

// Views returns the views that are in use now, in the order in which they were made. One that merely lives on for
// requests that wait is not among them.
func (p *Pool) Views() []*View {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.views), func(v *View) bool { return v.users == 0 })
}

// Users returns how many have acquired a view on the discovery with a key, and not released it yet.
func (p *Pool) Users(key string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.views {
		if v.watcher.discoverer.Key() == key {
			n += v.users
		}
	}
	return n
}

// End gives back all requests that wait, now and from now on: the process is about to end.
func (p *Pool) End() { p.end() }
