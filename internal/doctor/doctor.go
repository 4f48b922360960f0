// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how the doctor has an engine elect the active node, and looks at all nodes.

package doctor

import (
	"cmp"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// Doctor looks at clusters. Create it with New.
type Doctor struct {
	pool     *engine.Pool
	log      *zap.Logger
	patients []*patient
}

// patient is a cluster to look at.
type patient struct {
	view       *engine.View
	discoverer *witness
	config     engine.Config
	sites      []Site
}

// New returns a doctor who has an engine of his own.
func New() *Doctor { return &Doctor{pool: engine.NewPool(), log: zap.NewNop()} }

// Add has a cluster looked at, once for all sites that would share what they know of it. It uses no network.
func (d *Doctor) Add(by discovery.Discoverer, config engine.Config, sites ...Site) error {
	seen := &witness{Discoverer: by}
	for _, p := range d.patients {
		if p.discoverer.Key() == by.Key() {
			seen = &witness{Discoverer: by, record: p.discoverer.record}
		}
	}
	if seen.record == nil {
		seen.record = new(record)
	}
	view, err := d.pool.Acquire(seen, config, d.log)
	if err != nil {
		return err
	}
	for _, p := range d.patients {
		if p.view == view {
			p.sites = append(p.sites, sites...)
			view.Release(d.log)
			return nil
		}
	}
	d.patients = append(d.patients, &patient{view, seen, config, sites})
	return nil
}

// Look looks at all clusters at once. It waits for discovery and for the first probes, at most so long, and then for each
// node, at most so long. The doctor is of no use after it.
func (d *Doctor) Look(ctx context.Context, timeout time.Duration) []Seen {
	list := make([]Seen, len(d.patients))
	for _, p := range d.patients {
		p.view.Start()
	}
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var group sync.WaitGroup
	for i, p := range d.patients {
		group.Go(func() {
			p.settle(waiting)
			list[i] = p.look(ctx, timeout)
		})
	}
	group.Wait()
	for _, p := range d.patients {
		p.view.Release(d.log)
	}
	return list
}

// settle waits until discovery has answered or failed, and each node was probed: once, or as often as it takes to call one
// dead that does not answer in time.
func (p *patient) settle(ctx context.Context) {
	for began, changed := time.Now(), p.view.Changed(); !p.settled(time.Since(began)); changed = p.view.Changed() {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(20 * time.Millisecond): // a failed query may change no state, and a probe that finds nothing new neither
		}
	}
}

func (p *patient) settled(after time.Duration) bool {
	state, probe := p.view.State(), p.config.Probe
	if state.Polled.IsZero() { // the state knows no answer yet
		return p.view.Discovery().Failures > 0
	}
	if probe.Mode == engine.ProbeOff {
		return true
	}
	for _, n := range state.NodeStatuses() {
		switch {
		case n.URL == "":
		case n.Probe.Result == engine.ResultNone,
			n.Probe.Result == engine.ResultTimeout && after < time.Duration(probe.Fall)*probe.Timeout:
			return false
		}
	}
	return true
}

// looksAtOnce is how many nodes of a cluster are looked at at once.
const looksAtOnce = 16

// look notes what the engine knows, and looks at each node.
func (p *patient) look(ctx context.Context, timeout time.Duration) Seen {
	state, status := p.view.State(), p.view.Discovery()
	source, _, _ := strings.Cut(status.Cluster, "\x00")
	s := Seen{
		Name: p.config.Name, Source: source, Endpoint: status.Endpoint, Selection: p.discoverer.Selection(), Mode: p.config.Probe.Mode,
		Verify: p.config.Probe.TLS == nil || !p.config.Probe.TLS.InsecureSkipVerify, Sites: p.sites, Here: addressesHere(),
		Reason: state.ReasonAt(time.Now()), Detail: state.Detail, By: state.By, Candidates: state.Candidates,
	}
	if p.discoverer.tell(&s); !s.Asked {
		s.Took = timeout
	}
	slots := make(chan struct{}, looksAtOnce)
	var group sync.WaitGroup
	s.Nodes = label(state.NodeStatuses())
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.URL == "" {
			continue
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			limited, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			n.Look = look(limited, n.URL, n.Node.ServerName, p.config.Probe.TLS)
		})
	}
	group.Wait()
	s.Now = time.Now()
	return s
}

// label names the nodes: by their names where these tell them apart, else by their addresses as well.
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

// record is what became of the queries of a source.
type record struct {
	mu    sync.Mutex
	asked bool
	took  time.Duration // of the first
	last  discovery.Answer
	err   error
}

// witness is a discoverer whose queries are recorded.
type witness struct {
	discovery.Discoverer
	record *record
}

// Open implements [discovery.Discoverer].
func (w *witness) Open() (discovery.Source, error) {
	s, err := w.Discoverer.Open()
	if err != nil {
		return nil, err
	}
	return &witnessed{s, w.record}, nil
}

// tell says what became of the queries.
func (w *witness) tell(s *Seen) {
	r := w.record
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Asked, s.Took, s.Doubt, s.DoubtWhy = r.asked, r.took, r.last.Doubt, r.last.Detail
	if r.err == nil {
		return
	}
	s.Failure, s.FailedWith = discovery.ReasonConsulError, strings.TrimPrefix(sanitize.Line(r.err.Error()), "consul at "+s.Endpoint+": ")
	if known, ok := errors.AsType[*discovery.Error](r.err); ok {
		s.Failure = known.Reason
	}
}

type witnessed struct {
	discovery.Source
	record *record
}

// Query implements [discovery.Source].
func (w *witnessed) Query(ctx context.Context, index uint64, wait time.Duration) (discovery.Answer, error) {
	began := time.Now()
	a, err := w.Source.Query(ctx, index, wait)
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) { // the doctor is leaving
		return a, err
	}
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	if !w.record.asked {
		w.record.asked, w.record.took = true, time.Since(began)
	}
	w.record.last, w.record.err = a, err
	return a, err
}
