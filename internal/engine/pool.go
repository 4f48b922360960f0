// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package engine knows which node of a Vault cluster is active.
//
// What is known flows one way. A watcher queries a [discovery.Source] and reports the full set of nodes to its [Cluster]. The
// cluster probes the nodes and owns all that is known of them. A [View] is a cluster and a config: it elects one node, finds the
// standbys that serve reads beside it (see [Standby]), derives the phase (see [Phase]) and publishes an immutable [State], which
// readers get with one atomic load. Requests that find no active node wait until the cluster changes.
//
// A reload gives handlers other views of the same cluster. It must lose nothing of what is known:
//
//   - An unchanged config keeps its view. A changed one causes no 503 and no second query. Only a discovery with changed
//     settings gets another watcher, which counts from its first answer or failure on.
//   - The first State of a view follows from what the cluster knows and from the State of the running view that has most in
//     common with it: the active node, since when there is none, until when a stale one is used, what probes found. An outage
//     or a failover goes on through a reload, no younger than it was.
//   - A view that is not started yet uses no network, and logs, counts and announces nothing: its config may come to nothing.
//   - Counters and history continue under the name of the cluster, for one view of each config.
//   - A request that waits goes on waiting, with the deadline that it had. It gets the node that its own view finds, or the view
//     that serves its site now, whichever is first, and never an address that is meant for another site.
//   - Goroutines and connections after many reloads are those after one.
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

// Pool holds the clusters of a process. NewPool makes one.
type Pool struct {
	dial   dialFunc        // of probes
	ending context.Context // ends when the process is about to
	end    context.CancelFunc

	mu        sync.Mutex // of all that is known. No I/O holds it up, and no request that is answered at once takes it
	clusters  []*Cluster
	config    uint64 // number of the config in which handlers acquire views now
	listeners []func(Event)
}

// dialFunc connects to a node.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// NewPool returns an empty pool.
func NewPool() *Pool {
	p := &Pool{dial: new(net.Dialer).DialContext}
	p.ending, p.end = context.WithCancel(context.Background())
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
// Log lines go to the logger until Release is called with it.
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
	cluster := p.watched(d)
	if cluster == nil {
		cluster = newCluster(p)
	}
	v, err := cluster.acquire(d, c, log)
	if err == nil && !slices.Contains(p.clusters, cluster) {
		p.clusters = append(p.clusters, cluster)
	}
	return v, err
}

// watched returns the cluster that a discovery watches, be it by other settings than those that are used already; nil if it is not
// watched yet.
func (p *Pool) watched(d discovery.Discoverer) *Cluster {
	key, name := d.Key(), d.Cluster()
	for _, c := range p.clusters {
		for _, v := range c.views {
			if v.watcher.key == key || name != "" && v.watcher.discoverer.Cluster() == name {
				return c
			}
		}
	}
	return nil
}

// Users returns how many handlers use views on the discovery with a key.
func (p *Pool) Users(key string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clusters {
		for _, v := range c.views {
			if v.watcher.key == key {
				n += v.users
			}
		}
	}
	return n
}

// End ends the wait of all requests, now and from now on: the process is about to end.
func (p *Pool) End() { p.end() }
