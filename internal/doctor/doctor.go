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
	"slices"
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
}

type cluster struct {
	view       *engine.View
	discoverer discovery.Discoverer
	sites      []Site
}

// New returns a Doctor without clusters.
func New() *Doctor { return &Doctor{pool: engine.NewPool(), log: zap.NewNop()} }

// Add adds a cluster. Handlers that would share a view share an observation. It uses no network.
func (d *Doctor) Add(by discovery.Discoverer, config engine.Config, sites ...Site) error {
	view, err := d.pool.Acquire(by, config, d.log)
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
	d.clusters = append(d.clusters, &cluster{view, by, sites})
	return nil
}

// Observe observes all clusters at once. The timeout is that of discovery with the first probes, and again that of each node; a
// query that waits for a change is watched for a tenth of it. It can be called once.
func (d *Doctor) Observe(ctx context.Context, timeout time.Duration) []*Observation {
	list := make([]*Observation, len(d.clusters))
	var group sync.WaitGroup
	for i, c := range d.clusters {
		group.Go(func() {
			c.view.Start()
			list[i] = c.observe(ctx, timeout)
			c.view.Release(d.log)
		})
	}
	group.Wait()
	return list
}

// settle waits until discovery has answered or failed, and each node was probed: once, or as often as makes it dead if it does not
// answer in time. If standbys are to get reads, it also waits until they have told whether they serve these, for as long.
func (c *cluster) settle(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for began := time.Now(); !c.settled(time.Since(began)); {
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond): // a failed query may change no state, and neither does a probe that finds nothing new
		}
	}
}

func (c *cluster) settled(after time.Duration) bool {
	state, probe := c.view.State(), c.view.Probe
	if state.Polled.IsZero() { // the state knows no answer yet
		return c.view.Discovery().Failures > 0
	}
	return probe.Mode == engine.ProbeOff || !slices.ContainsFunc(state.NodeStatuses(), func(n engine.NodeStatus) bool {
		again := n.Probe.Result == engine.ResultTimeout || n.WhyNoReads == engine.UnknownReads
		return n.URL != "" && (n.Probe.Result == engine.ResultNone || again && after < time.Duration(probe.Fall)*probe.Timeout)
	})
}

// nodesAtOnce is how many nodes of a cluster are inspected at once.
const nodesAtOnce = 16

// observe notes what the engine knows, and inspects each node.
func (c *cluster) observe(ctx context.Context, timeout time.Duration) *Observation {
	o := &Observation{
		Config: c.view.Config, Endpoint: c.discoverer.Endpoint(), Selection: c.discoverer.Selection(), Sites: c.sites, Here: machine.Own(),
	}
	if n, ok := c.discoverer.(discovery.SourceNamer); ok {
		o.Source = n.SourceName()
	}
	var group sync.WaitGroup
	group.Go(func() { o.Queries = query(ctx, c.discoverer, timeout) })
	c.settle(ctx, timeout)
	state := c.view.State()
	o.Reason, o.Detail, o.By, o.Candidates = state.ReasonAt(time.Now()), state.Detail, state.By, state.Candidates
	o.Nodes = label(state.NodeStatuses())
	slots := make(chan struct{}, nodesAtOnce)
	for _, n := range o.Nodes {
		if n.URL == "" {
			continue
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			limited, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			n.Inspection = engine.Inspect(limited, n.URL, n.Node.ServerName, c.view.Probe.TLS)
		})
	}
	group.Wait()
	o.Now = time.Now()
	return o
}

// label names the nodes: by their names if these differ, else by their addresses, too.
func label(list []engine.NodeStatus) (nodes []*Node) {
	times := map[string]int{}
	for _, n := range list {
		times[n.Node.Name]++
	}
	for _, n := range list {
		label := n.Node.Name
		if times[label] > 1 {
			_, authority, _ := strings.Cut(n.URL, "://")
			if host, _, err := net.SplitHostPort(authority); err == nil && host == label {
				label = authority
			} else {
				label += "/" + cmp.Or(authority, n.Node.ID)
			}
		}
		nodes = append(nodes, &Node{NodeStatus: n, Label: label})
	}
	return nodes
}
