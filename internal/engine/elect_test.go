// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"slices"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// electNode is a healthy instance without tags that is reached by the node's name.
func electNode(name string, opts ...func(*discovery.Node)) discovery.Node {
	n := discovery.Node{Name: name, ID: "vault", Address: "10.0.0.1", Port: 8200, Checks: []discovery.Check{{ID: "serfHealth", Status: "passing"}}}
	for _, opt := range opts {
		opt(&n)
	}
	return n
}

func withTags(tags ...string) func(*discovery.Node) { return func(n *discovery.Node) { n.Tags = tags } }
func withIndex(i uint64) func(*discovery.Node)      { return func(n *discovery.Node) { n.Index = i } }
func withPort(p int) func(*discovery.Node)          { return func(n *discovery.Node) { n.Port = p } }
func withID(id string) func(*discovery.Node)        { return func(n *discovery.Node) { n.ID = id } }
func withServiceAddress(a string) func(*discovery.Node) {
	return func(n *discovery.Node) { n.ServiceAddress = a }
}

func withNodeCheck(id, st string) func(*discovery.Node) {
	return func(n *discovery.Node) { n.Checks = append(n.Checks, discovery.Check{ID: id, Status: st}) }
}

func withCheck(id, st string, index uint64) func(*discovery.Node) {
	return func(n *discovery.Node) {
		n.Checks = append(n.Checks, discovery.Check{ID: id, Status: st, Service: true, Index: index})
	}
}

func withSealedCheck(st string) func(*discovery.Node) {
	return withCheck("vault:10.0.0.1:8200:vault-sealed-check", st, 5)
}
func withAPICheck(st string) func(*discovery.Node) { return withCheck("api", st, 5) }
func withOwnCheck(st string) func(*discovery.Node) { return withCheck("service:vault", st, 5) }

func electMembers(t testing.TB, s discovery.Selection) func([]discovery.Node) []member {
	t.Helper()
	a, err := NewAddressing("https", "auto", 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Tag, s.Service = cmp.Or(s.Tag, "active"), "vault"
	return func(nodes []discovery.Node) []member { return membersOf(nodes, s, a) }
}

var (
	isActive      = withTags("active", "initialized")
	isStandby     = withTags("standby", "initialized")
	isPerformance = withTags("performance-standby")

	byTag   = discovery.Selection{Mode: "tag"}
	byAuto  = discovery.Selection{Mode: "auto"}
	byCheck = discovery.Selection{Mode: "check"}
	byAPI   = discovery.Selection{Mode: "check", CheckID: "api"}
)

// electRow is an election by what discovery says alone.
type electRow struct {
	name      string
	sel       discovery.Selection
	incumbent string
	nodes     []discovery.Node
	want      string           // name of the elected node
	reason    discovery.Reason // ok unless set
}

func runElectRows(t *testing.T, rows []electRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := electMembers(t, row.sel)
			for range 2 {
				checkElection(t, elect(p(row.nodes), discovery.Identity{Name: row.incumbent, ID: "vault"}, false), row.want, row.reason)
				slices.Reverse(row.nodes)
			}
		})
	}
}

func (e election) identity() discovery.Identity {
	if e.elected == nil {
		return discovery.Identity{}
	}
	return e.elected.node.Identity()
}

func (e election) url() string {
	if e.elected == nil {
		return ""
	}
	return e.elected.target.URL
}

func checkElection(t *testing.T, e election, want string, reason discovery.Reason) {
	t.Helper()
	if e.elected != nil && (e.elected.target.Authority == "" || !slices.Contains(e.candidates, e.identity().String())) {
		t.Errorf("target %+v, candidates %q", e.elected.target, e.candidates)
	}
	if reason = cmp.Or(reason, discovery.ReasonOK); e.identity().Name != want || e.reason != reason {
		t.Errorf("elected %q (%s: %s), want %q (%s)", e.identity().Name, e.reason, e.detail, want, reason)
	}
}

var choiceRows = []electRow{
	{name: "two: the better check of the instance before the newer mark", sel: byTag, incumbent: "a", nodes: []discovery.Node{electNode("a", isActive, withIndex(9), withSealedCheck("warning")), electNode("b", isActive, withIndex(1))}, want: "b"},
	{name: "two: the newer mark before a better check of the machine", sel: byTag, incumbent: "b", nodes: []discovery.Node{electNode("a", isActive, withIndex(9), withNodeCheck("disk", "warning")), electNode("b", isActive, withIndex(1))}, want: "a"},
	{name: "two: the better check of the machine before the incumbent", sel: byTag, incumbent: "a", nodes: []discovery.Node{electNode("a", isActive, withNodeCheck("disk", "warning")), electNode("b", isActive)}, want: "b"},
	{name: "a static tag on every node, and an HTTP check", sel: byTag, incumbent: "c", nodes: []discovery.Node{electNode("a", isActive, withIndex(7), withAPICheck("passing")), electNode("b", isActive, withIndex(8), withAPICheck("warning")), electNode("c", isActive, withIndex(9), withAPICheck("warning"))}, want: "a"},
	{name: "two: passing before warning", sel: byTag, incumbent: "a", nodes: []discovery.Node{electNode("a", isActive, withIndex(9), withSealedCheck("warning")), electNode("b", isActive, withIndex(9))}, want: "b"},
	{name: "two: higher ModifyIndex", sel: byTag, incumbent: "a", nodes: []discovery.Node{electNode("a", isActive, withIndex(8)), electNode("b", isActive, withIndex(9))}, want: "b"},
	{name: "two: the index of the check, not of the service", sel: byAPI, nodes: []discovery.Node{electNode("a", withIndex(99), withCheck("api", "passing", 3)), electNode("b", withIndex(1), withCheck("api", "passing", 4))}, want: "b"},
	{name: "two: the index of the service, not of a check", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withIndex(1), withCheck("x", "passing", 99)), electNode("b", isActive, withIndex(2))}, want: "b"},
	{name: "two: the highest index of the checks", sel: byCheck, nodes: []discovery.Node{electNode("a", withCheck("x", "passing", 9), withCheck("y", "passing", 1)), electNode("b", withCheck("x", "passing", 3), withCheck("y", "passing", 3))}, want: "a"},
	{name: "two: the incumbent", sel: byTag, incumbent: "b", nodes: []discovery.Node{electNode("a", isActive), electNode("b", isActive)}, want: "b"},
	{name: "two: the name", sel: byTag, incumbent: "gone", nodes: []discovery.Node{electNode("b", isActive), electNode("a", isActive)}, want: "a"},
	{name: "two instances on one node", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withID("v2"), withPort(8202)), electNode("a", isActive, withID("v1"))}, want: "a"},
	// Names are compared as a whole: "-" and "." sort before "/".
	{name: "two: the name is compared as a whole", sel: byTag, nodes: []discovery.Node{electNode("vault-1", isActive), electNode("vault", isActive)}, want: "vault"},
}

func TestElectChooses(t *testing.T) { runElectRows(t, choiceRows) }

// said gives a member the word of its node, and what its last probe found.
func said(kind verdictKind, result Result) func(*member) {
	return func(m *member) {
		m.verdict.kind, m.outcome.Result, m.outcome.Detail = kind, result, string(result)
	}
}

func ofCluster(id string) func(*member) { return func(m *member) { m.outcome.ClusterID = id } }

// wordRow is an election in which the nodes' own words count, too.
type wordRow struct {
	name      string
	nodes     []discovery.Node
	words     map[string]func(*member) // by name
	incumbent string
	strict    bool
	want      string
	reason    discovery.Reason
	pending   bool
}

var (
	saysActive  = said(verdictActive, ResultActive)
	saysStandby = said(verdictNotActive, ResultStandby)
	saysSealed  = said(verdictNotActive, ResultSealed)
	isDead      = said(verdictDead, ResultRefused)
	isPending   = said(verdictPending, ResultNone)
	isAlive     = said(verdictAliveOnly, ResultTLS)
	isHidden    = func(m *member) { saysActive(m); m.hidden = true }

	critical    = withNodeCheck("serfHealth2", "critical")
	maintenance = withNodeCheck("_node_maintenance", "critical")
)

func nodesAB(a, b []func(*discovery.Node)) []discovery.Node {
	return []discovery.Node{electNode("a", a...), electNode("b", b...)}
}

type opts = []func(*discovery.Node)

type words = map[string]func(*member)

var wordRows = []wordRow{
	{name: "its own word before any mark", nodes: nodesAB(opts{isActive, withIndex(9)}, opts{isStandby}), words: words{"a": saysStandby, "b": saysActive}, want: "b"},
	{name: "its own word before a node that is merely marked", nodes: nodesAB(opts{isActive, withIndex(9)}, opts{isStandby}), words: words{"b": saysActive}, want: "b"},
	{name: "a standby by its own word", nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": saysStandby}, reason: discovery.ReasonNoActive},
	{name: "sealed by its own word", nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": saysSealed}, reason: discovery.ReasonUnhealthy},
	{name: "dead", nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": isDead}, reason: discovery.ReasonUnhealthy},
	{name: "alive, so discovery decides", nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": isAlive, "b": isAlive}, want: "a"},
	// A dead Consul agent is no dead Vault.
	{name: "its own word before critical checks", nodes: nodesAB(opts{isActive, critical}, opts{isStandby}), words: words{"a": saysActive}, want: "a"},
	{name: "critical, and nothing but alive", nodes: nodesAB(opts{isActive, critical}, opts{isStandby}), words: words{"a": isAlive}, reason: discovery.ReasonUnhealthy},
	{name: "critical, and asked anew", nodes: nodesAB(opts{isActive, critical}, opts{isStandby}), words: words{"a": isPending}, incumbent: "a", reason: discovery.ReasonUnhealthy},
	{name: "never in maintenance", nodes: nodesAB(opts{isActive, maintenance}, opts{isStandby}), words: words{"a": saysActive}, reason: discovery.ReasonUnhealthy},
	{name: "never without an address", nodes: nodesAB(opts{isActive, withPort(0)}, opts{isStandby}), words: words{"a": saysActive}, reason: discovery.ReasonBadAddress},
	{name: "two, neither marked: the incumbent", nodes: nodesAB(opts{isStandby}, opts{isStandby}), words: words{"a": saysActive, "b": saysActive}, incumbent: "b", want: "b"},
	{name: "two: the newer mark", nodes: nodesAB(opts{isActive, withIndex(1)}, opts{isActive, withIndex(2)}), words: words{"a": saysActive, "b": saysActive}, incumbent: "a", want: "b"},
	{name: "pending", nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": isPending}, reason: discovery.ReasonNoActive, pending: true},
	{name: "pending, but the incumbent stands", nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": isPending}, incumbent: "a", want: "a"},
	{name: "a standby that is pending is not waited for", nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"b": isPending}, want: "a"},
	{name: "hidden, but its own word proves it", nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": isHidden}, want: "a"},

	{name: "strict: its own word", strict: true, nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": saysStandby, "b": saysActive}, want: "b"},
	{name: "strict: a mark is not enough", strict: true, nodes: nodesAB(opts{isActive}, opts{isStandby}), incumbent: "a", reason: discovery.ReasonNoActive},
	{name: "strict: the incumbent does not stand", strict: true, nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": isPending}, incumbent: "a", reason: discovery.ReasonNoActive, pending: true},
	{name: "strict: alive is not enough", strict: true, nodes: nodesAB(opts{isActive}, opts{isStandby}), words: words{"a": isAlive}, reason: discovery.ReasonNoActive},
}

func TestElectByWord(t *testing.T) {
	for _, row := range wordRows {
		t.Run(row.name, func(t *testing.T) {
			members := electMembers(t, byTag)(row.nodes)
			for i := range members {
				if say := row.words[members[i].node.Name]; say != nil {
					say(&members[i])
				}
			}
			for range 2 {
				e := elect(members, discovery.Identity{Name: row.incumbent, ID: "vault"}, row.strict)
				checkElection(t, e, row.want, row.reason)
				if e.pending != row.pending {
					t.Errorf("pending: %v, want %v", e.pending, row.pending)
				}
				slices.Reverse(members)
			}
		})
	}
}

// Two clusters under one service name are told from a cluster in which two nodes think that they are active.
func TestElectSeesDifferentClusters(t *testing.T) {
	for ids, want := range map[[2]string]bool{{"x", "y"}: true, {"x", "x"}: false, {"x", ""}: false} {
		members := electMembers(t, byTag)(nodesAB(opts{isActive}, opts{isActive}))
		for i := range members {
			saysActive(&members[i])
			ofCluster(ids[i])(&members[i])
		}
		if e := elect(members, discovery.Identity{}, false); e.clusters != want || len(e.candidates) != 2 {
			t.Errorf("%q: different clusters: %v, %d candidates", ids, e.clusters, len(e.candidates))
		}
	}
}

// Each rule of the order decides where those above it do not, whatever those below say.
func TestOrderOfTheElection(t *testing.T) {
	says := func(r Result) func(*member) {
		return func(m *member) {
			switch m.verdict.kind = verdictNotActive; r {
			case ResultActive:
				m.verdict.kind = verdictActive
			case ResultTLS:
				m.verdict.kind = verdictAliveOnly
			}
			m.outcome.Result = r
		}
	}
	for _, row := range []struct {
		name          string
		better, worse func(*member)
	}{
		{"says itself that it is active", says(ResultActive), func(*member) {}},
		{"is registered", func(*member) {}, func(m *member) { m.gone = true }},
		{"is marked", func(m *member) { m.marked = true }, func(m *member) { m.marked = false }},
		{"the better check of the instance", func(m *member) { m.own = healthPassing }, func(m *member) { m.own = healthWarning }},
		{"does not deny it, trusted or not", func(*member) {}, func(m *member) { m.outcome.Result, m.outcome.Unproven = ResultTLS, ResultStandby }},
		{"the newer mark", func(m *member) { m.index = 9 }, func(m *member) { m.index = 7 }},
		{"the better aggregate", func(m *member) { m.health = healthPassing }, func(m *member) { m.health = healthWarning }},
		{"the incumbent", func(m *member) { m.node.ID = "incumbent" }, func(m *member) { m.node.ID = "another" }},
		{"the name", func(m *member) { m.node.Name = "a" }, func(m *member) { m.node.Name = "b" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := member{node: electNode("n"), own: healthPassing, health: healthPassing}, member{node: electNode("n"), own: healthPassing, health: healthPassing}
			row.better(&a)
			row.worse(&b)
			incumbent := discovery.Identity{Name: "n", ID: "incumbent"}
			if a.compare(&b, incumbent) >= 0 || b.compare(&a, incumbent) <= 0 {
				t.Errorf("%d and %d", a.compare(&b, incumbent), b.compare(&a, incumbent))
			}
		})
	}
}

// One Vault is one candidate, however often it is registered, and counts by its better registration. A registration in maintenance
// takes it out, unless all nodes have that address: then it is that of a balancer.
func TestElectOneVaultRegisteredTwice(t *testing.T) {
	at := withServiceAddress
	for _, row := range []struct {
		name       string
		nodes      []discovery.Node
		want       string
		candidates int
		reason     discovery.Reason
	}{
		{"critical on one Consul node, passing on the other", []discovery.Node{
			electNode("client-1", isActive, at("v1"), withIndex(9), withSealedCheck("critical")), electNode("client-2", isActive, at("v1"), withIndex(7), withSealedCheck("passing")), electNode("v2", isStandby),
		}, "client-2", 1, discovery.ReasonOK},
		{"both passing", []discovery.Node{electNode("client-1", isActive, at("v1"), withIndex(9)), electNode("client-2", isActive, at("v1"), withIndex(7)), electNode("v2", isStandby)}, "client-1", 1, discovery.ReasonOK},
		{"an own definition without tags", []discovery.Node{electNode("v1", isActive, withID("vault:v1:8200")), electNode("v1", withID("own")), electNode("v2", isStandby)}, "v1", 1, discovery.ReasonOK},
		{"two Vaults", []discovery.Node{electNode("v1", isActive), electNode("v2", isActive), electNode("v1x", isActive, at("v1"))}, "v1", 2, discovery.ReasonOK},
		{"one registration in maintenance", []discovery.Node{electNode("client-1", isActive, at("v1"), withNodeCheck("_node_maintenance", "critical")), electNode("client-2", isActive, at("v1")), electNode("v2", isStandby)}, "", 0, discovery.ReasonUnhealthy},
		{"all with the address of a balancer", []discovery.Node{electNode("v1", isStandby, at("lb")), electNode("v2", isActive, at("lb"), withIndex(3)), electNode("v3", isStandby, at("lb"), withIndex(9))}, "v2", 1, discovery.ReasonOK},
		{"the same, a standby in maintenance", []discovery.Node{electNode("v1", isStandby, at("lb"), withNodeCheck("_node_maintenance", "critical")), electNode("v2", isActive, at("lb"))}, "v2", 1, discovery.ReasonOK},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := elect(electMembers(t, byAuto)(row.nodes), discovery.Identity{}, false)
			if e.identity().Name != row.want || e.reason != row.reason || len(e.candidates) != row.candidates {
				t.Errorf("elected %q (%s: %s), candidates %q", e.identity().Name, e.reason, e.detail, e.candidates)
			}
		})
	}
}
