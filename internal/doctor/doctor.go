// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package doctor finds out what is wrong with a Vault cluster, with its registration in Consul, and with the way from this machine
// to both.
//
// A [Doctor] makes an [Observation] of each cluster: what an engine knows of it, as in the plugin, and what a single probe sees of
// each node. [Observation.Findings], a pure function, says what that means. Nothing listens, no file is written, and no token is sent
// to Vault.
package doctor

import (
	"cmp"
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/machine"
)

// Doctor observes clusters by an engine of its own. Create it with New.
type Doctor struct {
	pool     *engine.Pool
	log      *zap.Logger
	clusters []*cluster
	queries  map[string]*queries // by the key of a discoverer: those with the same key share a source
}

type cluster struct {
	view       *engine.View
	discoverer *recorder
	config     engine.Config
	sites      []Site
}

// New returns a Doctor without clusters.
func New() *Doctor {
	return &Doctor{pool: engine.NewPool(), log: zap.NewNop(), queries: map[string]*queries{}}
}

// Add adds a cluster. Handlers that would share a view share an observation. It uses no network.
func (d *Doctor) Add(by discovery.Discoverer, config engine.Config, sites ...Site) error {
	if d.queries[by.Key()] == nil {
		d.queries[by.Key()] = new(queries)
	}
	r := &recorder{by, d.queries[by.Key()]}
	view, err := d.pool.Acquire(r, config, d.log)
	if err != nil {
		return err
	}
	for _, c := range d.clusters {
		if c.view == view {
			c.sites = append(c.sites, sites...)
			view.Release(d.log)
			return nil
		}
	}
	d.clusters = append(d.clusters, &cluster{view, r, config, sites})
	return nil
}

// Observe observes all clusters at once. The timeout is that of discovery with the first probes, and again that of each node; a
// query that waits for a change is watched for a tenth of it. It can be called once.
func (d *Doctor) Observe(ctx context.Context, timeout time.Duration) []Observation {
	list := make([]Observation, len(d.clusters))
	for _, c := range d.clusters {
		c.view.Start()
	}
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var group sync.WaitGroup
	for i, c := range d.clusters {
		group.Go(func() {
			c.settle(waiting)
			list[i] = c.observe(ctx, timeout)
		})
	}
	group.Wait()
	for _, c := range d.clusters {
		c.view.Release(d.log)
	}
	return list
}

// settle waits until discovery has answered or failed, and each node was probed: once, or as often as makes it dead if it does not
// answer in time. If standbys are to get reads, it also waits until they have told whether they serve these, for as long.
func (c *cluster) settle(ctx context.Context) {
	for began, changed := time.Now(), c.view.Changed(); !c.settled(time.Since(began)); changed = c.view.Changed() {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(20 * time.Millisecond): // a failed query may change no state, and neither does a probe that finds nothing new
		}
	}
}

func (c *cluster) settled(after time.Duration) bool {
	state, probe := c.view.State(), c.config.Probe
	if state.Polled.IsZero() { // the state knows no answer yet
		return c.view.Discovery().Failures > 0
	}
	if probe.Mode == engine.ProbeOff {
		return true
	}
	for _, n := range state.NodeStatuses() {
		switch {
		case n.URL == "":
		case n.Probe.Result == engine.ResultNone,
			(n.Probe.Result == engine.ResultTimeout || n.WhyNoReads == engine.UnknownReads) && after < time.Duration(probe.Fall)*probe.Timeout:
			return false
		}
	}
	return true
}

// nodesAtOnce is how many nodes of a cluster are inspected at once.
const nodesAtOnce = 16

// observe notes what the engine knows, and inspects each node.
func (c *cluster) observe(ctx context.Context, timeout time.Duration) Observation {
	state, status := c.view.State(), c.view.Discovery()
	o := Observation{
		Name: c.config.Name, Endpoint: status.Endpoint, Selection: c.discoverer.Selection(), Mode: c.config.Probe.Mode,
		Verify: c.config.Probe.Verifies(), Standbys: c.config.Standbys, Sites: c.sites, Here: machine.Own(),
		Reason: state.ReasonAt(time.Now()), Detail: state.Detail, By: state.By, Candidates: state.Candidates,
	}
	if n, ok := c.discoverer.Discoverer.(discovery.SourceNamer); ok {
		o.Source = n.SourceName()
	}
	if c.discoverer.queries.describe(&o); !o.Asked {
		o.Took = timeout
	}
	slots := make(chan struct{}, nodesAtOnce)
	var group sync.WaitGroup
	o.Nodes = label(state.NodeStatuses())
	for i := range o.Nodes {
		n := &o.Nodes[i]
		if n.URL == "" {
			continue
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			limited, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			n.Inspection = engine.Inspect(limited, n.URL, n.Node.ServerName, c.config.Probe.TLS)
		})
	}
	o.Blocking = c.discoverer.queries.await(ctx, timeout/blockingPart)
	group.Wait()
	o.Now = time.Now()
	return o
}

// label names the nodes: by their names if these differ, else by their addresses, too.
func label(list []engine.NodeStatus) []Node {
	nodes, times := make([]Node, len(list)), map[string]int{}
	for _, n := range list {
		times[n.Node.Name]++
	}
	for i, n := range list {
		nodes[i] = Node{NodeStatus: n, Label: n.Node.Name}
		if times[n.Node.Name] > 1 {
			_, authority, _ := strings.Cut(n.URL, "://")
			if host, _, err := net.SplitHostPort(authority); err == nil && host == n.Node.Name {
				nodes[i].Label = authority
				continue
			}
			nodes[i].Label = n.Node.Name + "/" + cmp.Or(authority, n.Node.ID)
		}
	}
	return nodes
}
