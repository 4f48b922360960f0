// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"cmp"
	"fmt"
	"slices"
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
	list = slices.Concat(list, o.registrations(), []Finding{o.mark(), o.active(), o.probe(), o.standby()},
		o.reads(), o.schemes(), o.versions(), o.clocks())
	for _, n := range o.Nodes {
		list = append(list, o.node(n)...)
	}
	return list
}

// mark says what marks the active node.
func (o *Observation) mark() Finding {
	nodes := o.nodes()
	mode, id := engine.MarkedBy(o.Selection, nodes)
	var by string
	switch {
	case mode == discovery.ByProbe:
		return o.finding("mark", OK, "none: the nodes themselves say which is active", "")
	case engine.NothingMarks(o.Selection, nodes):
		detail, remedy := "nothing marks an active node: the instances have no checks", `let Vault register itself (service_registration "consul"), which tags the active node`
		if o.Selection.Mode == discovery.ByAuto {
			detail += ", and none of the tags that Vault sets"
		} else {
			remedy += ", and set `active_by auto`"
		}
		return o.finding("mark", Warning, detail, remedy+"; or name the nodes by URL with the option `vault`. The catalog sync of Kubernetes copies neither checks nor Vault's tags")
	case mode == discovery.ByTag:
		by = fmt.Sprintf("tag %q", o.Selection.Tag)
	case id != "":
		by = fmt.Sprintf("check %q is passing", id)
	default:
		by = "all checks of the instance are passing"
	}
	by += fmt.Sprintf(" (active_by %s): it marks ", o.Selection.Mode)
	outdated := func(n *Node) bool { // Consul may not have removed its mark yet
		return !n.Elected && (n.State == engine.NodeCritical || n.State == engine.NodeUnreachable)
	}
	marked := labels(o.where(func(n *Node) bool { return n.Marked && !outdated(n) }))
	const down = ", which Consul or the probes say is down"
	unusable := strings.Join(labels(o.where(func(n *Node) bool { return n.Marked && outdated(n) })), ", ")
	switch {
	case len(marked) > 1:
		return o.finding("mark", Warning, by+strings.Join(marked, ", "),
			`only the active node should be marked: use Vault's service_registration "consul", or a check on /v1/sys/health with active_by check`)
	case len(marked) == 1 && unusable != "":
		return o.finding("mark", OK, by+marked[0]+", and still "+unusable+down, "")
	case len(marked) == 1:
		return o.finding("mark", OK, by+marked[0], "")
	case unusable != "":
		return o.finding("mark", Warning, by+"only "+unusable+down, "normal for a moment in a failover; otherwise see reach and role")
	}
	return o.finding("mark", Warning, by+"no node", "normal for a moment in an election; otherwise check active_by, tag and check_id in the config")
}

// active says which node is active, and what says so.
func (o *Observation) active() Finding {
	elected := o.elected()
	claims := labels(o.where(func(n *Node) bool { return n.said().Result == engine.ResultActive }))
	if len(claims) > 1 || o.Candidates > 1 {
		detail := fmt.Sprintf("%d nodes could be the active one", max(len(claims), o.Candidates))
		if len(claims) > 1 {
			detail = "more than one node says that it is active: " + strings.Join(claims, ", ")
		}
		if elected != nil {
			detail += "; redirects lead to " + elected.Label
		}
		return o.finding("active", Wrong, detail, "run check again in 10s: this is normal for a moment in a failover; if it persists, compare `vault operator raft list-peers` on each node")
	}
	if elected == nil {
		return o.finding("active", Wrong, "no active node: "+cmp.Or(o.Detail, string(o.Reason)), o.remedyFor(o.Reason))
	}
	node, said := elected.Label+", "+elected.URL+": ", elected.said()
	switch {
	case o.By == engine.ByProbe && elected.Marked:
		return o.finding("active", OK, node+"it says so itself", "")
	case o.By == engine.ByProbe:
		return o.finding("active", Warning, node+"it says so itself, but Consul does not mark it",
			"normal for a moment after a failover; otherwise look for errors of service_registration in the log of Vault")
	case said.Result != engine.ResultNone && said.Result != engine.ResultActive:
		return o.finding("active", Wrong, fmt.Sprintf("%sConsul marks it, but it says itself: %s", node, said),
			"make the probes trust its certificate (see certificate), so that its own answer counts")
	}
	return o.finding("active", OK, node+"Consul marks it", "")
}

// elected returns the node to which redirects lead; nil if there is none.
func (o *Observation) elected() *Node {
	if list := o.where(func(n *Node) bool { return n.Elected }); len(list) > 0 {
		return list[0]
	}
	return nil
}

// nodes returns the nodes as they are registered.
func (o *Observation) nodes() []discovery.Node {
	nodes := make([]discovery.Node, len(o.Nodes))
	for i, n := range o.Nodes {
		nodes[i] = n.Node
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
	if o.Probe.Mode == engine.ProbeOff {
		return o.finding("probe", Warning, "off: a dead node is noticed only when Consul notices", "remove `probe off`")
	}
	byAnswer := map[answer][]string{}
	for _, n := range o.Nodes {
		byAnswer[n.answer()] = append(byAnswer[n.answer()], n.Label)
	}
	if len(byAnswer[full]) == len(o.Nodes) {
		return o.finding("probe", OK, fmt.Sprintf("%s: all nodes are fully probed", o.Probe.Mode), "")
	}
	untrusted, then, untrustedIs := "liveness only (certificate not trusted): ", ", Consul decides: ", Warning
	if o.Probe.Mode == engine.ProbeStrict {
		untrusted, then, untrustedIs = "never used (certificate not trusted): ", ", not used: ", Wrong
	}
	f := o.finding("probe", Warning, "", "")
	for _, row := range []struct {
		answer         answer
		severity       Severity
		detail, remedy string
	}{
		{full, OK, "fully probed: ", ""},
		{fromUntrusted, untrustedIs, untrusted, "set " + trustOption},
		{byOtherScheme, Wrong, "probed by the wrong scheme: ", "see scheme"},
		{fromRedirector, Wrong, "answered by a redirector: ", "see role"},
		{withoutState, Warning, "no answer on its state" + then, "see role"},
		{none, Warning, "not reachable" + then, "see reach"},
	} {
		if labels := byAnswer[row.answer]; len(labels) > 0 {
			f.add(row.severity, row.detail+strings.Join(labels, ", "), row.remedy)
		}
	}
	f.Detail = string(o.Probe.Mode) + ": " + f.Detail
	return f
}

// answer is how a node answers probes.
type answer int

const (
	full answer = iota
	fromUntrusted
	byOtherScheme
	fromRedirector
	withoutState
	none
)

func (n *Node) answer() answer {
	switch r := n.Probe.Result; {
	case n.OtherScheme:
		return byOtherScheme
	case n.closed(), r == engine.ResultUnclear:
		return withoutState
	case r == engine.ResultRedirector:
		return fromRedirector
	case r == engine.ResultTLS:
		return fromUntrusted
	case r == engine.ResultNone, r == engine.ResultTimeout, r == engine.ResultRefused, r == engine.ResultOther:
		return none
	}
	return full
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
	const noNode = "no node can take over when the active one stops"
	switch {
	case o.sharedAddress() != "":
		return o.finding("standby", Warning, "not known: all nodes have the same address", "see registration")
	case len(ready) > 0:
		return o.finding("standby", OK, "can take over: "+strings.Join(ready, ", "), "")
	case len(sealed) > 0:
		return o.finding("standby", Warning, noNode, "unseal "+strings.Join(sealed, ", "))
	case len(o.Nodes) > 1:
		return o.finding("standby", Warning, noNode, "see the other nodes below")
	}
	return o.finding("standby", Warning, noNode, "add a node to the cluster")
}
