// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

func init() { caddy.RegisterModule(new(eventFile)) }

// eventFile is a handler of events that writes each as a line of JSON into a file.
type eventFile struct {
	File string `json:"file"`
	mu   sync.Mutex
}

func (*eventFile) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.test_file", New: func() caddy.Module { return new(eventFile) }}
}

func (f *eventFile) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&f.File) {
		return d.ArgErr()
	}
	return nil
}

func (f *eventFile) Handle(_ context.Context, e caddy.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(f.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	return json.NewEncoder(file).Encode(map[string]any{"name": e.Name(), "data": e.Data})
}

// told is an event as the file has it.
type told struct {
	Name string
	Data struct {
		Cluster, Node, URL string
		PreviousURL        string  `json:"previous_url"`
		Gap                float64 `json:"gap_seconds"`
	}
}

// eventsIn returns the events of a name in a file.
func eventsIn(t *testing.T, file, name string) (events []told) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var e told
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.Name == name {
			events = append(events, e)
		}
	}
	return events
}

// watchedGap kills a node and asks a site for a redirect again and again. It returns the URL of the next node, and for how
// long no answer led anywhere: from the last answer that led to the old node until the first that led to another one.
func watchedGap(t *testing.T, site string, old *cluster.Vault) (next string, gap time.Duration) {
	t.Helper()
	last := time.Now()
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "a redirect to another node", func() bool {
		_, location, _ := get(t, site+"/v1/x")
		switch next = strings.TrimSuffix(location, "/v1/x"); next {
		case old.URL:
			last = time.Now()
			return false
		case "":
			return false
		}
		return true
	})
	return next, time.Since(last)
}

// One failover of a real cluster: metric, status, event, history and page tell the same, and the gap is what clients saw.
func TestOneFailoverIsToldTheSameEverywhere(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoConsul: true})
	events := t.TempDir() + "/events"
	old, err := c.WaitActive(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	caddy := runCaddy(t, "\tevents {\n\t\ton vault_active_changed test_file "+events+"\n\t\ton vault_active_lost test_file "+events+"\n\t}\n", `
http://{ip}:8080 {
	vault_redirect_status /status
	vault_redirect {
		vault `+c.Vaults[0].URL+" "+c.Vaults[1].URL+" "+c.Vaults[2].URL+`
		scheme http
		name main
	}
}`)
	site := "http://" + caddy.IP + ":8080"
	caddy.awaitTarget(site, old.URL)
	next, gap := watchedGap(t, site, old)
	entry, status := lastChange(t, caddy)
	if entry.Node == "" || entry.URL != next || entry.PreviousURL != old.URL || status.URL != next {
		t.Errorf("history %+v, status %+v, want a change from %s to %s", entry, status, old.URL, next)
	}
	// Both measure the same from two sides of a socket, on a machine that may be busy.
	if d := (time.Duration(entry.Gap*1e9) - gap).Abs(); d > time.Second {
		t.Errorf("the history tells a gap of %.3f s, clients saw one of %s", entry.Gap, gap)
	}
	wantEvents(t, caddy, events, entry, old.URL)
	wantMetrics(t, caddy, entry)
	_, page := askAs(t, site+"/status", "text/html")
	for _, part := range []string{next, "1 failover", "→ " + entry.Node, `class="gap"`} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	t.Logf("gap by the history %.3f s, seen by a client %s", entry.Gap, gap)
}

// wantEvents checks that the events in a file tell of the change that the history has, and of one loss before.
func wantEvents(t *testing.T, caddy *server, events string, entry change, lostURL string) {
	t.Helper()
	caddy.await("the event", func() bool { return len(eventsIn(t, events, "vault_active_changed")) > 1 })
	changes := eventsIn(t, events, "vault_active_changed")
	e := changes[len(changes)-1].Data
	if e.Cluster != "main" || e.URL != entry.URL || e.PreviousURL != entry.PreviousURL || e.Gap != entry.Gap || e.Node != entry.Node {
		t.Errorf("event %+v, want what the history has: %+v", e, entry)
	}
	if lost := eventsIn(t, events, "vault_active_lost"); len(lost) != 1 || lost[0].Data.PreviousURL != lostURL {
		t.Errorf("events of the loss %+v, want one, of %s", lost, lostURL)
	}
}

// wantMetrics checks that the metrics tell of the change that the history has.
func wantMetrics(t *testing.T, caddy *server, entry change) {
	t.Helper()
	_, metrics := caddy.admin("GET", "/metrics", "", "")
	for _, line := range []string{
		`caddy_vault_redirect_active{cluster="main"} 1`,
		fmt.Sprintf(`caddy_vault_redirect_active_node_info{cluster="main",node="%s",url="%s"} 1`, entry.Node, entry.URL),
		`caddy_vault_redirect_changes_total{cluster="main"} 2`,
		`caddy_vault_redirect_failover_duration_seconds_count{cluster="main"} 1`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	const sum = `caddy_vault_redirect_failover_duration_seconds_sum{cluster="main"} `
	_, after, _ := strings.Cut(metrics, sum)
	text, _, _ := strings.Cut(after, "\n")
	if seconds, err := strconv.ParseFloat(text, 64); err != nil || math.Abs(seconds-entry.Gap) > 1e-6 {
		t.Errorf("%s%s, want %v", sum, text, entry.Gap)
	}
}

// change is an entry of the history.
type change struct {
	Event, Node, URL string
	PreviousURL      string  `json:"previous_url"`
	Gap              float64 `json:"gap_seconds"`
}

// lastChange returns the newest change in the history, and the active node of the status.
func lastChange(t *testing.T, caddy *server) (last change, active struct{ Node, URL string }) {
	t.Helper()
	var status struct {
		Active  struct{ Node, URL string }
		History []change
	}
	code, text := caddy.admin("GET", "/vault_redirect/status/main", "", "")
	if err := json.Unmarshal([]byte(text), &status); code != http.StatusOK || err != nil {
		t.Fatalf("%d %v: %s", code, err, text)
	}
	for _, e := range status.History {
		if e.Event == "active_changed" && e.URL == status.Active.URL {
			last = e
		}
	}
	return last, status.Active
}

// askAs asks for a page in one type.
func askAs(t *testing.T, url, accept string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, readAll(t, resp)
}
