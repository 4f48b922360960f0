// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package engine knows which node of a Vault cluster is active.
//
// What is known flows one way. A [discovery.Source] is queried by a watcher, which reports the full set of nodes to its
// [Cluster]. The cluster probes the nodes and owns all that is known of them. A [View] is a cluster and a config: from what
// the cluster knows it elects one node, derives the phase (see [Phase]) and publishes an immutable [State], which any number
// of readers load with one atomic load. Requests that find no active node wait for the cluster to change.
//
// A reload gives the handlers other views, and must lose nothing of what the cluster knows:
//
//   - A config that is not changed keeps its view, its watcher and its queries. A changed one causes no 503 and no second
//     query; only a discovery whose own settings changed is queried anew, and counts from its first answer or failure on.
//   - The first State of a view follows from what the cluster knows, and from the State of the view that it is most like:
//     which node is active, since when none is, until when the last one known is used, what probes found. So nothing is
//     younger than it was, be it in an outage or in the midst of a failover, and what has expired stays so.
//   - Until a view is started, its config may come to nothing: it uses no network, logs, counts and announces nothing.
//   - Counters and history go on under the name of the cluster, in one view. While a config replaces another, two views see
//     the same things happen, and one of them counts.
//   - A request that waits goes on waiting, no longer than it would have. It is given the node that its own view finds, or
//     the one that serves its site now; never one at the address of another site.
//   - What nobody needs any more ends: goroutines and connections after many reloads are those after one.
//
// The engine knows nothing of Caddy, of Consul or of HTTP servers.
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

// Pool has the clusters of a process. Create it with NewPool.
type Pool struct {
	dial   dialFunc      // of probes
	ending chan struct{} // closed when the process is about to end
	end    func()

	mu       sync.Mutex // taken before that of a cluster
	clusters []*Cluster
	config   uint64 // number of the config whose handlers acquire views now

	listening sync.Mutex
	listeners []func(Event)
}

// dialFunc connects to a node.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// NewPool returns an empty pool.
func NewPool() *Pool {
	p := &Pool{dial: new(net.Dialer).DialContext, ending: make(chan struct{})}
	p.end = sync.OnceFunc(func() { close(p.ending) })
	return p
}

// NextConfig is called before the handlers of another config acquire views. A view of theirs may replace one of an earlier
// config; those of one config stand side by side.
func (p *Pool) NextConfig() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config++
}

// Acquire returns the view for a config on a discovery, a new one only if there is none. It uses no network: Start does.
// Give it back by Release with the same logger, which takes what there is to log meanwhile.
func (p *Pool) Acquire(d discovery.Discoverer, c Config, log *zap.Logger) (*View, error) {
	c.selection = d.Selection()
	if c.selection.Mode == discovery.ByProbe { // nothing but the nodes' own word tells which one is active
		if c.Probe.Mode == ProbeOff {
			return nil, errors.New("the discovery does not know which node is active, so the nodes must be probed")
		}
		c.Probe.Mode = ProbeStrict
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	cluster := p.cluster(d)
	if cluster == nil {
		cluster = newCluster(p)
	}
	v, err := cluster.acquire(d, c, p.config, log)
	if err == nil && !slices.Contains(p.clusters, cluster) {
		p.clusters = append(p.clusters, cluster)
	}
	return v, err
}

// cluster returns the cluster that a discovery watches, nil if nobody does.
func (p *Pool) cluster(d discovery.Discoverer) *Cluster {
	for _, c := range p.clusters {
		if c.isWatchedBy(d) {
			return c
		}
	}
	return nil
}

// serving returns the view that serves the site of one that has ended, nil if none does, and its state.
func (p *Pool) serving(v *View) (*View, *State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cluster(v.watcher.discoverer)
	if c == nil {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v = c.serving(v); v == nil {
		return nil, nil
	}
	return v, v.current.Load()
}

// remove removes a cluster that has no views any more.
func (p *Pool) remove(c *Cluster) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.views) == 0 {
		p.clusters = slices.DeleteFunc(p.clusters, func(o *Cluster) bool { return o == c })
		c.cancel()
		c.timer.Stop()
	}
}

// Users returns how many have acquired a view on the discovery with a key, and not released it yet.
func (p *Pool) Users(key string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clusters {
		c.mu.Lock()
		for _, v := range c.views {
			if v.watcher.discoverer.Key() == key {
				n += v.users
			}
		}
		c.mu.Unlock()
	}
	return n
}

// End gives back all requests that wait, now and from now on: the process is about to end.
func (p *Pool) End() { p.end() }
