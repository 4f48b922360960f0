// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package status has the documents about the state of all clusters. They are served by Caddy's admin API and printed by the commands
// status and history.
package status

import (
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
)

// Document is the status of this process.
type Document struct {
	Version  string     `json:"version"`
	Instance string     `json:"instance"`
	Started  time.Time  `json:"started"`
	Draining bool       `json:"draining"`    // the process is shutting down
	Shutdown *time.Time `json:"shutdown_at"` // when the listeners close
	Clusters []Cluster  `json:"clusters"`
}

// Cluster is the status of one cluster.
type Cluster struct {
	Cluster    string                 `json:"cluster"`
	Healthy    bool                   `json:"healthy"` // a request would be redirected now
	Ready      bool                   `json:"ready"`   // no other instance could do better
	Reason     discovery.Reason       `json:"reason"`
	Detail     string                 `json:"detail"`
	Active     *Active                `json:"active"`
	Silent     bool                   `json:"silent"` // the active node has not answered a probe yet: requests wait
	Since      *time.Time             `json:"since"`  // since when a node is active, or none is
	Candidates int                    `json:"candidates"`
	StaleSince *time.Time             `json:"stale_since"`
	StaleUntil *time.Time             `json:"stale_until"`
	Discovery  engine.DiscoveryStatus `json:"discovery"`
	Nodes      []Node                 `json:"nodes"`
	Requests   map[string]uint64      `json:"requests"`
	Hold       map[string]uint64      `json:"hold"`
	UsedBy     []string               `json:"used_by"`
	History    []Change               `json:"history"`
}

// Active is the active node.
type Active struct {
	Node    string    `json:"node"`
	ID      string    `json:"id"`
	URL     string    `json:"url"`
	Since   time.Time `json:"since"`
	By      string    `json:"by"`      // probe or discovery: what says so
	Changes uint64    `json:"changes"` // how often another node became active
}

// Node is the status of one node.
type Node struct {
	Node          string           `json:"node"`
	ID            string           `json:"id"`
	URL           string           `json:"url"`
	State         engine.NodeState `json:"state"`
	Since         *time.Time       `json:"since"`
	Elected       bool             `json:"elected"`
	Marked        bool             `json:"marked"`
	Why           string           `json:"why"`          // why it is not elected
	Reads         bool             `json:"reads"`        // reads are redirected to it, by the option standby
	WhyNoReads    string           `json:"why_no_reads"` // why not; empty for the active node, and without that option
	FailingChecks []string         `json:"failing_checks"`
	Probe         *Probe           `json:"probe"`
}

// Probe is the result of a node's last probe.
type Probe struct {
	Result  engine.Result `json:"result"`
	Code    int           `json:"code,omitempty"`
	Detail  string        `json:"detail,omitempty"`
	At      time.Time     `json:"at"`
	Seconds float64       `json:"seconds"`
}

// Change is one change of the active node.
type Change struct {
	At           time.Time        `json:"at"`
	Cluster      string           `json:"cluster"`
	Event        string           `json:"event"` // active_changed or active_lost
	Node         string           `json:"node"`
	URL          string           `json:"url"`
	PreviousNode string           `json:"previous_node"`
	PreviousURL  string           `json:"previous_url"`
	Reason       discovery.Reason `json:"reason"`
	GapSeconds   float64          `json:"gap_seconds"` // time without an active node before it
	By           string           `json:"by"`
}

// Now returns the current status of the process.
func Now() Document {
	d := Document{
		Version: instance.Version(), Instance: instance.ID, Started: instance.Started.UTC(), Draining: caddy.Exiting(), Shutdown: instance.ShutdownAt(), Clusters: []Cluster{},
	}
	now := time.Now()
	for _, c := range registry.Clusters() {
		d.Clusters = append(d.Clusters, clusterOf(&c, now))
	}
	return d
}

func clusterOf(c *registry.Cluster, now time.Time) Cluster {
	s, stats := c.View.State(), c.View.Stats()
	phase := s.PhaseAt(now)
	d := Cluster{
		Cluster: c.Name, Healthy: phase.HasTarget(), Reason: s.ReasonAt(now), Detail: s.Detail, Silent: phase.Situation == engine.Silent,
		Since: engine.TimeOrNil(s.Since), Candidates: s.Candidates, StaleSince: engine.TimeOrNil(s.StaleSince),
		Discovery: c.View.Discovery(), Nodes: []Node{}, Requests: map[string]uint64{}, UsedBy: c.Servers(), History: changesOf(c),
		Hold: map[string]uint64{"limit": uint64(c.HoldLimit()), "waiting": uint64(max(0, c.View.Waiting()))},
	}
	d.Ready = !caddy.Exiting() && (d.Healthy || !redirect.MayBeOwnFault(d.Reason))
	switch {
	case phase.Situation == engine.Stale:
		d.StaleUntil = engine.TimeOrNil(phase.Time)
	case phase.Situation == engine.None && !phase.Time.IsZero():
		d.Since = engine.TimeOrNil(phase.Time) // a stale node expires without a new state
	}
	if d.Healthy {
		d.Active = &Active{s.Node.Name, s.Node.ID, s.Target.URL, s.Since.UTC(), s.By, s.Changes}
	}
	for _, n := range s.NodeStatuses() {
		d.Nodes = append(d.Nodes, nodeOf(n))
	}
	for _, a := range engine.Answers {
		d.Requests[a.String()] = stats.Answers.Count(a)
	}
	for _, e := range engine.HoldEnds {
		d.Hold[string(e)] = stats.Holds.Count(e)
	}
	return d
}

func nodeOf(n engine.NodeStatus) Node {
	d := Node{
		Node: n.Node.Name, ID: n.Node.ID, URL: n.URL, State: n.State, Since: engine.TimeOrNil(n.Since), Elected: n.Elected, Marked: n.Marked,
		Why: n.Why, Reads: n.Reads, WhyNoReads: n.WhyNoReads, FailingChecks: append([]string{}, n.Failing...),
	}
	if n.Probe.Result != engine.ResultNone {
		d.Probe = &Probe{n.Probe.Result, n.Probe.Code, n.Probe.Detail, n.Probe.At.UTC(), n.Probe.Took.Seconds()}
	}
	return d
}

// changesOf returns the changes of the active node, the newest first.
func changesOf(c *registry.Cluster) []Change {
	list := []Change{}
	for _, e := range c.View.History() {
		list = append(list, Change{
			At: e.At.UTC(), Cluster: c.Name, Event: strings.TrimPrefix(string(e.Kind), "vault_"), Node: e.Node, URL: e.URL, PreviousNode: e.Previous,
			PreviousURL: e.PreviousURL, Reason: e.Reason, GapSeconds: e.Gap.Seconds(), By: e.By,
		})
	}
	return list
}
