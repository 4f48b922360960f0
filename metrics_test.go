// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// TestMetricsOfClosedSets shows that each series of a closed set is there before anything has happened.
func TestMetricsOfClosedSets(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "closed")
	s.Say(unreachable)
	c.mustLoad(c.config(nil, redirector(s, nil)))
	list := c.samples()
	for name, values := range map[string]string{
		`reason{cluster="127.0.0.1:1",reason="%s"}`:                  "ok starting no_service no_active unhealthy bad_address acl_denied acl_filtered consul_unreachable consul_error stale_expired",
		`nodes{cluster="127.0.0.1:1",state="%s"}`:                    "active standby sealed uninitialized unreachable critical maintenance bad_address unknown",
		`losses_total{cluster="127.0.0.1:1",reason="%s"}`:            "no_service no_active unhealthy bad_address stale_expired other",
		`discovery_queries_total{cluster="127.0.0.1:1",result="%s"}`: "ok acl_denied acl_filtered consul_unreachable consul_error",
		`probes_total{cluster="127.0.0.1:1",result="%s"}`:            "active standby sealed uninitialized removed timeout refused tls unclear redirector invalid other",
		`requests_total{cluster="127.0.0.1:1",result="%s"}`:          "redirected standby proxied unavailable loop bad_request passed",
		`proxy_retries_total{cluster="127.0.0.1:1",reason="%s"}`:     "unconnected not_active sealed broken",
		`holds_total{cluster="127.0.0.1:1",result="%s"}`:             "released expired abandoned overflow shutdown",
	} {
		for value := range strings.FieldsSeq(values) {
			if _, ok := list[fmt.Sprintf(name, value)]; !ok {
				t.Errorf("there is no "+name, value)
			}
		}
		count := 0
		for series := range list {
			if strings.HasPrefix(series, name[:strings.Index(name, "{")+1]) {
				count++
			}
		}
		if want := len(strings.Fields(values)); count != want {
			t.Errorf("%d series of %s, want %d", count, name, want)
		}
	}
	for series := range list {
		if strings.HasPrefix(series, "active_node_info") {
			t.Errorf("%s, though no node is active", series)
		}
	}
}

// TestMetricsOfHostileNames has names from discovery that would break all of Caddy's metrics if they were labels as they are.
func TestMetricsOfHostileNames(t *testing.T) {
	c := newTestCaddy(t)
	long := strings.Repeat("ü", 5000)
	twin := node("twin", false)
	twin.ID = "another"
	nodes := []discovery.Node{
		node("a\xff\"b\\\n{}", true), node("a\xfe\"b\\\n{}", false), node("twin", false), twin, node("twin/another", false),
		node(long, false), node(long+"1", false), node("", false),
	}
	for i := range nodes {
		nodes[i].ID += fmt.Sprint(i)
	}
	s := newScript(t, "hostile", nodes...)
	one := redirector(s, map[string]any{"name": "prod"})
	// The same name for other views, one of which looks like what tells them apart.
	other := redirector(s, map[string]any{"name": "prod", "redirect_to": "node_address"})
	third := redirector(newScript(t, "third", node("vault-0", true)), map[string]any{"name": "prod~" + strings.Repeat("x", 600)})
	c.mustLoad(c.config(nil, one, one, other, third))
	c.awaitReason(discovery.ReasonOK)
	resp, body := c.do("GET", "http://admin/metrics") // of a pedantic registry
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	actives := 0
	for line := range strings.Lines(body) {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes: %.80s...", len(line), line)
		}
		if strings.HasPrefix(line, "caddy_vault_redirect_active{") {
			actives++
		}
	}
	if actives != 3 {
		t.Errorf("%d clusters, want 3", actives)
	}
	if d := c.status(); len(d.Clusters) != 3 || d.Clusters[0].Cluster != "prod" || !strings.HasPrefix(d.Clusters[1].Cluster, "prod~") {
		t.Errorf("clusters %q, %q, %q", d.Clusters[0].Cluster, d.Clusters[1].Cluster, d.Clusters[2].Cluster)
	}
	// Nothing of a request becomes a label.
	before := len(c.samples())
	for i := range 20 {
		c.do("GET", fmt.Sprintf("http://%s/planted%d?token=planted", c.site, i), "X-Vault-Token", "planted", "User-Agent", fmt.Sprint("planted", i))
	}
	_, body = c.do("GET", "http://admin/metrics")
	if after := len(c.samples()); after != before || strings.Contains(body, "planted") {
		t.Errorf("%d series after requests, %d before", after, before)
	}
}

// maxNodeSeries is how many nodes a cluster may have for each to have series of its own.
const maxNodeSeries = 64

// TestMetricsOfManyNodes has more nodes than have series of their own.
func TestMetricsOfManyNodes(t *testing.T) {
	c := newTestCaddy(t)
	var nodes []discovery.Node
	for i := range maxNodeSeries + 1 {
		nodes = append(nodes, node(fmt.Sprintf("vault-%d", i), i == 0))
	}
	s := newScript(t, "many", nodes...)
	c.mustLoad(c.config(nil, redirector(s, map[string]any{"name": "vault"})))
	c.awaitReason(discovery.ReasonOK)
	count := func(prefix string) (n int) {
		for series := range c.samples() {
			if strings.HasPrefix(series, prefix) {
				n++
			}
		}
		return n
	}
	if n := count("node_state{"); n != 0 {
		t.Errorf("%d series of nodes", n)
	}
	if n := c.samples()[`nodes{cluster="vault",state="standby"}`]; n != maxNodeSeries {
		t.Errorf("%v standbys", n)
	}
	s.Say(nil, nodes[:maxNodeSeries]...)
	c.await("series of nodes", func() bool { return count("node_state{") == maxNodeSeries*9 })
}

// repeat runs a function over and over. stop returns after its last run.
func repeat(f func()) (stop func()) {
	var (
		group sync.WaitGroup
		over  atomic.Bool
	)
	group.Go(func() {
		for !over.Load() {
			f()
		}
	})
	return func() {
		over.Store(true)
		group.Wait()
	}
}

// wantNoFall checks that no series has gone, no counter has fallen, and no cluster has got a second name since before. It
// returns the samples of now.
func (c *testCaddy) wantNoFall(when string, before map[string]float64) map[string]float64 {
	c.t.Helper()
	now := c.samples()
	for series, value := range before {
		name, _, _ := strings.Cut(series, "{")
		counts := strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_count") || strings.HasSuffix(name, "_bucket")
		if after, ok := now[series]; !ok || counts && after < value {
			c.t.Errorf("%s: %s was %v, is %v (there: %v)", when, series, value, after, ok)
		}
	}
	for series := range now {
		if strings.Contains(series, "vault~") {
			c.t.Errorf("%s: %s", when, series)
		}
	}
	return now
}

// TestMetricsThroughReloads shows that no counter falls through 20 reloads, each with another config, one of which fails,
// while requests are answered and metrics read.
func TestMetricsThroughReloads(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "reloads", node("vault-0", true))
	config := func(i int, apps map[string]any) map[string]any {
		return c.config(apps, redirector(s, map[string]any{"name": "vault", "max_stale": fmt.Sprintf("%dm", 1+i), "health_path": "off"}))
	}
	c.mustLoad(config(0, nil))
	c.awaitReason(discovery.ReasonOK)
	var sent atomic.Int64
	stopClients := repeat(func() {
		resp, err := c.http.Get("http://" + c.site + "/v1/x")
		if err != nil { // a connection that Caddy closed with the old server's listener
			return
		}
		resp.Body.Close()
		sent.Add(1)
	})
	stopReaders := repeat(func() {
		resp, err := c.http.Get("http://admin/metrics")
		if err != nil {
			return
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("/metrics: status %d", resp.StatusCode)
		}
	})
	var last map[string]float64
	for i := 1; i <= 20; i++ {
		apps := map[string]any{}
		if i == 10 {
			apps["vault_redirect_test_failing"] = map[string]any{"in": "provision"}
		}
		if err := c.load(config(i, apps)); (err != nil) != (i == 10) {
			t.Fatalf("reload %d: %v", i, err)
		}
		last = c.wantNoFall(fmt.Sprint("after reload ", i), last)
	}
	stopClients()
	stopReaders()
	last = c.wantNoFall("at the end", last)
	if got := last[`requests_total{cluster="vault",result="redirected"}`]; got < float64(sent.Load()) || got > float64(sent.Load())+50 {
		t.Errorf("%v requests counted, %d sent", got, sent.Load())
	}
	if last[`changes_total{cluster="vault"}`] != 1 || last[`active{cluster="vault"}`] != 1 {
		t.Errorf("changes %v, active %v", last[`changes_total{cluster="vault"}`], last[`active{cluster="vault"}`])
	}
}
