// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// TestElectProperties elects in random clusters and judges by an oracle that shares nothing with the code:
// Consul's own aggregation, addresses known to be good or bad by construction, and the rules as a sort.
func TestElectProperties(t *testing.T) {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("ELECT_SEED"), 10, 64); err == nil {
		seed = s
	}
	r, elected := rand.New(rand.NewPCG(seed, 0)), 0
	for i := range 1000 {
		sel := discovery.Selection{Mode: []string{"auto", "tag", "check"}[r.IntN(3)], CheckID: []string{"", "", "api"}[r.IntN(3)], Tag: "active", Service: "vault"}
		p, nodes := electMembers(t, sel), randomCluster(r)
		incumbent := nodes[r.IntN(len(nodes))].Identity()
		want, reasons := electOracle(nodes, sel, incumbent)
		var first election
		for order := range 4 {
			e := elect(p(nodes), incumbent, false)
			got := e.identity()
			if got != want || !slices.Contains(reasons, e.reason) {
				t.Fatalf("ELECT_SEED=%d cluster %d order %d, %+v, incumbent %s: elected %q (%s), want %q %v\n%+v",
					seed, i, order, sel, incumbent, got, e.reason, want, reasons, nodes)
			}
			if order == 0 {
				first = e
			}
			if e.reason != first.reason || e.detail != first.detail || e.url() != first.url() || !slices.Equal(e.candidates, first.candidates) {
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
		if want != (discovery.Identity{}) {
			elected++
		}
		if again := elect(p(nodes), want, false); again.identity() != want {
			t.Fatalf("ELECT_SEED=%d cluster %d: %s did not stay, %s took over", seed, i, want, again.identity())
		}
	}
	if elected < 200 || elected > 800 {
		t.Errorf("ELECT_SEED=%d: %d of 1000 clusters elected a node: the clusters are too much alike", seed, elected)
	}
}

func randomCluster(r *rand.Rand) []discovery.Node {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	nodes := make([]discovery.Node, 1+r.IntN(50))
	odds := 2 + r.IntN(40) // some clusters are mostly sound, some are not
	ids := []string{"serfHealth", "disk", "api", "x", "_node_maintenance", "_service_maintenance:v1", "service:vault"}[:6+r.IntN(2)]
	for i := range nodes {
		n := discovery.Node{Name: fmt.Sprintf("n%02d", i), ID: pick("v1", "v2"), Port: 8200, Index: r.Uint64N(4)}
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
				c := discovery.Check{ID: id, Status: "passing", Service: id != "serfHealth" && id != "disk" && id != "_node_maintenance", Index: r.Uint64N(4)}
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
func electOracle(nodes []discovery.Node, s discovery.Selection, incumbent discovery.Identity) (want discovery.Identity, reasons []discovery.Reason) {
	tags, checks := tagsAndChecks(nodes)
	useTag := s.Mode == "tag" || s.Mode == "auto" && (tags["active"] || tags["standby"] || tags["performance-standby"])
	id := s.CheckID
	if id == "" && checks["service:vault"] {
		id = "service:vault"
	}
	type ranked struct {
		id    discovery.Identity
		order string
	}
	isUsable := func(n discovery.Node) bool {
		return n.ServiceAddress != "evil.com/" && n.ServiceAddress != "a@b" && n.Port == 8200
	}
	urlOf := func(n discovery.Node) string {
		if !isUsable(n) {
			return ""
		}
		return cmp.Or(n.ServiceAddress, n.Name)
	}
	maintained, same := map[string]bool{}, true // a Vault that is registered twice is out with either
	for _, n := range nodes {
		for _, c := range n.Checks {
			maintained[urlOf(n)] = maintained[urlOf(n)] || aggregated(c) == "maintenance"
		}
		same = same && urlOf(n) == urlOf(nodes[0])
	}
	var candidates []ranked
	reasons = []discovery.Reason{discovery.ReasonNoActive}
	for _, n := range nodes {
		index, marked, all, own := uint64(0), false, []string{}, []string{}
		service, passing := 0, 0
		for _, c := range n.Checks {
			all = append(all, aggregated(c))
			if c.Service {
				own = append(own, aggregated(c))
			}
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
		status := worst(all)
		usable := isUsable(n)
		healthy := (status == "passing" || status == "warning") && (same || !usable || !maintained[urlOf(n)])
		switch {
		case !marked:
		case healthy && usable:
			// The rules as text that sorts: what is better comes first.
			candidates = append(candidates, ranked{n.Identity(), fmt.Sprint(worst(own) != "passing", 9-index, status != "passing", n.Identity() != incumbent, n.Name)})
		case healthy:
			reasons = append(reasons, discovery.ReasonBadAddress)
		default:
			reasons = append(reasons, discovery.ReasonUnhealthy)
		}
	}
	if len(candidates) == 0 {
		return discovery.Identity{}, reasons[min(1, len(reasons)-1):] // no_active only if none is marked
	}
	return slices.MinFunc(candidates, func(a, b ranked) int {
		if a.order < b.order {
			return -1
		}
		return 1
	}).id, []discovery.Reason{discovery.ReasonOK}
}

// aggregated and worst are what api.HealthChecks.AggregatedStatus of Consul's client does.
func aggregated(c discovery.Check) string {
	switch {
	case c.ID == "_node_maintenance" || strings.HasPrefix(c.ID, "_service_maintenance:"):
		return "maintenance"
	case c.Status == "passing", c.Status == "warning":
		return c.Status
	}
	return "critical"
}

func worst(statuses []string) string {
	for _, status := range []string{"maintenance", "critical", "warning"} {
		if slices.Contains(statuses, status) {
			return status
		}
	}
	return "passing"
}

// tagsAndChecks returns all tags and all IDs of checks that there are.
func tagsAndChecks(nodes []discovery.Node) (tags, checks map[string]bool) {
	tags, checks = map[string]bool{}, map[string]bool{}
	for _, n := range nodes {
		for _, tag := range n.Tags {
			tags[tag] = true
		}
		for _, c := range n.Checks {
			checks[c.ID] = true
		}
	}
	return tags, checks
}
