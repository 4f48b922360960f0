// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the status documents that the admin endpoints, the page and the command have in common.

package vaultredirect

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// statusDocument is what an operator may know of this process.
type statusDocument struct {
	Version  string          `json:"version"`
	Instance string          `json:"instance"`
	Started  time.Time       `json:"started"`
	Draining bool            `json:"draining"`    // the process is about to end
	Shutdown *time.Time      `json:"shutdown_at"` // when the listeners close
	Clusters []clusterStatus `json:"clusters"`
}

// clusterStatus is what is known of one cluster.
type clusterStatus struct {
	Cluster    string            `json:"cluster"`
	Healthy    bool              `json:"healthy"` // a request would be redirected now
	Ready      bool              `json:"ready"`   // this copy does as well as another would
	Reason     discovery.Reason  `json:"reason"`
	Detail     string            `json:"detail"`
	Active     *activeStatus     `json:"active"`
	Silent     bool              `json:"silent"` // the active node leaves a probe unanswered: requests wait
	Since      *time.Time        `json:"since"`  // since when a node is active, or none is
	Candidates int               `json:"candidates"`
	StaleSince *time.Time        `json:"stale_since"`
	StaleUntil *time.Time        `json:"stale_until"`
	Discovery  discoveryStatus   `json:"discovery"`
	Nodes      []nodeStatus      `json:"nodes"`
	Requests   map[string]uint64 `json:"requests"`
	Hold       map[string]uint64 `json:"hold"`
	UsedBy     []string          `json:"used_by"`
	History    []historyEntry    `json:"history"`
}

type activeStatus struct {
	Node    string    `json:"node"`
	ID      string    `json:"id"`
	URL     string    `json:"url"`
	Since   time.Time `json:"since"`
	By      string    `json:"by"`      // probe or discovery: what says so
	Changes uint64    `json:"changes"` // how often another node became active
}

type discoveryStatus struct {
	Source       string     `json:"source"`
	Endpoint     string     `json:"endpoint"`
	Service      string     `json:"service,omitempty"`
	ActiveBy     string     `json:"active_by"` // auto, tag, check or probe: what marks the active node
	Up           bool       `json:"up"`
	LastSuccess  *time.Time `json:"last_success"`
	FailingSince *time.Time `json:"failing_since"`
	Failures     int64      `json:"failures"` // in a row
	Index        uint64     `json:"index"`
}

type nodeStatus struct {
	Node          string           `json:"node"`
	ID            string           `json:"id"`
	URL           string           `json:"url"`
	State         engine.NodeState `json:"state"`
	Since         *time.Time       `json:"since"`
	Elected       bool             `json:"elected"`
	Marked        bool             `json:"marked"`
	Why           string           `json:"why"` // it is not elected
	FailingChecks []string         `json:"failing_checks"`
	Probe         *probeStatus     `json:"probe"`
}

type probeStatus struct {
	Result  engine.Result `json:"result"`
	Code    int           `json:"code,omitempty"`
	Detail  string        `json:"detail,omitempty"`
	At      time.Time     `json:"at"`
	Seconds float64       `json:"seconds"`
}

// historyEntry is one change of who is active.
type historyEntry struct {
	At           time.Time        `json:"at"`
	Cluster      string           `json:"cluster"`
	Event        string           `json:"event"` // active_changed or active_lost
	Node         string           `json:"node"`
	URL          string           `json:"url"`
	PreviousNode string           `json:"previous_node"`
	PreviousURL  string           `json:"previous_url"`
	Reason       discovery.Reason `json:"reason"`
	GapSeconds   float64          `json:"gap_seconds"` // without an active node before
	By           string           `json:"by"`
}

// statusNow returns the status of the process.
func statusNow() statusDocument {
	d := statusDocument{
		Version: instance.Version(), Instance: instance.ID, Started: instance.Started.UTC(), Draining: caddy.Exiting(), Shutdown: instance.ShutdownAt(), Clusters: []clusterStatus{},
	}
	now := time.Now()
	for _, c := range clusters() {
		d.Clusters = append(d.Clusters, c.status(now))
	}
	return d
}

// status returns the status of a cluster.
func (c *cluster) status(now time.Time) clusterStatus {
	s, stats := c.view.State(), c.view.Stats()
	phase := s.PhaseAt(now)
	d := clusterStatus{
		Cluster: c.name, Healthy: phase.HasTarget(), Reason: s.ReasonAt(now), Detail: s.Detail, Silent: phase.Situation == engine.Silent,
		Since: moment(s.Since), Candidates: s.Candidates, StaleSince: moment(s.StaleSince),
		Discovery: c.discovery(), Nodes: []nodeStatus{}, Requests: map[string]uint64{}, UsedBy: c.servers(), History: c.history(),
		Hold: map[string]uint64{"limit": uint64(c.holdLimit()), "waiting": uint64(max(0, c.view.Waiting()))},
	}
	d.Ready = !caddy.Exiting() && (d.Healthy || !blind(d.Reason))
	switch {
	case phase.Situation == engine.Stale:
		d.StaleUntil = moment(phase.Time)
	case phase.Situation == engine.None && !phase.Time.IsZero():
		d.Since = moment(phase.Time) // the use of a stale node ends without a new state
	}
	if d.Healthy {
		d.Active = &activeStatus{s.Node.Name, s.Node.ID, s.Target.URL, s.Since.UTC(), s.By, s.Changes}
	}
	for _, n := range s.NodeStatuses() {
		d.Nodes = append(d.Nodes, nodeOf(n))
	}
	for _, a := range engine.Answers {
		d.Requests[a.String()] = stats.Answers(a)
	}
	for _, e := range engine.HoldEnds {
		d.Hold[e.String()] = stats.Holds(e)
	}
	return d
}

// blind reports whether there is no node for a reason that may well be this copy's own: another may do better.
func blind(r discovery.Reason) bool {
	switch r {
	case discovery.ReasonStarting, discovery.ReasonACLDenied, discovery.ReasonACLFiltered, discovery.ReasonConsulUnreachable,
		discovery.ReasonConsulError, discovery.ReasonStaleExpired:
		return true
	}
	return false
}

func (c *cluster) discovery() discoveryStatus {
	d := c.view.Discovery()
	source, _, _ := strings.Cut(d.Cluster, "\x00")
	return discoveryStatus{
		Source: cmp.Or(source, "other"), Endpoint: d.Endpoint, Service: d.Service, ActiveBy: d.ActiveBy, Up: d.Up,
		LastSuccess: moment(d.LastSuccess), FailingSince: moment(d.Failing), Failures: d.Failures, Index: d.Index,
	}
}

func nodeOf(n engine.NodeStatus) nodeStatus {
	d := nodeStatus{
		Node: n.Node.Name, ID: n.Node.ID, URL: n.URL, State: n.State, Since: moment(n.Since), Elected: n.Elected, Marked: n.Marked,
		Why: n.Why, FailingChecks: append([]string{}, n.Failing...),
	}
	if n.Probe.Result != engine.ResultNone {
		d.Probe = &probeStatus{n.Probe.Result, n.Probe.Code, n.Probe.Detail, n.Probe.At.UTC(), n.Probe.Took.Seconds()}
	}
	return d
}

// history returns the changes of who is active, the newest first.
func (c *cluster) history() []historyEntry {
	list := []historyEntry{}
	for _, t := range c.view.History() {
		e := historyEntry{
			At: t.At.UTC(), Cluster: c.name, Event: "active_lost", Node: t.Node, URL: t.URL, PreviousNode: t.Previous,
			PreviousURL: t.PrevURL, Reason: t.Reason, GapSeconds: t.Gap.Seconds(), By: t.By,
		}
		if t.Active {
			e.Event = "active_changed"
		}
		list = append(list, e)
	}
	return list
}

// historyOf returns the changes of all clusters, or of one, the newest first; ok is false if there is no such cluster.
func historyOf(name string, limit int) (list []historyEntry, ok bool) {
	list, ok = []historyEntry{}, name == ""
	for _, c := range clusters() {
		if name == "" || c.name == name {
			list, ok = append(list, c.history()...), true
		}
	}
	slices.SortStableFunc(list, func(a, b historyEntry) int { return b.At.Compare(a.At) })
	return list[:min(len(list), limit)], ok
}

// moment returns a time as the documents have it, nil for none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
