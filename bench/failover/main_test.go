// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/hashicorp/vault/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.MainAsCaddy(m, caddycmd.Main)) }

func TestFailover(t *testing.T) {
	cluster.Needed(t)
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	o := options{
		storage: "raft", failovers: 1, runs: 1, kinds: []string{kill, stop}, clients: 2, every: 50 * time.Millisecond, out: file, tls: true,
		users: clientKinds, only: regexp.MustCompile("^this plugin, `vault_redirect`$|^Caddy's `reverse_proxy`, tuned$"),
	}
	report, err := runAll(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.write(t.Output(), o); err != nil {
		t.Fatal(err)
	}
	r := report.runs[0]
	if len(r.Rows) != 4 || len(r.Outages[kill]) != 2 || len(r.Outages[stop]) != 2 {
		t.Fatalf("%d rows, failovers %v", len(r.Rows), r.Outages)
	}
	for _, row := range r.Rows {
		if row.Count == 0 || row.Failed[beforeAll] > 0 || row.Vanished > 0 {
			t.Errorf("%s, %s: %d operations, %d failed before the first failover, %d writes vanished", row.Front, row.Client, row.Count, row.Failed[beforeAll], row.Vanished)
		}
		// What is in flight at the node may fail, as may a redirect that is under way then.
		if row.Front == "this plugin, `vault_redirect`" && row.Failed[kill] > 2*o.clients {
			t.Errorf("%s: %v failed: %v", row.Client, row.Failed, row.Texts)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "| this plugin, `vault_redirect` | – · ") {
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
	if v := b.variants(); len(v) != 2 || !strings.Contains(v[0].name, "vault <url>") {
		t.Errorf("variants %+v", v)
	}
	title, of := o.setting()
	if o.name() != "benchfailover -storage dynamodb" || !strings.Contains(title, "DynamoDB") || !strings.Contains(of, "simulated") {
		t.Errorf("%s: %s, %s", o.name(), title, of)
	}
}

// Busy clients have one front at a time.
func TestPhases(t *testing.T) {
	fronts := []*front{{name: "a"}, {name: "b"}}
	for _, row := range []struct {
		busy bool
		want []string
	}{
		{false, []string{"vault: a, b", "plain: a, b"}},
		{true, []string{"vault: a", "vault: b", "plain: a", "plain: b"}},
	} {
		b := &bench{options: options{users: clientKinds, busy: row.busy}, fronts: fronts}
		var got []string
		for _, p := range b.phases() {
			got = append(got, p.user.key+": "+list(p.fronts))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("busy %v: %q", row.busy, got)
		}
	}
}

func TestFlags(t *testing.T) {
	o := options{
		failovers: 100, runs: 1, storage: "raft", redirects: 200, kinds: []string{kill}, users: clientKinds[:1],
		only: regexp.MustCompile("^this plugin, `vault_redirect`$"),
	}
	if got, want := o.flags(), " -n 100 -runs 1 -redirects 200 -only '^this plugin, .vault_redirect.$' -kind 'kill -9' -client vault"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	o = options{failovers: 7, runs: 3, storage: "raft", kinds: ways, users: clientKinds, only: regexp.MustCompile("")}
	if got, want := o.flags(), " -n 7 -runs 3"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// at returns a function from milliseconds to times.
func at() func(ms int) time.Time {
	begin := time.Now()
	return func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
}

func TestInFlight(t *testing.T) {
	at := at()
	r := &result{losses: []loss{{"a", at(1000)}, {"b", at(9000)}}}
	redirector, proxy := &front{}, &front{proxies: true}
	for _, row := range []struct {
		name       string
		front      *front
		nodes      []string
		start, end int
		want       bool
	}{
		{"under way", redirector, []string{"front", "a"}, 900, 1001, true},
		{"seen earlier by the client", redirector, []string{"front", "a"}, 900, 990, true},
		{"failed before", redirector, []string{"front", "a"}, 500, 600, false},
		{"began after", redirector, []string{"front", "a"}, 1001, 1002, false},
		{"at another node", redirector, []string{"front", "b"}, 900, 1001, false},
		{"at no node", redirector, []string{"front"}, 900, 1001, false},
		{"at another node in the end", redirector, []string{"front", "a", "b"}, 900, 1001, true},
		{"through a proxy", proxy, []string{"front"}, 900, 1001, true},
		{"through a proxy, began after", proxy, []string{"front"}, 1001, 1002, false},
		{"at the next node", redirector, []string{"front", "b"}, 8900, 9100, true},
	} {
		o := &operation{start: at(row.start), end: at(row.end)}
		for _, node := range row.nodes {
			o.tries = append(o.tries, try{address: node})
		}
		if got := r.inFlight(row.front, o); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

func TestRoundOf(t *testing.T) {
	at := at()
	one, two := &round{how: kill, begin: at(1000)}, &round{how: stop, begin: at(10_000)}
	for _, row := range []struct {
		name       string
		start, end int
		want       *round
	}{
		{"before all", 500, 510, nil},
		{"under way as the first began", 990, 1010, one},
		{"under way until long after the second began", 990, 12_000, one},
		{"in the first", 1500, 1600, one},
		{"stuck since the first, ended in the second", 1500, 12_000, one},
		{"between both", 9500, 9510, one},
		{"under way as the second began", 9500, 12_010, two},
		{"after all", 16_000, 16_010, two},
	} {
		if got := roundOf([]*round{one, two}, &operation{start: at(row.start), end: at(row.end)}); got != row.want {
			t.Errorf("%s: %+v", row.name, got)
		}
	}
}

func TestCorrect(t *testing.T) {
	at := at()
	r := &result{
		phases: []*phase{
			{rounds: []*round{{how: kill, old: "a", begin: at(0), gone: at(20), first200: at(2000)}}},
			{rounds: []*round{{how: stop, old: "b", begin: at(9000), gone: at(9010), first200: at(9900)}}},
		},
		losses: []loss{{"a", at(100)}, {"b", at(9400)}},
	}
	r.correct()
	if want := []loss{{"a", at(20)}, {"b", at(9400)}, {"b", at(9010)}}; !slices.Equal(r.losses, want) || r.seen != 2 {
		t.Errorf("%v, %d seen", r.losses, r.seen)
	}
	f := &front{url: "http://front"}
	row := newRow("a front", "vault")
	for _, o := range []*operation{
		{start: at(9000), end: at(9011)},                        // broke with the listener
		{start: at(9020), end: at(9021), write: true, times: 1}, // refused
		{start: at(9300), end: at(9401), write: true, times: 2}, // failed when the role was lost
		{start: at(9700), end: at(9701)},                        // refused
	} {
		o.text, o.tries = "it failed", []try{{address: "front"}, {address: "b"}}
		row.add(f, roundOf(r.rounds(), o), o, r.inFlight(f, o))
	}
	row.add(f, nil, &operation{start: at(-20), end: at(-10), write: true, times: 0}, false)
	row.add(f, r.rounds()[1], &operation{start: at(9000), end: at(9900), write: true, times: 2, tries: []try{{address: "front"}, {address: "b"}, {address: "c"}}}, false)
	if row.Count != 6 || row.Failed[stop] != 4 || row.InFlight[stop] != 2 || row.Reads[stop] != 2 || row.Repeated[stop] != 1 || row.Resent[stop] != 1 ||
		row.Vanished != 1 || row.Slowest[stop] != 900*time.Millisecond || row.Slowest[beforeAll] != 10*time.Millisecond {
		t.Errorf("%+v", row)
	}
}

func TestArrivals(t *testing.T) {
	o := &operation{tries: []try{{address: "front"}, {address: "node"}}}
	for _, row := range []struct {
		name  string
		front *front
		want  int
	}{
		{"redirector", &front{url: "http://front"}, 1},
		{"proxy that let a redirect through", &front{url: "http://front", proxies: true}, 2},
		{"a name that is the node's", &front{url: "http://vault.service.consul.:8200"}, 2},
	} {
		if got := row.front.arrivals(o); got != row.want {
			t.Errorf("%s: %d", row.name, got)
		}
	}
}

func TestFollow(t *testing.T) {
	at := at()
	f, other := &front{name: "a", note: "what a is"}, &front{}
	sights := func(old, new span) map[*front]*sight {
		return map[*front]*sight{f: {named: map[string]span{"old": old}, right: map[string]span{"new": new}}}
	}
	got := f.follow([]*round{
		{how: kill, old: "old", new: "new", gone: at(50), first200: at(100), sights: sights(span{at(0), at(70)}, span{at(130), at(200)})},
		{how: stop, old: "old", new: "new", gone: at(50), first200: at(100), sights: sights(span{at(0), at(40)}, span{})},
		{how: stop, sights: map[*front]*sight{other: {}}},
	})
	want := &frontSummary{
		Name: "a", Note: "what a is", Rights: []time.Duration{30 * time.Millisecond}, Never: 1,
		Stopped: []time.Duration{0}, Killed: []time.Duration{20 * time.Millisecond},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestKeep lets a later process go on with the runs of an earlier one.
func TestKeep(t *testing.T) {
	o := options{storage: "raft", failovers: 7, keep: filepath.Join(t.TempDir(), "runs.jsonl")}
	if runs, err := kept(o); err != nil || len(runs) != 0 {
		t.Fatal(runs, err)
	}
	for i := range 2 {
		sum := &summary{Fronts: []*frontSummary{{Name: "a"}}, Rows: []*row{newRow("a", "vault")}}
		sum.Rows[0].Failed[kill] = i
		if err := appendLines(o.keep, []keptRun{{o.name(), o.failovers, sum}}); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := kept(o)
	if err != nil || len(runs) != 2 || runs[1].Rows[0].Failed[kill] != 1 || runs[1].Fronts[0].Name != "a" {
		t.Errorf("%+v, %v", runs, err)
	}
	for name, change := range map[string]func(*options){"setting": func(o *options) { o.tls = true }, "number": func(o *options) { o.failovers = 3 }} {
		other := o
		change(&other)
		if _, err := kept(other); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestTables(t *testing.T) {
	one, two := newRow("a", "vault"), newRow("a", "vault")
	one.Failed[kill], one.Repeated[kill], one.Count, one.Slowest[kill] = 2, 1, 10, time.Second
	two.Resent[kill], two.Count = 3, 20
	outages := map[string][]outage{kill: {{time.Millisecond, time.Second}}}
	r := &report{runs: []*summary{
		{Fronts: []*frontSummary{{Name: "a", Note: "what a is", Rights: []time.Duration{30 * time.Millisecond}}}, Rows: []*row{one}, Outages: outages},
		{Fronts: []*frontSummary{{Name: "a", Killed: []time.Duration{2 * time.Second}, Never: 1}}, Rows: []*row{two}, Outages: outages},
	}}
	for _, row := range []struct {
		of      table
		columns int
		want    []string
	}{
		{r.failures(), 3, []string{"a", "– · 0 to 2 · –", "what a is"}},
		{r.details(), 6, []string{"a", "Vault's own", "– · 0 · –", "– · 0 · –", "– · 0 to 1 + 0 to 3 · –", "– · 1.00 s · –"}},
		{r.following(), 5, []string{"a", "30 ms (30 ms); 1 time not within 1m0s", "–", "2.00 s (2.00 s)", "30"}},
	} {
		if len(row.of.columns) != row.columns || len(row.of.lines) != 1 || !slices.Equal(row.of.lines[0], row.want) {
			t.Errorf("%q: %q, want %q", row.of.columns, row.of.lines, row.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var of []time.Duration
	for i := range 200 {
		of = append(of, time.Duration(200-i))
	}
	for percent, want := range map[int]time.Duration{1: 2, 50: 100, 99: 198, 100: 200} {
		if got := percentile(of, percent); got != want {
			t.Errorf("%d %%: %d, want %d", percent, got, want)
		}
	}
	if got := percentile(of[:7], 99); got != 200 {
		t.Errorf("99 %% of 7: %d", got)
	}
}

// TestClients lets both kinds of clients ask a front that redirects to a node, which fails and refuses as it is told to.
func TestClients(t *testing.T) {
	forgetVault()
	var fails atomic.Int32 // how many requests the node answers by 500
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("X-Vault-Token") != "token":
			w.WriteHeader(http.StatusForbidden)
		case fails.Add(-1) >= 0:
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(`{"errors":["Vault is sealed"]}`))
		case r.URL.Path == "/v1/bench/data/none":
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"errors":[]}`))
		default:
			_, _ = w.Write([]byte(`{"data":{"data":{"value":"7"},"metadata":{"version":1,"created_time":"2026-01-01T00:00:00Z","deletion_time":"","destroyed":false}},"version":1,"created_time":"2026-01-01T00:00:00Z"}`))
		}
	}))
	defer node.Close()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, node.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	b := &bench{cluster: &cluster.Cluster{RootToken: "token"}}
	f := &front{name: "a redirector", key: "front0", url: server.URL}
	for _, kind := range clientKinds {
		w, err := b.newWorker(&phase{user: kind}, f, 0)
		if err != nil {
			t.Fatal(err)
		}
		if kind.key == "vault" {
			w.client.(*vaultClient).SetMinRetryWait(time.Millisecond)
			w.client.(*vaultClient).SetMaxRetryWait(time.Millisecond)
		}
		nodeAddress := node.Listener.Addr().String()
		tries := map[string]int{"vault": 3, "plain": 1}[kind.key] // at the node
		for _, row := range []struct {
			name  string
			fails int
			n     int // of the operation
			key   string
			value string
			tries int // beside the one at the front
			text  string
		}{
			{"write", 0, 14, "x", "", 1, ""},
			{"read", 0, 15, "x", "7", 1, ""},
			{"read of nothing", 0, 15, "none", "", 1, ""},
			{"read of something else", 0, 15, "x", "8", 1, `wrong secret: "7"`},
			{"write that fails for good", 3, 14, "x", "", tries, "500: Vault is sealed"},
			{"read that fails for good", 3, 15, "x", "", tries, "500: Vault is sealed"},
		} {
			fails.Store(int32(row.fails))
			w.key, w.may = row.key, map[string]bool{row.value: true}
			asked = 0
			o := w.operate(t.Context(), row.n)
			if o.text != row.text || o.write != (row.n%2 == 0) || len(o.tries) != 1+row.tries || asked != 1 || !o.went(nodeAddress) || o.went("elsewhere") {
				t.Errorf("%s, %s: asked the front %d times, %+v", kind.name, row.name, asked, o)
			}
			for _, try := range o.tries {
				if try.sent.IsZero() || try.sent.Before(try.begin) {
					t.Errorf("%s, %s: %+v", kind.name, row.name, try)
				}
			}
			fails.Store(0)
		}
		if o := w.operate(t.Context(), 2*writesPerKey); o.key != "front0-"+kind.key+"-0/1" || !w.may["50"] || len(w.may) != 1 {
			t.Errorf("%s: %+v, then it may read %v", kind.name, o, w.may)
		}
		w.client.close()
	}
}

func TestExplain(t *testing.T) {
	_, refused := http.Get("http://127.0.0.1:1/")
	for _, row := range []struct {
		err  error
		want string
	}{
		{refused, "dial tcp …: connect: connection refused"},
		{&api.ResponseError{StatusCode: 503, Errors: []string{"a", "b\nc"}}, "503: a; b c"},
		{statusError(502, []byte(`{"errors":["it ended"]}`)), "502: it ended"},
		{statusError(502, []byte("<html>\n")), "502: <html>"},
		{errors.New(strings.Repeat("x", 300)), strings.Repeat("x", 200)},
	} {
		if got := explain(row.err); got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}
