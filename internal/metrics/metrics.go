// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package metrics exports the state of the clusters to Prometheus.
package metrics

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/events"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
)

// maxNodeSeries is the largest number of nodes of a cluster for which each node has its own series.
const maxNodeSeries = 64

// Register adds the metrics of all clusters to the registry of a config. It may be called more than once.
func Register(ctx caddy.Context) error {
	err := ctx.GetMetricsRegistry().Register(collector{})
	if known := (prometheus.AlreadyRegisteredError{}); errors.As(err, &known) {
		return nil
	}
	return err
}

// collector reads the views when it is scraped. It keeps no values of its own, so that counters go on after a reload.
type collector struct{}

// describe describes a metric of clusters. Its first label is the cluster's name.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return describeProcess(name, help, append([]string{"cluster"}, labels...)...)
}

// describeProcess describes a metric of the process.
func describeProcess(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("caddy_vault_redirect_"+name, help, labels, nil)
	descriptions = append(descriptions, d)
	return d
}

// descriptions are those of all metrics.
var descriptions []*prometheus.Desc

// The metrics, as documented.
var (
	descActive     = describe("active", "1 if a request would be redirected now, else 0.")
	descReason     = describe("reason", "Current reason, one series is 1.", "reason")
	descInfo       = describe("active_node_info", "1 for the node that requests are redirected to; no series if there is none.", "node", "url")
	descNodes      = describe("nodes", "Registered nodes by state.", "state")
	descNodeState  = describe("node_state", "Current state of each node, one series is 1; left out above 64 nodes.", "node", "state")
	descCandidates = describe("candidates", "Nodes that could have been elected; more than 1 is a split view.")
	descChanges    = describe("changes_total", "Times another node became active.")
	descLosses     = describe("losses_total", "Times the active node was lost, by reason.", "reason")
	descWithout    = describe("without_active_seconds_total", "Time without an active node since the first one was seen.")
	descLastChange = describe("last_change_timestamp_seconds", "Time of the last change or loss of the active node; 0 if there was none.")
	descFailover   = describe("failover_duration_seconds", "Time from the loss of the active node to the next active node.")
	descUp         = describe("discovery_up", "1 if the last query of discovery got a usable answer, else 0.")
	descQueries    = describe("discovery_queries_total", "Queries of discovery by result.", "result")
	descSuccess    = describe("discovery_last_success_timestamp_seconds", "Time of the last answer of discovery; 0 if there was none.")
	descStale      = describe("stale_expiry_timestamp_seconds", "Time at which the last known node is dropped; 0 if it is not stale.")
	descProbes     = describe("probes_total", "Probes of nodes by result.", "result")
	descProbing    = describe("probe_duration_seconds", "Duration of answered probes.")
	descRequests   = describe("requests_total", "Requests by how they were answered.", "result")
	descRetries    = describe("proxy_retries_total", "Times a proxied request was sent again, by reason.", "reason")
	descHeld       = describe("held_requests", "Requests held now, waiting for an active node.")
	descHeldLimit  = describe("held_requests_limit", "Maximum number of requests held at once.")
	descHolds      = describe("holds_total", "Held requests by outcome.", "result")
	descHolding    = describe("hold_duration_seconds", "Time that released requests were held.")
	descDraining   = describeProcess("draining", "1 while the process shuts down, else 0.")
	descDropped    = describeProcess("events_dropped_total", "Events dropped because their queue was full.")
	descBuild      = describeProcess("build_info", "1, with the version of the plugin.", "version")
)

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d
	}
}

func (collector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for _, c := range registry.Clusters() {
		s := sample{ch, c.Name}
		state := c.View.State()
		s.state(state, now)
		s.nodes(state)
		s.discovery(c.View.Discovery())
		s.stats(c.View, now)
		s.gauge(descHeld, float64(c.View.Waiting()))
		s.gauge(descHeldLimit, float64(c.HoldLimit()))
	}
	ch <- prometheus.MustNewConstMetric(descDraining, prometheus.GaugeValue, bit(caddy.Exiting()))
	ch <- prometheus.MustNewConstMetric(descDropped, prometheus.CounterValue, float64(events.Dropped()))
	ch <- prometheus.MustNewConstMetric(descBuild, prometheus.GaugeValue, 1, instance.Version())
}

type sample struct {
	ch      chan<- prometheus.Metric
	cluster string
}

func (s sample) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{s.cluster}, labels...)...)
}

func (s sample) counter(d *prometheus.Desc, value float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, append([]string{s.cluster}, labels...)...)
}

// counters samples a counter for each element of a closed set.
func counters[T comparable](s sample, d *prometheus.Desc, set []T, counted *engine.Counter[T]) {
	for _, e := range set {
		s.counter(d, float64(counted.Count(e)), fmt.Sprint(e))
	}
}

func (s sample) histogram(d *prometheus.Desc, h *engine.Histogram) {
	count, sum, buckets := h.Read()
	s.ch <- prometheus.MustNewConstHistogram(d, count, sum, buckets, s.cluster)
}

func (s sample) state(state *engine.State, now time.Time) {
	phase := state.PhaseAt(now)
	s.gauge(descActive, bit(phase.HasTarget()))
	for _, r := range discovery.Reasons {
		s.gauge(descReason, bit(state.ReasonAt(now) == r), string(r))
	}
	if phase.HasTarget() {
		s.gauge(descInfo, 1, registry.Label(state.Node.Name), state.Target.URL)
	}
	s.gauge(descCandidates, float64(state.Candidates))
	s.counter(descChanges, float64(state.Changes))
	var expiry *time.Time
	if phase.Situation == engine.Stale {
		expiry = &phase.Time
	}
	s.gauge(descStale, timestamp(expiry))
}

// nodes samples the nodes. If two instances are on one node of Consul, the label has their ID, too.
func (s sample) nodes(state *engine.State) {
	nodes := state.NodeStatuses()
	counts, names := map[engine.NodeState]int{}, map[string]int{}
	for _, n := range nodes {
		counts[n.State]++
		names[registry.Label(n.Node.Name)]++
	}
	for _, st := range engine.NodeStates {
		s.gauge(descNodes, float64(counts[st]), string(st))
	}
	if len(nodes) > maxNodeSeries {
		return
	}
	seen := map[string]bool{}
	for _, n := range nodes {
		name := registry.Label(n.Node.Name)
		if names[name] > 1 {
			name = registry.Label(n.Node.Identity().String())
		}
		for seen[name] {
			name += "~"
		}
		seen[name] = true
		for _, st := range engine.NodeStates {
			s.gauge(descNodeState, bit(n.State == st), name, string(st))
		}
	}
}

func (s sample) discovery(d engine.DiscoveryStatus) {
	s.gauge(descUp, bit(d.Up))
	s.gauge(descSuccess, timestamp(d.LastSuccess))
	counters(s, descQueries, engine.QueryResults, d.Queries)
}

func (s sample) stats(v *engine.View, now time.Time) {
	stats := v.Stats()
	counters(s, descLosses, engine.LossReasons, stats.Losses)
	s.counter(descWithout, v.WithoutActive(now).Seconds())
	var lastChange *time.Time
	if changes := v.History(); len(changes) > 0 {
		lastChange = &changes[0].At
	}
	s.gauge(descLastChange, timestamp(lastChange))
	s.histogram(descFailover, stats.Failovers)
	counters(s, descProbes, engine.Results, stats.Probes)
	s.histogram(descProbing, stats.Probing)
	counters(s, descRequests, engine.Answers, stats.Answers)
	counters(s, descRetries, engine.Retries, stats.Retries)
	counters(s, descHolds, engine.HoldEnds, stats.Holds)
	s.histogram(descHolding, stats.Holding)
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// timestamp returns a time in seconds since 1970, 0 for none.
func timestamp(t *time.Time) float64 {
	if t == nil {
		return 0
	}
	return float64(t.UnixMilli()) / 1e3
}
