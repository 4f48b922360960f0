// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the election: a table over its rules, and properties of random clusters.

package vaultredirect

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/hashicorp/consul/api"
)

// electNode is a healthy instance without tags that is reached by the node's name.
func electNode(name string, opts ...func(*Node)) Node {
	n := Node{Name: name, ID: "vault", Address: "10.0.0.1", Port: 8200, Checks: []Check{{ID: "serfHealth", Status: "passing"}}}
	for _, opt := range opts {
		opt(&n)
	}
	return n
}

func withTags(tags ...string) func(*Node)     { return func(n *Node) { n.Tags = tags } }
func withIndex(i uint64) func(*Node)          { return func(n *Node) { n.Index = i } }
func withPort(p int) func(*Node)              { return func(n *Node) { n.Port = p } }
func withID(id string) func(*Node)            { return func(n *Node) { n.ID = id } }
func withServiceAddress(a string) func(*Node) { return func(n *Node) { n.ServiceAddress = a } }
func withNodeCheck(id, st string) func(*Node) {
	return func(n *Node) { n.Checks = append(n.Checks, Check{ID: id, Status: st}) }
}

func withCheck(id, st string, index uint64) func(*Node) {
	return func(n *Node) { n.Checks = append(n.Checks, Check{ID: id, Status: st, Service: true, Index: index}) }
}

func electPolicy(t testing.TB, s Selection) policy {
	t.Helper()
	a, err := newAddressing("https", "auto", 0)
	if err != nil {
		t.Fatal(err)
	}
	if s.Tag == "" {
		s.Tag = "active"
	}
	s.Service = "vault"
	return policy{selection: s, addressing: a}
}

var (
	byTag   = Selection{Mode: "tag"}
	byAuto  = Selection{Mode: "auto"}
	byCheck = Selection{Mode: "check"}
	byAPI   = Selection{Mode: "check", CheckID: "api"}
)

func TestElect(t *testing.T) {
	active, standby, perf := withTags("active", "initialized"), withTags("standby", "initialized"), withTags("performance-standby")
	sealed := func(st string) func(*Node) { return withCheck("vault:10.0.0.1:8200:vault-sealed-check", st, 5) }
	manual := func(st string) func(*Node) { return withCheck("api", st, 5) }
	own := func(st string) func(*Node) { return withCheck("service:vault", st, 5) }
	for _, tc := range []struct {
		name      string
		sel       Selection
		incumbent string
		nodes     []Node
		want      string // name of the elected node
		reason    Reason // ok unless set
	}{
		{name: "no nodes", sel: byAuto, reason: ReasonNoService},
		{name: "empty list", sel: byAuto, nodes: []Node{}, reason: ReasonNoService},

		{name: "tag: the active one", sel: byTag, nodes: []Node{electNode("a", standby), electNode("b", active), electNode("c", perf)}, want: "b"},
		{name: "tag: another tag", sel: Selection{Mode: "tag", Tag: "leader"}, nodes: []Node{electNode("a", active), electNode("b", withTags("leader"))}, want: "b"},
		{name: "tag: is not a part of a tag", sel: byTag, nodes: []Node{electNode("a", withTags("inactive", "active-dr", "active ", "in,active"))}, reason: ReasonNoActive},
		{name: "tag: case matters", sel: byTag, nodes: []Node{electNode("a", withTags("Active"))}, reason: ReasonNoActive},
		{name: "tag: no tags", sel: byTag, nodes: []Node{electNode("a", own("passing"))}, reason: ReasonNoActive},
		{name: "tag: a check proves nothing", sel: Selection{Mode: "tag", CheckID: "api"}, nodes: []Node{electNode("a", standby, manual("passing"))}, reason: ReasonNoActive},
		{name: "tag: a warning is still alive", sel: byTag, nodes: []Node{electNode("a", active, sealed("warning"))}, want: "a"},
		{name: "tag: no checks at all", sel: byTag, nodes: []Node{{Name: "a", ID: "v", Port: 8200, Tags: []string{"active"}}}, want: "a"},

		{name: "critical service check", sel: byTag, nodes: []Node{electNode("a", active, sealed("critical")), electNode("b", standby)}, reason: ReasonUnhealthy},
		{name: "critical node check", sel: byTag, nodes: []Node{electNode("a", active, withNodeCheck("disk", "critical"))}, reason: ReasonUnhealthy},
		{name: "critical after passing and warning", sel: byTag, nodes: []Node{electNode("a", active, withNodeCheck("x", "warning"), withNodeCheck("y", "critical"), withNodeCheck("z", "passing"))}, reason: ReasonUnhealthy},
		{name: "node maintenance", sel: byTag, nodes: []Node{electNode("a", active, withNodeCheck("_node_maintenance", "critical"))}, reason: ReasonUnhealthy},
		{name: "node maintenance whatever its status", sel: byTag, nodes: []Node{electNode("a", active, withNodeCheck("_node_maintenance", "passing"))}, reason: ReasonUnhealthy},
		{name: "service maintenance", sel: byTag, nodes: []Node{electNode("a", active, withCheck("_service_maintenance:vault:10.0.0.1:8200", "passing", 0))}, reason: ReasonUnhealthy},
		{name: "unknown status", sel: byTag, nodes: []Node{electNode("a", active, sealed("Passing"))}, reason: ReasonUnhealthy},
		{name: "empty status", sel: byTag, nodes: []Node{electNode("a", active, sealed(""))}, reason: ReasonUnhealthy},
		{name: "the dead node keeps its tag", sel: byAuto, incumbent: "a/vault", nodes: []Node{electNode("a", active, withIndex(9), sealed("critical")), electNode("b", active, withIndex(2), sealed("passing"))}, want: "b"},
		{name: "a critical standby does not matter", sel: byTag, nodes: []Node{electNode("a", standby, sealed("critical")), electNode("b", standby)}, reason: ReasonNoActive},

		{name: "unusable address", sel: byTag, nodes: []Node{electNode("a", active, withServiceAddress("evil.com/"))}, reason: ReasonBadAddress},
		{name: "unusable name", sel: byTag, nodes: []Node{electNode("a b", active)}, reason: ReasonBadAddress},
		{name: "port 0", sel: byTag, nodes: []Node{electNode("a", active, withPort(0))}, reason: ReasonBadAddress},
		{name: "port 65536", sel: byTag, nodes: []Node{electNode("a", active, withPort(65536))}, reason: ReasonBadAddress},
		{name: "negative port", sel: byTag, nodes: []Node{electNode("a", active, withPort(-1))}, reason: ReasonBadAddress},
		{name: "one bad address, one good", sel: byTag, nodes: []Node{electNode("a", active, withPort(0), withIndex(9)), electNode("b", active)}, want: "b"},
		{name: "a standby's bad address does not matter", sel: byTag, nodes: []Node{electNode("a", standby, withPort(0))}, reason: ReasonNoActive},

		{name: "check: id given", sel: byAPI, nodes: []Node{electNode("a", manual("warning")), electNode("b", manual("passing"))}, want: "b"},
		{name: "check: node without that check", sel: byAPI, nodes: []Node{electNode("a", own("passing")), electNode("b", manual("warning"))}, reason: ReasonNoActive},
		{name: "check: nobody has it", sel: byAPI, nodes: []Node{electNode("a", own("passing"))}, reason: ReasonNoActive},
		{name: "check: tags do not matter", sel: byAPI, nodes: []Node{electNode("a", active, manual("warning")), electNode("b", standby, manual("passing"))}, want: "b"},
		{name: "check: passes, but another is critical", sel: byAPI, nodes: []Node{electNode("a", manual("passing"), withNodeCheck("disk", "critical"))}, reason: ReasonUnhealthy},
		{name: "check: passes, another warns", sel: byAPI, nodes: []Node{electNode("a", manual("passing"), withNodeCheck("disk", "warning"))}, want: "a"},
		{name: "check: an id is compared as a whole", sel: byAPI, nodes: []Node{electNode("a", withCheck("api2", "passing", 0))}, reason: ReasonNoActive},
		{name: "check: default id", sel: byCheck, nodes: []Node{electNode("a", own("warning")), electNode("b", own("passing"))}, want: "b"},
		{name: "check: default id on one, so others need it too", sel: byCheck, nodes: []Node{electNode("a", own("critical")), electNode("b", withCheck("x", "passing", 0))}, reason: ReasonNoActive},
		{name: "check: none by default id, all must pass", sel: byCheck, nodes: []Node{electNode("a", withCheck("x", "passing", 0), withCheck("y", "warning", 0)), electNode("b", withCheck("x", "passing", 0), withCheck("y", "passing", 0))}, want: "b"},
		{name: "check: a node-level warning is none of the service", sel: byCheck, nodes: []Node{electNode("a", withCheck("x", "passing", 0), withNodeCheck("disk", "warning"))}, want: "a"},

		{name: "auto: tags before checks", sel: Selection{Mode: "auto", CheckID: "api"}, nodes: []Node{electNode("a", active, manual("warning")), electNode("b", standby, manual("passing"))}, want: "a"},
		{name: "auto: only standbys in mid-election", sel: byAuto, nodes: []Node{electNode("a", standby, sealed("passing"), own("passing")), electNode("b", standby, sealed("passing"))}, reason: ReasonNoActive},
		{name: "auto: one performance standby is enough", sel: byAuto, nodes: []Node{electNode("a", own("passing")), electNode("b", perf)}, reason: ReasonNoActive},
		{name: "auto: a dead standby is enough", sel: byAuto, nodes: []Node{electNode("a", own("passing")), electNode("b", standby, sealed("critical"))}, reason: ReasonNoActive},
		{name: "auto: no such tags, so check", sel: byAuto, nodes: []Node{electNode("a", withTags("secrets"), own("warning")), electNode("b", withTags("secrets"), own("passing"))}, want: "b"},
		{name: "auto: a part of a tag is no tag", sel: byAuto, nodes: []Node{electNode("a", withTags("standby-site"), own("passing"))}, want: "a"},

		{name: "the manual's check api", sel: Selection{Mode: "auto", CheckID: "api"}, nodes: []Node{electNode("a", manual("warning")), electNode("b", manual("passing")), electNode("c", manual("warning"))}, want: "b"},
		{name: "the manual's check api, all standby", sel: Selection{Mode: "auto", CheckID: "api"}, nodes: []Node{electNode("a", manual("warning")), electNode("b", manual("warning"))}, reason: ReasonNoActive},

		{name: "two: passing before warning", sel: byTag, incumbent: "a/vault", nodes: []Node{electNode("a", active, withIndex(9), sealed("warning")), electNode("b", active, withIndex(1))}, want: "b"},
		{name: "two: higher ModifyIndex", sel: byTag, incumbent: "a/vault", nodes: []Node{electNode("a", active, withIndex(8)), electNode("b", active, withIndex(9))}, want: "b"},
		{name: "two: the index of the check, not of the service", sel: byAPI, nodes: []Node{electNode("a", withIndex(99), withCheck("api", "passing", 3)), electNode("b", withIndex(1), withCheck("api", "passing", 4))}, want: "b"},
		{name: "two: the index of the service, not of a check", sel: byTag, nodes: []Node{electNode("a", active, withIndex(1), withCheck("x", "passing", 99)), electNode("b", active, withIndex(2))}, want: "b"},
		{name: "two: the highest index of the checks", sel: byCheck, nodes: []Node{electNode("a", withCheck("x", "passing", 9), withCheck("y", "passing", 1)), electNode("b", withCheck("x", "passing", 3), withCheck("y", "passing", 3))}, want: "a"},
		{name: "two: the incumbent", sel: byTag, incumbent: "b/vault", nodes: []Node{electNode("a", active), electNode("b", active)}, want: "b"},
		{name: "two: the name", sel: byTag, incumbent: "gone/vault", nodes: []Node{electNode("b", active), electNode("a", active)}, want: "a"},
		{name: "two instances on one node", sel: byTag, nodes: []Node{electNode("a", active, withID("v2"), withPort(8202)), electNode("a", active, withID("v1"))}, want: "a"},
		// Names are compared as a whole: "-" and "." sort before "/".
		{name: "two: the name is compared as a whole", sel: byTag, nodes: []Node{electNode("vault-1", active), electNode("vault", active)}, want: "vault"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := electPolicy(t, tc.sel)
			for range 2 {
				checkElection(t, elect(tc.nodes, p, tc.incumbent), tc.want, tc.reason)
				slices.Reverse(tc.nodes)
			}
		})
	}
}

func checkElection(t *testing.T, e election, want string, reason Reason) {
	t.Helper()
	got := ""
	if e.node != nil {
		got = e.node.Name
		if e.target.authority == "" || !slices.Contains(e.contenders, e.node.key()) {
			t.Errorf("target %+v, contenders %q", e.target, e.contenders)
		}
	}
	if reason = cmp.Or(reason, ReasonOK); got != want || e.reason != reason {
		t.Errorf("elected %q (%s: %s), want %q (%s)", got, e.reason, e.detail, want, reason)
	}
}

// originalCluster is the cluster in the test data of vault-redirector, where active is the node whose check passes.
func originalCluster(active string) []Node {
	var nodes []Node
	for i, index := range []uint64{7, 17, 21, 16, 23} {
		name, status := fmt.Sprint("node", i), "warning"
		if name == active {
			status = "passing"
		}
		nodes = append(nodes, Node{
			Name: name, ID: "vault", Address: fmt.Sprint("172.17.0.", i+2), Port: 8200, Tags: []string{"secrets"}, Index: index,
			Checks: []Check{{ID: "serfHealth", Status: "passing"}, {ID: "service:vault", Status: status, Service: true, Index: index}},
		})
	}
	return nodes
}

func TestElectOriginalData(t *testing.T) {
	p := electPolicy(t, byAuto)
	e := elect(originalCluster("node2"), p, "")
	checkElection(t, e, "node2", ReasonOK)
	if e.target.url != "https://node2:8200" || len(e.contenders) != 1 {
		t.Errorf("target %q, contenders %q", e.target.url, e.contenders)
	}
	checkElection(t, elect(originalCluster(""), p, "node2/vault"), "", ReasonNoActive)
}

// TestElectProperties elects in random clusters and judges by an oracle that shares nothing with the code:
// Consul's own aggregation, addresses known to be good or bad by construction, and the rules as a sort.
func TestElectProperties(t *testing.T) {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("ELECT_SEED"), 10, 64); err == nil {
		seed = s
	}
	r, elected := rand.New(rand.NewPCG(seed, 0)), 0
	for i := range 4000 {
		sel := Selection{Mode: []string{"auto", "tag", "check"}[r.IntN(3)], CheckID: []string{"", "", "api"}[r.IntN(3)]}
		p, nodes := electPolicy(t, sel), randomCluster(r)
		incumbent := nodes[r.IntN(len(nodes))].key()
		want, reasons := electOracle(nodes, p.selection, incumbent)
		var first election
		for order := range 4 {
			e := elect(nodes, p, incumbent)
			got := ""
			if e.node != nil {
				got = e.node.key()
			}
			if got != want || !slices.Contains(reasons, e.reason) {
				t.Fatalf("ELECT_SEED=%d cluster %d order %d, %+v, incumbent %s: elected %q (%s), want %q %v\n%+v",
					seed, i, order, p.selection, incumbent, got, e.reason, want, reasons, nodes)
			}
			if order == 0 {
				first = e
			}
			if e.reason != first.reason || e.detail != first.detail || e.target != first.target || !slices.Equal(e.contenders, first.contenders) {
				t.Fatalf("ELECT_SEED=%d cluster %d: another order, another outcome: %+v, then %+v", seed, i, first, e)
			}
			r.Shuffle(len(nodes), func(a, b int) { nodes[a], nodes[b] = nodes[b], nodes[a] })
			for k := range nodes {
				n := &nodes[k]
				r.Shuffle(len(n.Tags), func(a, b int) { n.Tags[a], n.Tags[b] = n.Tags[b], n.Tags[a] })
				r.Shuffle(len(n.Checks), func(a, b int) { n.Checks[a], n.Checks[b] = n.Checks[b], n.Checks[a] })
				// Nothing of this decides.
				n.Meta, n.Datacenter, n.Address = map[string]string{"x": fmt.Sprint(order)}, fmt.Sprint("dc", order), fmt.Sprint("10.0.0.", order)
			}
		}
		if want != "" {
			elected++
		}
		if again := elect(nodes, p, want); want != "" && again.node.key() != want {
			t.Fatalf("ELECT_SEED=%d cluster %d: %s did not stay, %s took over", seed, i, want, again.node.key())
		}
	}
	if elected < 800 || elected > 3200 {
		t.Errorf("ELECT_SEED=%d: %d of 4000 clusters elected a node: the clusters are too much alike", seed, elected)
	}
}

func randomCluster(r *rand.Rand) []Node {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	nodes := make([]Node, 1+r.IntN(50))
	odds := 2 + r.IntN(40) // some clusters are mostly sound, some are not
	ids := []string{"serfHealth", "disk", "api", "x", "_node_maintenance", "_service_maintenance:v1", "service:vault"}[:6+r.IntN(2)]
	for i := range nodes {
		n := Node{Name: fmt.Sprintf("n%02d", i), ID: pick("v1", "v2"), Port: 8200, Index: r.Uint64N(4)}
		if r.IntN(odds) == 0 {
			n.ServiceAddress, n.Port = pick("evil.com/", "a@b", "", "10.0.0.9"), []int{0, -1, 65536, 8200}[r.IntN(4)]
		}
		for _, tag := range []string{"active", "standby", "performance-standby", "inactive", "secrets"} {
			if r.IntN(odds) == 0 {
				n.Tags = append(n.Tags, tag)
			}
		}
		for _, id := range ids {
			if r.IntN(3) > 0 && (id[0] != '_' || r.IntN(odds) == 0) {
				c := Check{ID: id, Status: "passing", Service: id != "serfHealth" && id != "disk" && id != "_node_maintenance", Index: r.Uint64N(4)}
				if r.IntN(odds) == 0 {
					c.Status = pick("warning", "warning", "critical", "", "unknown")
				}
				n.Checks = append(n.Checks, c)
			}
		}
		nodes[i] = n
	}
	return nodes
}

// electOracle returns the key of the node to elect and, if there is none, the reasons that may be given.
func electOracle(nodes []Node, s Selection, incumbent string) (want string, reasons []Reason) {
	tags, checks := map[string]bool{}, map[string]bool{}
	for _, n := range nodes {
		for _, tag := range n.Tags {
			tags[tag] = true
		}
		for _, c := range n.Checks {
			checks[c.ID] = true
		}
	}
	useTag := s.Mode == "tag" || s.Mode == "auto" && (tags["active"] || tags["standby"] || tags["performance-standby"])
	id := s.CheckID
	if id == "" && checks["service:vault"] {
		id = "service:vault"
	}
	type ranked struct{ key, order string }
	var candidates []ranked
	reasons = []Reason{ReasonNoActive}
	for _, n := range nodes {
		index, marked, all := uint64(0), false, api.HealthChecks{}
		service, passing := 0, 0
		for _, c := range n.Checks {
			all = append(all, &api.HealthCheck{CheckID: c.ID, Status: c.Status})
			if id != "" && c.ID != id || id == "" && !c.Service || useTag {
				continue
			}
			service, index = service+1, max(index, c.Index)
			if c.Status == "passing" {
				passing++
			}
		}
		marked = service > 0 && passing == service
		if useTag {
			index, marked = n.Index, slices.Contains(n.Tags, s.Tag)
		}
		status := all.AggregatedStatus()
		healthy := status == api.HealthPassing || status == api.HealthWarning
		usable := n.ServiceAddress != "evil.com/" && n.ServiceAddress != "a@b" && n.Port == 8200
		switch {
		case !marked:
		case healthy && usable:
			// The rules as text that sorts: what is better comes first.
			candidates = append(candidates, ranked{n.key(), fmt.Sprint(status != "passing", 9-index, n.key() != incumbent, n.Name)})
		case healthy:
			reasons = append(reasons, ReasonBadAddress)
		default:
			reasons = append(reasons, ReasonUnhealthy)
		}
	}
	if len(candidates) == 0 {
		return "", reasons[min(1, len(reasons)-1):] // no_active only if none is marked
	}
	return slices.MinFunc(candidates, func(a, b ranked) int {
		if a.order < b.order {
			return -1
		}
		return 1
	}).key, []Reason{ReasonOK}
}
