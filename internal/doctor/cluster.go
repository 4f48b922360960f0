// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"fmt"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Findings says what is right and what is wrong with a cluster, and what to do about it.
func (o *Observation) Findings() []Finding {
	list := o.discovery()
	if len(o.Nodes) == 0 {
		return list
	}
	list = append(list, o.registrations()...)
	list = append(list, o.mark(), o.active(), o.probe(), o.standby())
	list = append(list, o.schemes()...)
	list = append(list, o.versions()...)
	list = append(list, o.clocks()...)
	for i := range o.Nodes {
		list = append(list, o.node(&o.Nodes[i])...)
	}
	return list
}

// mark says what marks the active node.
func (o *Observation) mark() Finding {
	nodes := o.nodes()
	old := func(n *Node) bool { // its mark may be one
		return !n.Elected && (n.State == engine.NodeCritical || n.State == engine.NodeUnreachable)
	}
	marked := labels(o.where(func(n *Node) bool { return n.Marked && !old(n) }))
	unusable := labels(o.where(func(n *Node) bool { return n.Marked && old(n) }))
	f := Finding{Check: "mark", Subject: o.Name, Severity: OK}
	mode, id := engine.MarkedBy(o.Selection, nodes)
	switch {
	case mode == discovery.ByProbe:
		f.Detail = "none: the nodes themselves say which is active"
		return f
	case engine.NothingMarks(o.Selection, nodes):
		f.Severity, f.Detail = Warning, "nothing marks an active node: the instances have no checks"
		f.Remedy = `let Vault register itself (service_registration "consul"), which tags the active node`
		if o.Selection.Mode == discovery.ByAuto {
			f.Detail += ", and none of the tags that Vault sets"
		} else {
			f.Remedy += ", and set `active_by auto`"
		}
		f.Remedy += "; or name the nodes by URL with the option `vault`. The catalog sync of Kubernetes copies neither checks nor Vault's tags"
		return f
	case mode == discovery.ByTag:
		f.Detail = fmt.Sprintf("tag %q", o.Selection.Tag)
	case id != "":
		f.Detail = fmt.Sprintf("check %q is passing", id)
	default:
		f.Detail = "all checks of the instance are passing"
	}
	f.Detail += fmt.Sprintf(" (active_by %s): ", o.Selection.Mode)
	switch {
	case len(marked) == 1:
		f.Detail += "it marks " + marked[0]
		if len(unusable) > 0 {
			f.Detail += ", and still " + strings.Join(unusable, ", ") + ", which Consul or the probes say is down"
		}
	case len(marked) == 0 && len(unusable) > 0:
		f.Severity, f.Detail = Warning, f.Detail+"it marks only "+strings.Join(unusable, ", ")+", which Consul or the probes say is down"
		f.Remedy = "normal for a moment in a failover; otherwise see reach and role"
	case len(marked) == 0:
		f.Severity, f.Detail = Warning, f.Detail+"it marks no node"
		f.Remedy = "normal for a moment in an election; otherwise check active_by, tag and check_id in the config"
	default:
		f.Severity, f.Detail = Warning, f.Detail+"it marks "+strings.Join(marked, ", ")
		f.Remedy = `only the active node should be marked: use Vault's service_registration "consul", or a check on /v1/sys/health with active_by check`
	}
	return f
}

// active says which node is active, and what says so.
func (o *Observation) active() Finding {
	f := Finding{Check: "active", Subject: o.Name, Severity: OK}
	elected := o.elected()
	claims := labels(o.where(func(n *Node) bool { return n.said().Result == engine.ResultActive }))
	switch {
	case len(claims) > 1 || o.Candidates > 1:
		f.Severity = Wrong
		f.Detail = fmt.Sprintf("%d nodes could be the active one", max(len(claims), o.Candidates))
		if len(claims) > 1 {
			f.Detail = "more than one node says that it is active: " + strings.Join(claims, ", ")
		}
		if elected != nil {
			f.Detail += "; redirects lead to " + elected.Label
		}
		f.Remedy = "run check again in 10s: this is normal for a moment in a failover; if it persists, compare `vault operator raft list-peers` on each node"
	case elected == nil:
		f.Severity, f.Detail = Wrong, "no active node: "+orElse(o.Detail, string(o.Reason))
		f.Remedy = o.remedyFor(o.Reason)
	case o.By == engine.ByProbe:
		f.Detail = fmt.Sprintf("%s, %s: it says so itself", elected.Label, elected.URL)
		if !elected.Marked {
			f.Severity, f.Detail = Warning, f.Detail+", but Consul does not mark it"
			f.Remedy = "normal for a moment after a failover; otherwise look for errors of service_registration in the log of Vault"
		}
	case elected.said().Result != engine.ResultNone && elected.said().Result != engine.ResultActive:
		f.Severity, f.Detail = Wrong, fmt.Sprintf("%s, %s: Consul marks it, but it says itself: %s", elected.Label, elected.URL, elected.said())
		f.Remedy = "make the probes trust its certificate (see certificate), so that its own answer counts"
	default:
		f.Detail = fmt.Sprintf("%s, %s: Consul marks it", elected.Label, elected.URL)
	}
	return f
}

// elected returns the node to which redirects lead; nil if there is none.
func (o *Observation) elected() *Node {
	for i := range o.Nodes {
		if o.Nodes[i].Elected {
			return &o.Nodes[i]
		}
	}
	return nil
}

// nodes returns the nodes as they are registered.
func (o *Observation) nodes() []discovery.Node {
	nodes := make([]discovery.Node, len(o.Nodes))
	for i := range o.Nodes {
		nodes[i] = o.Nodes[i].Node
	}
	return nodes
}

func (o *Observation) remedyFor(r discovery.Reason) string {
	switch r {
	case discovery.ReasonStarting:
		return "the nodes have not answered in time: try a longer --timeout"
	case discovery.ReasonBadAddress:
		if len(o.where((*Node).portless)) > 0 {
			return "see redirect"
		}
		return "correct " + o.addressOption()
	case discovery.ReasonACLFiltered, discovery.ReasonACLDenied:
		return "see token"
	case discovery.ReasonNoActive:
		if engine.NothingMarks(o.Selection, o.nodes()) {
			return "see mark"
		}
	}
	return "unseal or start the nodes below; `vault status` on each shows its state"
}

// probe says how much the nodes' own answers count.
func (o *Observation) probe() Finding {
	f := Finding{Check: "probe", Subject: o.Name, Severity: OK}
	if o.Mode == engine.ProbeOff {
		f.Severity, f.Detail = Warning, "off: a dead node is noticed only when Consul notices"
		f.Remedy = "remove `probe off`"
		return f
	}
	var full, alive, other, circles, silent, unreached []string
	for i := range o.Nodes {
		n := &o.Nodes[i]
		if n.OtherScheme {
			other = append(other, n.Label)
			continue
		}
		if n.closed() {
			silent = append(silent, n.Label)
			continue
		}
		switch n.Probe.Result {
		case engine.ResultRedirector:
			circles = append(circles, n.Label)
		case engine.ResultUnclear:
			silent = append(silent, n.Label)
		case engine.ResultTLS:
			alive = append(alive, n.Label)
		case engine.ResultNone, engine.ResultTimeout, engine.ResultRefused, engine.ResultOther:
			unreached = append(unreached, n.Label)
		default:
			full = append(full, n.Label)
		}
	}
	if len(full) == len(o.Nodes) {
		f.Detail = fmt.Sprintf("%s: all nodes are fully probed", o.Mode)
		return f
	}
	f.Severity = Warning
	var parts, remedies []string
	if len(full) > 0 {
		parts = append(parts, "fully probed: "+strings.Join(full, ", "))
	}
	if len(alive) > 0 {
		kind := "liveness only (certificate not trusted): "
		if o.Mode == engine.ProbeStrict {
			kind, f.Severity = "never used (certificate not trusted): ", Wrong
		}
		parts = append(parts, kind+strings.Join(alive, ", "))
		remedies = append(remedies, "set "+trustOption)
	}
	if len(other) > 0 {
		f.Severity = Wrong
		parts = append(parts, "probed by the wrong scheme: "+strings.Join(other, ", "))
		remedies = append(remedies, "see scheme")
	}
	then := ", Consul decides: "
	if o.Mode == engine.ProbeStrict {
		then = ", not used: "
	}
	if len(circles) > 0 {
		f.Severity = Wrong
		parts = append(parts, "answered by a redirector: "+strings.Join(circles, ", "))
		remedies = append(remedies, "see role")
	}
	if len(silent) > 0 {
		parts = append(parts, "no answer on its state"+then+strings.Join(silent, ", "))
		remedies = append(remedies, "see role")
	}
	if len(unreached) > 0 {
		parts = append(parts, "not reachable"+then+strings.Join(unreached, ", "))
		remedies = append(remedies, "see reach")
	}
	f.Detail, f.Remedy = string(o.Mode)+": "+strings.Join(parts, "; "), strings.Join(remedies, "; ")
	return f
}

// trustOption makes the probes trust the nodes' certificates.
const trustOption = "`probe { tls { ca FILE } }` to the CA of the nodes' certificates"

// standby says which nodes could take over.
func (o *Observation) standby() Finding {
	ready := labels(o.where(func(n *Node) bool {
		role := n.said()
		return role.Result == engine.ResultStandby && role.Remedy == "" ||
			role.Result == engine.ResultNone && n.State == engine.NodeStandby && n.FailedStep != engine.StepLookup && n.FailedStep != engine.StepConnect
	}))
	sealed := labels(o.where(func(n *Node) bool { return n.said().Result == engine.ResultSealed }))
	f := Finding{Check: "standby", Subject: o.Name, Severity: OK, Detail: "can take over: " + strings.Join(ready, ", ")}
	switch {
	case o.sharedAddress() != "":
		f.Severity, f.Detail, f.Remedy = Warning, "not known: all nodes have the same address", "see registration"
	case len(ready) == 0:
		f.Severity, f.Detail = Warning, "no node can take over when the active one stops"
		if f.Remedy = "add a node to the cluster"; len(sealed) > 0 {
			f.Remedy = "unseal " + strings.Join(sealed, ", ")
		} else if len(o.Nodes) > 1 {
			f.Remedy = "see the other nodes below"
		}
	}
	return f
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
