// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// membersOf returns the nodes with what discovery says of them.
func membersOf(nodes []discovery.Node, s discovery.Selection, a Addressing) []member {
	marks := marksOf(s, nodes)
	members := make([]member, len(nodes))
	for i := range nodes {
		m := &members[i]
		m.node = nodes[i]
		m.index, m.marked = marks(&m.node)
		m.health, m.own = healthOf(&m.node)
		a.locate(m)
	}
	spreadMaintenance(members)
	return members
}

// spreadMaintenance takes a Vault that is registered several times, with one address, out with any of its registrations. Where all
// nodes have the same address, that is a balancer's, and none of them takes the others out.
func spreadMaintenance(members []member) {
	out, same := map[string]bool{}, true
	for i := range members {
		m := &members[i]
		out[m.target.URL] = out[m.target.URL] || m.health == healthMaintenance
		same = same && m.target.URL == members[0].target.URL
	}
	for i := range members {
		if m := &members[i]; !same && m.bad == "" && out[m.target.URL] {
			m.health, m.own = healthMaintenance, healthMaintenance
		}
	}
}

// MarkedBy says what marks the active node among nodes, with mode auto resolved to what it amounts to. With by check, an
// empty checkID stands for all checks of an instance.
func MarkedBy(s discovery.Selection, nodes []discovery.Node) (mode, checkID string) {
	if mode = s.Mode; mode == discovery.ByAuto {
		mode = discovery.ByCheck
		if slices.ContainsFunc(nodes, func(n discovery.Node) bool { return tagged(s, &n) }) {
			mode = discovery.ByTag
		}
	}
	if mode != discovery.ByCheck {
		return mode, ""
	}
	if checkID = s.CheckID; checkID == "" {
		checkID = "service:" + s.Service
		if !slices.ContainsFunc(nodes, func(n discovery.Node) bool { return checkOf(&n, checkID) != nil }) {
			checkID = ""
		}
	}
	return mode, checkID
}

// marksOf returns the test for what marks the active node; the test also gives the index of what it decided on.
func marksOf(s discovery.Selection, nodes []discovery.Node) func(*discovery.Node) (index uint64, marked bool) {
	mode, id := MarkedBy(s, nodes)
	switch {
	case mode == discovery.ByProbe:
		return func(*discovery.Node) (uint64, bool) { return 0, true }
	case mode == discovery.ByTag:
		return func(n *discovery.Node) (uint64, bool) { return n.Index, slices.Contains(n.Tags, s.Tag) }
	case id == "":
		return allServiceChecksPass
	}
	return func(n *discovery.Node) (uint64, bool) {
		c := checkOf(n, id)
		if c == nil {
			return 0, false
		}
		return c.Index, c.Status == discovery.StatusPassing
	}
}

// tagged reports whether n carries a tag that tells active nodes from standbys. One is enough for mode auto to go by tags:
// a cluster in mid-election has only standbys, and every unsealed standby passes its checks.
func tagged(s discovery.Selection, n *discovery.Node) bool {
	return slices.ContainsFunc(n.Tags, func(tag string) bool {
		return slices.Contains([]string{s.Tag, "active", "standby", "performance-standby"}, tag)
	})
}

// checkOf returns the check with the ID, nil if there is none.
func checkOf(n *discovery.Node, id string) *discovery.Check {
	for i := range n.Checks {
		if n.Checks[i].ID == id {
			return &n.Checks[i]
		}
	}
	return nil
}

// allServiceChecksPass marks a node by all checks of its instance. One without any proves nothing, so it is not marked.
func allServiceChecksPass(n *discovery.Node) (index uint64, marked bool) {
	for _, c := range n.Checks {
		if !c.Service {
			continue
		}
		if c.Status != discovery.StatusPassing {
			return 0, false
		}
		index, marked = max(index, c.Index), true
	}
	return index, marked
}

// saysSame reports whether two registrations of an instance are equal but for their indexes. Those rise also when a registration is
// written again, or a check passes once more.
func saysSame(a, b *discovery.Node) bool {
	plain := func(n discovery.Node) discovery.Node {
		n.Index = 0
		n.Checks = slices.Clone(n.Checks)
		for i := range n.Checks {
			n.Checks[i].Index = 0
		}
		return n
	}
	return reflect.DeepEqual(plain(*a), plain(*b))
}

// health is the aggregate of all checks of a node; the greater the better.
type health int

const (
	healthMaintenance health = iota
	healthCritical           // or a status that is not known
	healthWarning
	healthPassing
)

// healthOf aggregates the checks of the node and of the instance as Consul does, the worst one counts, and those of the instance
// alone.
// See https://developer.hashicorp.com/consul/docs/services/usage/checks.
func healthOf(n *discovery.Node) (all, own health) {
	all, own = healthPassing, healthPassing
	for _, c := range n.Checks {
		h := healthPassing
		switch {
		case c.ID == "_node_maintenance" || strings.HasPrefix(c.ID, "_service_maintenance:"):
			return healthMaintenance, healthMaintenance
		case c.Status == discovery.StatusPassing:
		case c.Status == discovery.StatusWarning:
			h = healthWarning
		default:
			h = healthCritical
		}
		if all = min(all, h); c.Service {
			own = min(own, h)
		}
	}
	return all, own
}

// NothingMarks reports whether the instances have neither tags nor checks that could mark an active node.
func NothingMarks(s discovery.Selection, nodes []discovery.Node) bool {
	mode, _ := MarkedBy(s, nodes)
	return len(nodes) > 0 && mode == discovery.ByCheck && !slices.ContainsFunc(nodes, HasCheck)
}

// HasCheck reports whether an instance has a check of its own.
func HasCheck(n discovery.Node) bool {
	return slices.ContainsFunc(n.Checks, func(c discovery.Check) bool { return c.Service })
}

// LacksPort reports whether Vault has registered a node with an api_addr that has no port, and clients are sent to the port that
// it took instead: such a registration has no address either, and an ID that shows both, as "vault::443". With the option port,
// it is usable.
func LacksPort(n *discovery.Node, url string) bool {
	port := ":" + strconv.Itoa(n.Port)
	return n.ServiceAddress == "" && strings.HasSuffix(n.ID, ":"+port) && strings.HasSuffix(url, port)
}
