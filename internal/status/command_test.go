// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
)

// runSubcommand runs status or history, and returns its exit code, what it prints, and its error.
func runSubcommand(t *testing.T, args ...string) (code int, out string, err error) {
	t.Helper()
	parent := &cobra.Command{Use: "vault-redirect"}
	AddCommands(parent)
	cmd, rest, err := parent.Find(args)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	run := map[string]caddycmd.CommandFunc{"status": runStatus, "history": runHistory}[cmd.Name()]
	out = process.Stdout(t, func() { code, err = run(caddycmd.Flags{FlagSet: cmd.Flags()}) })
	return code, out, err
}

// adminOf returns the address of an admin API that answers with documents.
func adminOf(t *testing.T, documents map[string]any) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		document, ok := documents[r.URL.RequestURI()]
		if f, is := document.(func() any); is {
			document = f()
		}
		if !ok {
			_ = WriteProblem(w, http.StatusNotFound, noCluster)
			return
		}
		_ = writeDocument(w, document)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// scriptedStatus is a document with all there is to be said. Its times are in the middle of what is printed.
func scriptedStatus() Document {
	now := time.Now()
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	const day = 24 * time.Hour
	changed := ago(90*time.Minute + 30*time.Second)
	vault := Cluster{
		Cluster: "vault", Healthy: true, Ready: true, Reason: discovery.ReasonOK, Since: changed,
		Active: &Active{
			Node: "vault-2", URL: "https://vault-2.example.com:8200", Since: *changed, Changes: 4,
		},
		Discovery: engine.DiscoveryStatus{Source: "consul", Endpoint: "127.0.0.1:8500", Up: true, LastSuccess: ago(125*time.Minute + 30*time.Second)},
		Nodes: []Node{
			{
				Node: "vault-0", State: engine.NodeSealed, Since: ago(6*day + 150*time.Minute), Why: "probe: 503, sealed",
				FailingChecks: []string{"vault:10.0.0.1:8200:vault-sealed-check"}, Probe: &Probe{Result: engine.ResultSealed, Code: 503, Seconds: .002},
			},
			{Node: "vault-1\x1b[31m\n", State: engine.NodeUnreachable, Since: ago(90*time.Minute + 30*time.Second), Why: "probe: no answer in time", Probe: &Probe{Result: engine.ResultTimeout}},
			{Node: "vault-2", State: engine.NodeActive, Elected: true, Since: changed, Probe: &Probe{Result: engine.ResultActive, Code: 200, Seconds: .0012}},
		},
		Requests: map[string]uint64{"unavailable": 2}, Hold: map[string]uint64{"released": 7},
		History: []Change{
			{At: *changed, Event: "active_changed", Node: "vault-2", URL: "https://vault-2.example.com:8200", PreviousURL: "https://vault-0", GapSeconds: .41},
			{At: changed.Add(-410 * time.Millisecond), Event: "active_lost", PreviousURL: "https://vault-0"},
			{At: *ago(2 * day), Event: "active_changed", Node: "vault-0", URL: "https://vault-0", PreviousURL: "https://vault-1", GapSeconds: 9},
		},
	}
	lost := Cluster{
		Cluster: "other", Reason: discovery.ReasonACLDenied, Since: ago(225*time.Minute + 30*time.Second), Nodes: []Node{},
		Discovery: engine.DiscoveryStatus{Source: "consul", Endpoint: "127.0.0.1:8501", FailingSince: ago(241*time.Minute + 30*time.Second)},
	}
	return Document{Version: "1.2.3", Clusters: []Cluster{vault, lost}}
}

const goldenStatus = `vault: redirecting to https://vault-2.example.com:8200 (vault-2), active for 1h30m, 4 changes
discovery: consul 127.0.0.1:8500, answered 2h5m ago
  NODE           STATE        SINCE  PROBE       WHY NOT
  vault-0        sealed       6d2h   503 in 2ms  probe: 503, sealed; not passing: vault:10.0.0.1:8200:vault-sealed-check
  vault-1�[31m�  unreachable  1h30m  timeout     probe: no answer in time
  vault-2        active       1h30m  200 in 1ms
last 24h: 1 failover, 410ms without an active node; since the start: 7 requests waited, 2 rejected
`

const goldenLost = `
other: NO ACTIVE NODE for 3h45m: Consul refuses the redirector's token
discovery: consul 127.0.0.1:8501, failing for 4h1m (acl_denied)
  NODE  STATE  SINCE  PROBE  WHY NOT
last 24h: 0 failovers, 3h45m without an active node; since the start: 0 requests waited, 0 rejected
`

func TestStatusCommand(t *testing.T) {
	d := scriptedStatus()
	address := adminOf(t, map[string]any{
		"/vault_redirect/status": d, "/vault_redirect/status/vault": d.Clusters[0], "/vault_redirect/status/other": d.Clusters[1],
		"/vault_redirect/status/a%2Fb%20%3F": d.Clusters[0],
	})
	raw, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args string
		code int
		want string
	}{
		{"", 2, goldenStatus + goldenLost},
		{"--cluster=vault", 0, goldenStatus},
		{"--cluster=other", 2, strings.TrimPrefix(goldenLost, "\n")},
		{"--cluster=a/b\u00a0?", 0, goldenStatus},
		{"--json", 2, string(raw) + "\n"},
	} {
		args := []string{"status", "--address", address}
		for arg := range strings.FieldsSeq(strings.ReplaceAll(row.args, "\u00a0", "%")) {
			args = append(args, strings.ReplaceAll(arg, "%", " "))
		}
		code, out, err := runSubcommand(t, args...)
		if code != row.code || err != nil || out != row.want {
			t.Errorf("status %s: exit code %d, %v, prints\n%s\nwant %d and\n%s", row.args, code, err, out, row.code, row.want)
		}
	}
}

func TestStatusCommandSaysWhatElseThereIs(t *testing.T) {
	d := scriptedStatus()
	until := time.Now().Add(90*time.Minute + 30*time.Second)
	d.Clusters = d.Clusters[:1]
	d.Clusters[0].Silent, d.Clusters[0].StaleUntil = true, &until
	d.Clusters[0].Discovery.LastSuccess = nil
	_, out, err := runSubcommand(t, "status", "--address", adminOf(t, map[string]any{"/vault_redirect/status": d}))
	for _, want := range []string{"it has not answered a probe yet: requests wait", "the last known node, used for another 1h30m"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: no %q in\n%s", err, want, out)
		}
	}
}

func TestHistoryCommand(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 3, 4, 567e6, time.Local)
	list := []Change{
		{At: at, Cluster: "vault", Event: "active_changed", Node: "vault-2", PreviousNode: "vault-0", GapSeconds: .41, Reason: "ok"},
		{At: at.Add(-410 * time.Millisecond), Cluster: "vault", Event: "active_lost", PreviousNode: "vault-0", Reason: "no_active"},
	}
	address := adminOf(t, map[string]any{
		"/vault_redirect/history?limit=20": list, "/vault_redirect/history?cluster=vault&limit=1": list[:1],
	})
	const golden = `TIME                     CLUSTER  EVENT           FROM     TO       GAP    REASON
2026-11-21 10:03:04.567  vault    active_changed  vault-0  vault-2  410ms  ok
2026-11-21 10:03:04.157  vault    active_lost     vault-0  -        -      no_active
`
	if code, out, err := runSubcommand(t, "history", "--address", address); code != 0 || err != nil || out != golden {
		t.Errorf("exit code %d, %v, prints\n%s\nwant\n%s", code, err, out, golden)
	}
	code, out, err := runSubcommand(t, "history", "--address", address, "--cluster", "vault", "--limit", "1", "--json")
	var got []Change
	if err != nil || code != 0 || json.Unmarshal([]byte(out), &got) != nil || len(got) != 1 {
		t.Errorf("exit code %d, %v, prints %s", code, err, out)
	}
}

func TestWhyText(t *testing.T) {
	for want, n := range map[string]Node{
		"":             {Elected: true},
		"429, standby": {Why: "429, standby"},
		"429, standby; reads are redirected to it":                  {Why: "429, standby", Reads: true},
		"429, standby; no reads: forwards reads to the active node": {Why: "429, standby", WhyNoReads: "forwards reads to the active node"},
		"probe: 503, sealed":                                        {Why: "probe: 503, sealed", WhyNoReads: "probe: 503, sealed"},
		"probe: 503, sealed; not passing: a, b":                     {Why: "probe: 503, sealed", WhyNoReads: "probe: 503, sealed", FailingChecks: []string{"a", "b"}},
		"429, standby; not passing: a; reads are redirected to it":  {Why: "429, standby", Reads: true, FailingChecks: []string{"a"}},
	} {
		if got := n.WhyText(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStatusCommandWaits(t *testing.T) {
	var asked atomic.Int32
	document := func() any {
		d := scriptedStatus()
		if asked.Add(1) >= 3 {
			d.Clusters = d.Clusters[:1]
		}
		return d
	}
	address := adminOf(t, map[string]any{"/vault_redirect/status": document})
	if code, out, err := runSubcommand(t, "status", "--wait", "20s", "--address", address); code != 0 || err != nil || out != goldenStatus {
		t.Errorf("exit code %d, %v, prints %s", code, err, out)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	asked.Store(-1000)
	if code, _, err := runSubcommand(t, "status", "--wait", "300ms", "--address", address); code != 2 || err != nil {
		t.Errorf("in vain: exit code %d, %v", code, err)
	}
}

func TestStatusCommandFails(t *testing.T) {
	const closed = "127.0.0.1:1"                        // a closed port, which is never assigned
	plain := httptest.NewServer(http.NotFoundHandler()) // as a Caddy without the plugin answers
	t.Cleanup(plain.Close)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }))
	t.Cleanup(page.Close)
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusLoopDetected)
		fmt.Fprint(w, `{"errors":["redirect loop"]}`)
	}))
	t.Cleanup(vault.Close)
	site := httptest.NewServer(http.RedirectHandler("https://vault.example.com:8200/v1/x", http.StatusTemporaryRedirect))
	t.Cleanup(site.Close)
	empty := adminOf(t, map[string]any{"/vault_redirect/status": Document{}})
	dir := t.TempDir()
	nonsense := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(nonsense, []byte("{\n\tnonsense\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ args, want string }{
		{"--address " + closed, "is Caddy running?"},
		{"--address unix/" + dir + "/none.sock", "is Caddy running?"},
		{"--address " + plain.Listener.Addr().String(), "does not have the plugin vault_redirect"},
		{"--address " + page.Listener.Addr().String(), "is not Caddy's admin API"},
		{"--address " + vault.Listener.Addr().String(), "a site that redirects to one"},
		{"--address " + site.Listener.Addr().String(), "a site that redirects to one"},
		{"--address " + dir + "/none.sock", "such as unix/" + dir + "/none.sock"},
		{"--address " + empty, "has no vault_redirect"},
		{"--address " + empty + " --cluster none", noCluster},
		{"--address 127.0.0.1:1-9", "invalid admin address"},
		{"--config " + dir + "/none", "no such file"},
		{"--config " + nonsense + " --adapter caddyfile", "nonsense"},
		{"--wait 300ms --address " + closed, "is Caddy running?"},
	} {
		code, out, err := runSubcommand(t, append([]string{"status"}, strings.Fields(row.args)...)...)
		if code != 1 || err == nil || !strings.Contains(err.Error(), row.want) || out != "" {
			t.Errorf("status %s: exit code %d, %v, want 1 and %q; prints %s", row.args, code, err, row.want, out)
		}
	}
	if code, _, err := runSubcommand(t, "history", "--address", empty, "--cluster", "none"); code != 1 || err == nil {
		t.Errorf("history: exit code %d, %v", code, err)
	}
}
