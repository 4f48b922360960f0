// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// keysOf returns the keys of a JSON object, sorted.
func keysOf(t *testing.T, text json.RawMessage) (keys []string, values map[string]json.RawMessage) {
	t.Helper()
	if err := json.Unmarshal(text, &values); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return slices.Sorted(maps.Keys(values)), values
}

// newProbedCluster runs Caddy with a cluster of two nodes, and waits until both have been probed.
func newProbedCluster(t *testing.T) *testCaddy {
	t.Helper()
	c := newTestCaddy(t)
	cluster := standin.RunCluster(t, 2)
	c.mustLoad(c.config(nil, map[string]any{
		"handler": "vault_redirect", "scheme": "http",
		"discovery": map[string]any{"source": "consul", "address": cluster.Consul.Addr(), "token": "planted-token"},
	}))
	c.await("all nodes have been probed", func() bool {
		d := c.status()
		return len(d.Clusters) == 1 && len(d.Clusters[0].Nodes) == 2 && d.Clusters[0].Healthy &&
			d.Clusters[0].Nodes[0].Probe != nil && d.Clusters[0].Nodes[1].Probe != nil && len(d.Clusters[0].History) == 1
	})
	return c
}

// wantKeys checks the keys of a JSON object, and returns its values.
func wantKeys(t *testing.T, what string, text json.RawMessage, want string) map[string]json.RawMessage {
	t.Helper()
	keys, values := keysOf(t, text)
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("%s has the keys\n%s, want\n%s", what, got, want)
	}
	return values
}

// firstOf returns the first element of a JSON array.
func firstOf(t *testing.T, list json.RawMessage) json.RawMessage {
	t.Helper()
	var elements []json.RawMessage
	if err := json.Unmarshal(list, &elements); err != nil || len(elements) == 0 {
		t.Fatalf("%v: %s", err, list)
	}
	return elements[0]
}

// TestAdminShapes compares the keys of the documents with what monitoring may rely on.
func TestAdminShapes(t *testing.T) {
	c := newProbedCluster(t)
	check := func(what string, text json.RawMessage, want string) map[string]json.RawMessage {
		t.Helper()
		return wantKeys(t, what, text, want)
	}
	resp, body := c.do("GET", "http://admin/vault_redirect/status")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
	}
	top := check("the document", json.RawMessage(body), "clusters draining instance shutdown_at started version")
	const clusterKeys = "active candidates cluster detail discovery healthy history hold nodes ready reason requests silent since stale_since stale_until used_by"
	one := check("a cluster", firstOf(t, top["clusters"]), clusterKeys)
	check("active", one["active"], "by changes id node since url")
	source := check("discovery", one["discovery"], "active_by endpoint failing_since failures index last_success service source up")
	check("a node", firstOf(t, one["nodes"]), "elected failing_checks id marked node probe reads since state url why why_no_reads")
	check("requests", one["requests"], "bad_request loop passed proxied redirected standby unavailable")
	check("hold", one["hold"], "abandoned expired limit overflow released shutdown waiting")
	const historyKeys = "at by cluster event gap_seconds node previous_node previous_url reason url"
	check("an entry of history", firstOf(t, one["history"]), historyKeys)
	for key, want := range map[string]string{"source": `"consul"`, "active_by": `"auto"`, "service": `"vault"`, "up": "true"} {
		if string(source[key]) != want {
			t.Errorf("discovery.%s is %s, want %s", key, source[key], want)
		}
	}
	if string(one["used_by"]) == "" || !strings.Contains(string(one["used_by"]), "srv0") {
		t.Errorf("used_by %s", one["used_by"])
	}
	_, body = c.do("GET", "http://admin/vault_redirect/status/vault")
	check("one cluster", json.RawMessage(body), clusterKeys)
	_, history := c.do("GET", "http://admin/vault_redirect/history")
	check("an entry", firstOf(t, json.RawMessage(history)), historyKeys)
	for _, text := range []string{body, history} {
		if strings.Contains(text, "planted") {
			t.Error("a token is shown")
		}
	}
	_, metrics := c.do("GET", "http://admin/metrics")
	if strings.Contains(metrics, "planted") {
		t.Error("a token is among the metrics")
	}
}

// TestAdminProbesAreRecent: when a node was asked last is shown, though nothing has changed since.
func TestAdminProbesAreRecent(t *testing.T) {
	c := newTestCaddy(t)
	cluster := standin.RunCluster(t, 1)
	c.mustLoad(c.config(nil, map[string]any{
		"handler": "vault_redirect", "scheme": "http", "probe": map[string]any{"interval": "100ms"},
		"discovery": map[string]any{"source": "consul", "address": cluster.Consul.Addr()},
	}))
	c.awaitReason(discovery.ReasonOK)
	var first time.Time
	c.await("a probe", func() bool {
		p := c.status().Clusters[0].Nodes[0].Probe
		if p != nil {
			first = p.At
		}
		return p != nil
	})
	c.await("a later probe", func() bool { return c.status().Clusters[0].Nodes[0].Probe.At.After(first) })
}

func TestAdminAnswers(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "answers", node("vault-0", true))
	c.mustLoad(c.config(nil, redirector(s, map[string]any{"name": "a/b c"})))
	c.awaitReason(discovery.ReasonOK)
	for _, row := range []struct {
		method, path string
		code         int
		says         string
	}{
		{"GET", "/vault_redirect/status", 200, `"healthy": true`},
		{"GET", "/vault_redirect/status/", 200, `"healthy": true`},
		{"GET", "/vault_redirect/status/a%2Fb%20c", 200, `"cluster": "a/b c"`},
		{"GET", "/vault_redirect/status/a/b%20c", 200, `"cluster": "a/b c"`},
		{"HEAD", "/vault_redirect/status", 200, ""},
		{"HEAD", "/vault_redirect/history", 200, ""},
		{"GET", "/vault_redirect/status/none", 404, `there is no cluster \"none\"; there are: a/b c`},
		{"HEAD", "/vault_redirect/status/none", 404, ""},
		{"GET", "/vault_redirect/history?cluster=none", 404, `there is no cluster \"none\"`},
		{"GET", "/vault_redirect/history?limit=0", 400, "not a number from 1 to 1000"},
		{"GET", "/vault_redirect/history?limit=1001", 400, "not a number from 1 to 1000"},
		{"GET", "/vault_redirect/history?limit=-1", 400, "not a number from 1 to 1000"},
		{"GET", "/vault_redirect/history?limit=x", 400, "not a number from 1 to 1000"},
		{"GET", "/vault_redirect/history?limit=1", 200, "active_changed"},
		{"GET", "/vault_redirect", 404, ""},
		{"GET", "/vault_redirect/statuses", 404, ""},
		{"GET", "/vault_redirect/history/x", 404, ""},
		{"POST", "/vault_redirect/status", 405, "GET and HEAD"},
		{"PUT", "/vault_redirect/status/none", 405, "GET and HEAD"},
		{"DELETE", "/vault_redirect/history", 405, "GET and HEAD"},
		{"OPTIONS", "/vault_redirect/history", 405, "GET and HEAD"},
	} {
		resp, body := c.do(row.method, "http://admin"+row.path)
		if resp.StatusCode != row.code || !strings.Contains(body, row.says) || row.method == "HEAD" && body != "" {
			t.Errorf("%s %s: status %d, want %d with %q: %s", row.method, row.path, resp.StatusCode, row.code, row.says, body)
		}
		if row.says != "" && resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: Cache-Control %q", row.method, row.path, resp.Header.Get("Cache-Control"))
		}
		if row.code == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow %q", row.method, row.path, resp.Header.Get("Allow"))
		}
	}
}

// TestAdminWhateverVaultDoes: the answer is 200, since Caddy's own client drops the document of any other.
func TestAdminWhateverVaultDoes(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "whatever")
	s.Say(unreachable)
	c.mustLoad(c.config(nil, redirector(s, map[string]any{"max_stale": 0})))
	for _, step := range []struct {
		reason discovery.Reason
		ready  bool
		do     func()
	}{
		{discovery.ReasonConsulUnreachable, false, func() {}},
		{discovery.ReasonNoService, true, func() { s.Say(nil) }},
		{discovery.ReasonNoActive, true, func() { s.Say(nil, node("vault-0", false)) }},
		{discovery.ReasonBadAddress, true, func() { s.Say(nil, at(node("vault-0", true), "no host")) }},
		{discovery.ReasonOK, true, func() { s.Say(nil, node("vault-0", true)) }},
		{discovery.ReasonACLDenied, false, func() {
			s.Say(&discovery.Error{Reason: discovery.ReasonACLDenied, Err: unreachable})
		}},
	} {
		step.do()
		want := step.reason
		if want == discovery.ReasonACLDenied {
			want = discovery.ReasonStaleExpired // max_stale is 0
		}
		c.awaitReason(want)
		resp, _ := c.do("GET", "http://admin/vault_redirect/status")
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", step.reason, resp.StatusCode)
		}
		one := c.status().Clusters[0]
		if one.Ready != step.ready || one.Healthy != (step.reason == discovery.ReasonOK) || (one.Active != nil) != one.Healthy {
			t.Errorf("%s: ready %v, healthy %v, active %v", step.reason, one.Ready, one.Healthy, one.Active)
		}
	}
}

// TestAdminHistory has failovers of two clusters, which come newest first.
func TestAdminHistory(t *testing.T) {
	c := newTestCaddy(t)
	a, b := newScript(t, "history-a"), newScript(t, "history-b")
	c.mustLoad(c.config(nil, redirector(a, map[string]any{"name": "a"}), redirector(b, map[string]any{"name": "b"})))
	for i := range 4 {
		for j, s := range []*script{a, b} {
			s.Say(nil, at(node(fmt.Sprintf("vault-%d", i), true), fmt.Sprintf("host-%d.invalid", i)))
			c.await("the failover", func() bool {
				active := c.status().Clusters[j].Active
				return active != nil && active.Node == fmt.Sprintf("vault-%d", i)
			})
		}
	}
	var list []status.Change
	read := func(query string) {
		t.Helper()
		_, body := c.do("GET", "http://admin/vault_redirect/history"+query)
		list = nil
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(list, func(a, b status.Change) int { return b.At.Compare(a.At) }) {
			t.Errorf("%s: not the newest first: %s", query, body)
		}
	}
	read("")
	if len(list) != 8 || list[0].Cluster != "b" || list[0].Node != "vault-3" || list[0].PreviousNode != "vault-2" {
		t.Errorf("%d entries: %+v", len(list), list)
	}
	if read("?limit=3"); len(list) != 3 {
		t.Errorf("%d entries", len(list))
	}
	if read("?cluster=a&limit=1"); len(list) != 1 || list[0].Cluster != "a" || list[0].Node != "vault-3" {
		t.Errorf("%+v", list)
	}
}
