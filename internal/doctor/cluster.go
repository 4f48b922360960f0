// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what there is to say of a cluster as a whole.

package doctor

import (
	"fmt"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Findings says what is right and what is wrong with what was seen, and what to do about it.
func (s *Seen) Findings() []Finding {
	list := s.discovery()
	if len(s.Nodes) == 0 {
		return list
	}
	list = append(list, s.mark(), s.active(), s.probe(), s.standby())
	list = append(list, s.schemes()...)
	list = append(list, s.versions()...)
	list = append(list, s.clocks()...)
	for i := range s.Nodes {
		list = append(list, s.node(&s.Nodes[i])...)
	}
	return list
}

// mark says what marks the active node.
func (s *Seen) mark() Finding {
	nodes, marked, unusable := make([]discovery.Node, len(s.Nodes)), []string{}, []string{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		nodes[i] = n.Node
		switch {
		case n.Marked && !n.Elected && (n.State == engine.NodeCritical || n.State == engine.NodeUnreachable):
			unusable = append(unusable, n.Label) // it may have left its mark behind
		case n.Marked:
			marked = append(marked, n.Label)
		}
	}
	f := Finding{Check: "mark", Subject: s.Name, Severity: OK}
	mode, id := engine.MarkedBy(s.Selection, nodes)
	switch {
	case mode == discovery.ByProbe:
		f.Detail = "none: the nodes themselves say which is active"
		return f
	case mode == discovery.ByTag:
		f.Detail = fmt.Sprintf("tag %q", s.Selection.Tag)
	case id != "":
		f.Detail = fmt.Sprintf("check %q is passing", id)
	default:
		f.Detail = "all checks of the instance are passing"
	}
	f.Detail += fmt.Sprintf(" (active_by %s): ", s.Selection.Mode)
	switch {
	case len(marked) == 1:
		f.Detail += "it marks " + marked[0]
		if len(unusable) > 0 {
			f.Detail += ", and still " + strings.Join(unusable, ", ") + ", which Consul or the probes say is down"
		}
	case len(marked) == 0 && len(unusable) > 0:
		f.Severity, f.Detail = Warning, f.Detail+"it marks only "+strings.Join(unusable, ", ")+", which Consul or the probes say is down"
		f.Remedy = "in a failover this is so for a moment; else see reach and role"
	case len(marked) == 0:
		f.Severity, f.Detail = Warning, f.Detail+"it marks no node"
		f.Remedy = "in an election this is so for a moment; else see active_by, tag and check_id in the config"
	default:
		f.Severity, f.Detail = Warning, f.Detail+"it marks "+strings.Join(marked, ", ")
		f.Remedy = `only the active node should be marked: use Vault's service_registration "consul", or a check on /v1/sys/health with active_by check`
	}
	return f
}

// active says who is active and why.
func (s *Seen) active() Finding {
	f := Finding{Check: "active", Subject: s.Name, Severity: OK}
	var elected *Node
	var claim []string
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Elected {
			elected = n
		}
		if n.code() == 200 {
			claim = append(claim, n.Label)
		}
	}
	switch {
	case len(claim) > 1 || s.Candidates > 1:
		f.Severity = Wrong
		f.Detail = fmt.Sprintf("%d nodes could be the active one", max(len(claim), s.Candidates))
		if len(claim) > 1 {
			f.Detail = "more than one node says that it is active: " + strings.Join(claim, ", ")
		}
		if elected != nil {
			f.Detail += "; redirects lead to " + elected.Label
		}
		f.Remedy = "run check again in 10s: in a failover this is so for a moment; if it stays, compare `vault operator raft list-peers` on each node"
	case elected == nil:
		f.Severity, f.Detail = Wrong, "no active node: "+orElse(s.Detail, string(s.Reason))
		f.Remedy = s.remedyFor(s.Reason)
	case s.By == engine.ByProbe:
		f.Detail = fmt.Sprintf("%s, %s: it says so itself", elected.Label, elected.URL)
		if !elected.Marked {
			f.Severity, f.Detail = Warning, f.Detail+", but Consul does not mark it"
			f.Remedy = "after a failover this is so for a moment; else look for errors of service_registration in the log of Vault"
		}
	case elected.code() != 0 && elected.code() != 200:
		f.Severity, f.Detail = Wrong, fmt.Sprintf("%s, %s: Consul marks it, but it says itself: %s", elected.Label, elected.URL, roleOf(elected.code()))
		f.Remedy = "have the probes trust its certificate (see certificate), so that its own word counts"
	default:
		f.Detail = fmt.Sprintf("%s, %s: Consul marks it", elected.Label, elected.URL)
	}
	return f
}

func (s *Seen) remedyFor(r discovery.Reason) string {
	switch r {
	case discovery.ReasonStarting:
		return "the nodes have not answered in time: try a longer --timeout"
	case discovery.ReasonBadAddress:
		return "correct " + s.addressOption()
	case discovery.ReasonACLFiltered, discovery.ReasonACLDenied:
		return "see token"
	}
	return "unseal or start the nodes below; `vault status` on each says how it is"
}

// probe says how much the nodes' own word counts.
func (s *Seen) probe() Finding {
	f := Finding{Check: "probe", Subject: s.Name, Severity: OK}
	if s.Mode == engine.ProbeOff {
		f.Severity, f.Detail = Warning, "off: a dead node is noticed only when Consul notices"
		f.Remedy = "remove `probe off`"
		return f
	}
	var full, life, other, alone []string
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Look.OtherKind {
			other = append(other, n.Label)
			continue
		}
		switch n.Probe.Result {
		case engine.ResultTLS:
			life = append(life, n.Label)
		case engine.ResultNone, engine.ResultTimeout, engine.ResultRefused, engine.ResultOther:
			alone = append(alone, n.Label)
		default:
			full = append(full, n.Label)
		}
	}
	if len(life)+len(other)+len(alone) == 0 {
		f.Detail = fmt.Sprintf("%s: all nodes are judged in full, by their own word", s.Mode)
		return f
	}
	f.Severity = Warning
	var parts, remedies []string
	if len(full) > 0 {
		parts = append(parts, "judged in full: "+strings.Join(full, ", "))
	}
	if len(life) > 0 {
		kind := "judged by life only, since TLS is not trusted: "
		if s.Mode == engine.ProbeStrict {
			kind, f.Severity = "never used, since TLS is not trusted: ", Wrong
		}
		parts = append(parts, kind+strings.Join(life, ", "))
		remedies = append(remedies, "set "+s.trustOption())
	}
	if len(other) > 0 {
		f.Severity = Wrong
		parts = append(parts, "asked by the wrong scheme: "+strings.Join(other, ", "))
		remedies = append(remedies, "see scheme")
	}
	if len(alone) > 0 {
		kind := "judged by Consul alone, since not reached: "
		if s.Mode == engine.ProbeStrict {
			kind = "not used, since not reached: "
		}
		parts = append(parts, kind+strings.Join(alone, ", "))
		remedies = append(remedies, "see reach")
	}
	f.Detail, f.Remedy = string(s.Mode)+": "+strings.Join(parts, "; "), strings.Join(remedies, "; ")
	return f
}

// trustOption is the option that has the probes trust the nodes' certificates.
func (s *Seen) trustOption() string {
	if s.Selection.Mode == discovery.ByProbe {
		return "`vault <url>... { tls { ca FILE } }` to the CA of the nodes' certificates"
	}
	return "`probe { tls { ca FILE } }` to the CA of the nodes' certificates"
}

// standby says who could take over.
func (s *Seen) standby() Finding {
	var ready, sealed []string
	for i := range s.Nodes {
		n := &s.Nodes[i]
		switch code := n.code(); {
		case code == 429, code == 473, code == 0 && n.State == engine.NodeStandby && n.Look.ConnectErr == "" && n.Look.LookupErr == "":
			ready = append(ready, n.Label)
		case code == 503:
			sealed = append(sealed, n.Label)
		}
	}
	f := Finding{Check: "standby", Subject: s.Name, Severity: OK, Detail: "can take over: " + strings.Join(ready, ", ")}
	if len(ready) == 0 {
		f.Severity, f.Detail = Warning, "no node can take over when the active one stops"
		if f.Remedy = "add a node to the cluster"; len(sealed) > 0 {
			f.Remedy = "unseal " + strings.Join(sealed, ", ")
		} else if len(s.Nodes) > 1 {
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
