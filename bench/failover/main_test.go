// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.MainAsCaddy(m, caddycmd.Main)) }

func TestFailover(t *testing.T) {
	cluster.Needed(t)
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	o := options{
		storage: "raft", failovers: 1, runs: 1, kinds: []string{kill, stop}, clients: 2, every: 50 * time.Millisecond, out: file, tls: true,
		only: regexp.MustCompile("^this plugin, `vault_redirect`$"),
	}
	report, err := runAll(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.write(t.Output(), o); err != nil {
		t.Fatal(err)
	}
	r := report.runs[0]
	if len(r.rows) != 1 || len(r.rounds) != 2 {
		t.Fatalf("%d rows, %d failovers", len(r.rows), len(r.rounds))
	}
	row := r.rows[0]
	if row.front.tally.count == 0 || row.never > 0 {
		t.Errorf("%d operations, %d failovers that were not followed", row.front.tally.count, row.never)
	}
	// A redirect may be under way while the node dies, or closes its listener.
	if row.beyond[kill] > o.clients || row.late > 0 {
		t.Errorf("%v operations failed beyond those in flight, %d late: %+v", row.beyond, row.late, row.front.tally.failures)
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "| this plugin, `vault_redirect` | not run | ") {
		t.Errorf("%v: %s", err, text)
	}
}

// Without Consul, the nodes are named, and what relies on Consul is left out.
func TestWithoutConsul(t *testing.T) {
	o := options{storage: "dynamodb"}
	b := &bench{options: o, cluster: &cluster.Cluster{Vaults: []*cluster.Vault{{URL: "http://127.0.0.1:1"}, {URL: "http://127.0.0.1:2"}}}}
	if got := b.discovery(); got != "vault http://127.0.0.1:1 http://127.0.0.1:2" {
		t.Errorf("discovery %q", got)
	}
	if v := b.variants(); len(v) != 1 || !strings.Contains(v[0].name, "vault <url>") {
		t.Errorf("variants %+v", v)
	}
	title, of := o.setting()
	if o.name() != "benchfailover -storage dynamodb" || !strings.Contains(title, "DynamoDB") || !strings.Contains(of, "simulated") {
		t.Errorf("%s: %s, %s", o.name(), title, of)
	}
}

func TestInFlight(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	r := &result{losses: []loss{{"a", at(1000)}, {"b", at(9000)}}}
	redirector, proxy := &front{redirects: true}, &front{}
	for _, row := range []struct {
		name       string
		front      *front
		node       string
		start, end int
		want       bool
	}{
		{"under way", redirector, "a", 900, 1001, true},
		{"seen earlier by the client", redirector, "a", 900, 990, true},
		{"failed before", redirector, "a", 500, 600, false},
		{"began after", redirector, "a", 1001, 1002, false},
		{"at another node", redirector, "b", 900, 1001, false},
		{"at no node", redirector, "", 900, 1001, false},
		{"through a proxy", proxy, "", 900, 1001, true},
		{"through a proxy, began after", proxy, "", 1001, 1002, false},
		{"at the next node", redirector, "b", 8900, 9100, true},
	} {
		if got := r.inFlight(row.front, &failure{node: row.node, start: at(row.start), end: at(row.end)}); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

func TestCorrect(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	r := &result{
		rounds: []*round{
			{how: kill, old: "a", begin: at(0), gone: at(20), first200: at(2000)},
			{how: stop, old: "b", begin: at(9000), gone: at(9010), first200: at(9900)},
		},
		losses: []loss{{"a", at(100)}, {"b", at(9400)}},
	}
	r.correct()
	if want := []loss{{"a", at(20)}, {"b", at(9400)}, {"b", at(9010)}}; !slices.Equal(r.losses, want) || r.unplanned() != 0 {
		t.Errorf("%v, %d unplanned", r.losses, r.unplanned())
	}
	row := row{front: &front{redirects: true}, inFlight: map[string]int{}, beyond: map[string]int{}}
	for _, start := range []int{9000, 9020, 9300, 9700} { // refused 1 ms later, but for the one whose connection was kept
		o := &failure{node: "b", start: at(start), end: at(start + 1)}
		if start == 9300 {
			o.end = at(9401)
		}
		if start == 9000 {
			o.end = at(9011)
		}
		row.count(r.roundOf(o), o, r.inFlight(row.front, o))
	}
	if row.inFlight[stop] != 2 || row.beyond[stop] != 2 || row.late != 1 {
		t.Errorf("%+v", row)
	}
}

func TestSpread(t *testing.T) {
	front := &front{name: "a front"}
	one := &result{rounds: []*round{{how: kill}}, rows: []row{{front: front, beyond: map[string]int{kill: 2}, inFlight: map[string]int{kill: 5}}}}
	two := &result{rounds: []*round{{how: kill}}, rows: []row{{front: front, beyond: map[string]int{}, inFlight: map[string]int{kill: 5}}}}
	cells := (&report{runs: []*result{one, two}}).cells()
	if want := []string{"a front", "not run", "0 to 2 + 5", "not run"}; !slices.Equal(cells[0][:4], want) {
		t.Errorf("%q, want %q", cells[0], want)
	}
}
