// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"fmt"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

var markRows = []electRow{
	{name: "no nodes", sel: byAuto, reason: discovery.ReasonNoService},
	{name: "empty list", sel: byAuto, nodes: []discovery.Node{}, reason: discovery.ReasonNoService},

	{name: "tag: the active one", sel: byTag, nodes: []discovery.Node{electNode("a", isStandby), electNode("b", isActive), electNode("c", isPerformance)}, want: "b"},
	{name: "tag: another tag", sel: discovery.Selection{Mode: "tag", Tag: "leader"}, nodes: []discovery.Node{electNode("a", isActive), electNode("b", withTags("leader"))}, want: "b"},
	{name: "tag: is not a part of a tag", sel: byTag, nodes: []discovery.Node{electNode("a", withTags("inactive", "active-dr", "active ", "in,active"))}, reason: discovery.ReasonNoActive},
	{name: "tag: case matters", sel: byTag, nodes: []discovery.Node{electNode("a", withTags("Active"))}, reason: discovery.ReasonNoActive},
	{name: "tag: no tags", sel: byTag, nodes: []discovery.Node{electNode("a", withOwnCheck("passing"))}, reason: discovery.ReasonNoActive},
	{name: "tag: a check proves nothing", sel: discovery.Selection{Mode: "tag", CheckID: "api"}, nodes: []discovery.Node{electNode("a", isStandby, withAPICheck("passing"))}, reason: discovery.ReasonNoActive},
	{name: "tag: a warning is still alive", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withSealedCheck("warning"))}, want: "a"},
	{name: "tag: no checks at all", sel: byTag, nodes: []discovery.Node{{Name: "a", ID: "v", Port: 8200, Tags: []string{"active"}}}, want: "a"},

	{name: "check: id given", sel: byAPI, nodes: []discovery.Node{electNode("a", withAPICheck("warning")), electNode("b", withAPICheck("passing"))}, want: "b"},
	{name: "check: node without that check", sel: byAPI, nodes: []discovery.Node{electNode("a", withOwnCheck("passing")), electNode("b", withAPICheck("warning"))}, reason: discovery.ReasonNoActive},
	{name: "check: nobody has it", sel: byAPI, nodes: []discovery.Node{electNode("a", withOwnCheck("passing"))}, reason: discovery.ReasonNoActive},
	{name: "check: tags do not matter", sel: byAPI, nodes: []discovery.Node{electNode("a", isActive, withAPICheck("warning")), electNode("b", isStandby, withAPICheck("passing"))}, want: "b"},
	{name: "check: passes, but another is critical", sel: byAPI, nodes: []discovery.Node{electNode("a", withAPICheck("passing"), withNodeCheck("disk", "critical"))}, reason: discovery.ReasonUnhealthy},
	{name: "check: passes, another warns", sel: byAPI, nodes: []discovery.Node{electNode("a", withAPICheck("passing"), withNodeCheck("disk", "warning"))}, want: "a"},
	{name: "check: an id is compared as a whole", sel: byAPI, nodes: []discovery.Node{electNode("a", withCheck("api2", "passing", 0))}, reason: discovery.ReasonNoActive},
	{name: "check: default id", sel: byCheck, nodes: []discovery.Node{electNode("a", withOwnCheck("warning")), electNode("b", withOwnCheck("passing"))}, want: "b"},
	{name: "check: default id on one, so others need it too", sel: byCheck, nodes: []discovery.Node{electNode("a", withOwnCheck("critical")), electNode("b", withCheck("x", "passing", 0))}, reason: discovery.ReasonNoActive},
	{name: "check: none by default id, all must pass", sel: byCheck, nodes: []discovery.Node{electNode("a", withCheck("x", "passing", 0), withCheck("y", "warning", 0)), electNode("b", withCheck("x", "passing", 0), withCheck("y", "passing", 0))}, want: "b"},
	{name: "check: a node-level warning is none of the service", sel: byCheck, nodes: []discovery.Node{electNode("a", withCheck("x", "passing", 0), withNodeCheck("disk", "warning"))}, want: "a"},

	{name: "auto: tags before checks", sel: discovery.Selection{Mode: "auto", CheckID: "api"}, nodes: []discovery.Node{electNode("a", isActive, withAPICheck("warning")), electNode("b", isStandby, withAPICheck("passing"))}, want: "a"},
	{name: "auto: only standbys in mid-election", sel: byAuto, nodes: []discovery.Node{electNode("a", isStandby, withSealedCheck("passing"), withOwnCheck("passing")), electNode("b", isStandby, withSealedCheck("passing"))}, reason: discovery.ReasonNoActive},
	{name: "auto: one performance standby is enough", sel: byAuto, nodes: []discovery.Node{electNode("a", withOwnCheck("passing")), electNode("b", isPerformance)}, reason: discovery.ReasonNoActive},
	{name: "auto: a dead standby is enough", sel: byAuto, nodes: []discovery.Node{electNode("a", withOwnCheck("passing")), electNode("b", isStandby, withSealedCheck("critical"))}, reason: discovery.ReasonNoActive},
	{name: "auto: no such tags, so check", sel: byAuto, nodes: []discovery.Node{electNode("a", withTags("secrets"), withOwnCheck("warning")), electNode("b", withTags("secrets"), withOwnCheck("passing"))}, want: "b"},
	{name: "auto: a part of a tag is no tag", sel: byAuto, nodes: []discovery.Node{electNode("a", withTags("standby-site"), withOwnCheck("passing"))}, want: "a"},

	{name: "the manual's check api", sel: discovery.Selection{Mode: "auto", CheckID: "api"}, nodes: []discovery.Node{electNode("a", withAPICheck("warning")), electNode("b", withAPICheck("passing")), electNode("c", withAPICheck("warning"))}, want: "b"},
	{name: "the manual's check api, all standby", sel: discovery.Selection{Mode: "auto", CheckID: "api"}, nodes: []discovery.Node{electNode("a", withAPICheck("warning")), electNode("b", withAPICheck("warning"))}, reason: discovery.ReasonNoActive},
}

func TestMarks(t *testing.T) { runElectRows(t, markRows) }

var healthRows = []electRow{
	{name: "critical service check", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withSealedCheck("critical")), electNode("b", isStandby)}, reason: discovery.ReasonUnhealthy},
	{name: "critical node check", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withNodeCheck("disk", "critical"))}, reason: discovery.ReasonUnhealthy},
	{name: "critical after passing and warning", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withNodeCheck("x", "warning"), withNodeCheck("y", "critical"), withNodeCheck("z", "passing"))}, reason: discovery.ReasonUnhealthy},
	{name: "node maintenance", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withNodeCheck("_node_maintenance", "critical"))}, reason: discovery.ReasonUnhealthy},
	{name: "node maintenance whatever its status", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withNodeCheck("_node_maintenance", "passing"))}, reason: discovery.ReasonUnhealthy},
	{name: "service maintenance", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withCheck("_service_maintenance:vault:10.0.0.1:8200", "passing", 0))}, reason: discovery.ReasonUnhealthy},
	{name: "unknown status", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withSealedCheck("Passing"))}, reason: discovery.ReasonUnhealthy},
	{name: "empty status", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withSealedCheck(""))}, reason: discovery.ReasonUnhealthy},
	{name: "the dead node keeps its tag", sel: byAuto, incumbent: "a", nodes: []discovery.Node{electNode("a", isActive, withIndex(9), withSealedCheck("critical")), electNode("b", isActive, withIndex(2), withSealedCheck("passing"))}, want: "b"},
	{name: "a critical standby does not matter", sel: byTag, nodes: []discovery.Node{electNode("a", isStandby, withSealedCheck("critical")), electNode("b", isStandby)}, reason: discovery.ReasonNoActive},

	{name: "unusable address", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withServiceAddress("evil.com/"))}, reason: discovery.ReasonBadAddress},
	{name: "unusable name", sel: byTag, nodes: []discovery.Node{electNode("a b", isActive)}, reason: discovery.ReasonBadAddress},
	{name: "port 0", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withPort(0))}, reason: discovery.ReasonBadAddress},
	{name: "port 65536", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withPort(65536))}, reason: discovery.ReasonBadAddress},
	{name: "negative port", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withPort(-1))}, reason: discovery.ReasonBadAddress},
	{name: "one bad address, one good", sel: byTag, nodes: []discovery.Node{electNode("a", isActive, withPort(0), withIndex(9)), electNode("b", isActive)}, want: "b"},
	{name: "a standby's bad address does not matter", sel: byTag, nodes: []discovery.Node{electNode("a", isStandby, withPort(0))}, reason: discovery.ReasonNoActive},
}

func TestMarkedNodesThatAreOut(t *testing.T) { runElectRows(t, healthRows) }

// originalCluster is the cluster in the test data of vault-redirector, where active is the node whose check passes.
func originalCluster(active string) []discovery.Node {
	var nodes []discovery.Node
	for i, index := range []uint64{7, 17, 21, 16, 23} {
		name, status := fmt.Sprint("node", i), "warning"
		if name == active {
			status = "passing"
		}
		nodes = append(nodes, discovery.Node{
			Name: name, ID: "vault", Address: fmt.Sprint("172.17.0.", i+2), Port: 8200, Tags: []string{"secrets"}, Index: index,
			Checks: []discovery.Check{{ID: "serfHealth", Status: "passing"}, {ID: "service:vault", Status: status, Service: true, Index: index}},
		})
	}
	return nodes
}

func TestMarksOfTheOriginal(t *testing.T) {
	p := electMembers(t, byAuto)
	e := elect(p(originalCluster("node2")), discovery.Identity{}, false)
	checkElection(t, e, "node2", discovery.ReasonOK)
	if e.elected.target.URL != "https://node2:8200" || len(e.candidates) != 1 {
		t.Errorf("target %q, candidates %q", e.elected.target.URL, e.candidates)
	}
	checkElection(t, elect(p(originalCluster("")), discovery.Identity{Name: "node2", ID: "vault"}, false), "", discovery.ReasonNoActive)
}

// Two instances whose name and ID give the same text when they are put together are still two.
func TestIdentitiesAreNotAmbiguous(t *testing.T) {
	a, b := discovery.Node{Name: "vault-1", ID: "x/y"}, discovery.Node{Name: "vault-1/x", ID: "y"}
	if n := len(discovery.Identities([]discovery.Node{a, b})); n != 2 {
		t.Errorf("%d identities, want 2", n)
	}
}

// That a check has passed once more, or a registration was written again, is nothing new.
func TestSaysSame(t *testing.T) {
	base := electNode("a", isActive, withOwnCheck("passing"))
	for name, row := range map[string]struct {
		change func(*discovery.Node)
		same   bool
	}{
		"nothing":        {func(*discovery.Node) {}, true},
		"service index":  {func(n *discovery.Node) { n.Index = 99 }, true},
		"check index":    {func(n *discovery.Node) { n.Checks[1].Index = 99 }, true},
		"check status":   {func(n *discovery.Node) { n.Checks[1].Status = "warning" }, false},
		"another tag":    {func(n *discovery.Node) { n.Tags = []string{"standby"} }, false},
		"another port":   {func(n *discovery.Node) { n.Port = 1 }, false},
		"another check":  {withNodeCheck("disk", "passing"), false},
		"other metadata": {func(n *discovery.Node) { n.Meta = map[string]string{"a": "b"} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			other := electNode("a", isActive, withOwnCheck("passing"))
			row.change(&other)
			if got := saysSame(&base, &other); got != row.same {
				t.Errorf("the same: %v, want %v", got, row.same)
			}
		})
	}
}
