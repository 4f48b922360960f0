// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package monitoring_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/vault-redirector/caddy-vault-redirect"
	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

const prefix = "caddy_vault_redirect_"

// series is what a Caddy shows: by metric, by label, the values there are.
type series map[string]map[string]map[string]bool

// scrape runs a Caddy with an active node and returns what it shows.
func scrape(t *testing.T) series {
	t.Helper()
	consul := standin.RunConsul(t, standin.Active("vault-0", standin.Address("127.0.0.9")), standin.Standby("vault-1", standin.Address("127.0.0.8")))
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	t.Setenv("XDG_DATA_HOME", dir)
	config := fmt.Sprintf(`{
		"admin": {"listen": %q, "config": {"persist": false}},
		"storage": {"module": "file_system", "root": %q},
		"logging": {"logs": {"default": {"writer": {"output": "discard"}}}},
		"apps": {"http": {"servers": {"s": {"listen": [%q], "routes": [{"handle": [{
			"handler": "vault_redirect", "probe": {"mode": "off"}, "discovery": {"source": "consul", "address": %q}
		}]}]}}}}
	}`, "unix/"+socket, dir, "unix/"+filepath.Join(dir, "site.sock"), consul.Addr())
	if err := caddy.Load([]byte(config), true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		resp, err := client.Get("http://admin/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d, %v: %s", resp.StatusCode, err, text)
		}
		if strings.Contains(string(text), prefix+"active_node_info{") {
			return parse(string(text))
		}
		if time.Now().After(deadline) {
			t.Fatalf("no active node in time: %s", text)
		}
	}
}

var labelPair = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)

func parse(text string) series {
	s := series{}
	for line := range strings.Lines(text) {
		name := regexp.MustCompile(`^\w+`).FindString(line)
		if name == "" {
			continue
		}
		if s[name] == nil {
			s[name] = map[string]map[string]bool{}
		}
		for _, pair := range labelPair.FindAllStringSubmatch(line, -1) {
			if s[name][pair[1]] == nil {
				s[name][pair[1]] = map[string]bool{}
			}
			s[name][pair[1]][pair[2]] = true
		}
	}
	return s
}

// check fails for a metric, label or value of a closed set in an expression that no Caddy shows.
func (s series) check(t *testing.T, where, expr string) {
	t.Helper()
	selectors := regexp.MustCompile(`\b(caddy_\w+)(\{[^}]*\})?`).FindAllStringSubmatch(expr, -1)
	if len(selectors) == 0 && strings.Contains(expr, "caddy") {
		t.Errorf("%s: nothing is read of %s", where, expr)
	}
	for _, sel := range selectors {
		labels, ok := s[sel[1]]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, sel[1])
			continue
		}
		for _, m := range regexp.MustCompile(`(\w+)(=|!=|=~|!~)"([^"]*)"`).FindAllStringSubmatch(sel[2], -1) {
			if m[1] == "cluster" && strings.HasPrefix(m[3], "$") {
				continue
			}
			for value := range strings.SplitSeq(m[3], "|") {
				if labels[m[1]] == nil || !labels[m[1]][value] {
					t.Errorf("%s: %s has no %s=%q", where, sel[1], m[1], value)
				}
			}
		}
	}
}

// alert is one rule.
type alert struct{ name, expr, runbook string }

// alerts reads the rules. They have one form, which is simple enough to be read without a parser of YAML.
func alerts(t *testing.T) (list []alert) {
	t.Helper()
	for part := range strings.SplitSeq(read(t, "prometheus-rules.yml"), "      - alert: ") {
		name, rest, _ := strings.Cut(part, "\n")
		if strings.HasPrefix(name, "#") {
			continue
		}
		expr, rest, ok := strings.Cut(rest, "        labels:\n")
		_, runbook, found := strings.Cut(rest, "runbook_url: ")
		if !ok || !found {
			t.Fatalf("%s: not of the form that is read here", name)
		}
		list = append(list, alert{name, expr, strings.TrimSpace(runbook)})
	}
	if len(list) < 15 {
		t.Fatalf("%d alerts are read", len(list))
	}
	return list
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// anchors returns those of the README's headings.
func anchors(t *testing.T) map[string]bool {
	t.Helper()
	list := map[string]bool{}
	for _, h := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(read(t, "README.md"), -1) {
		list[strings.ReplaceAll(strings.ToLower(h[1]), " ", "-")] = true
	}
	return list
}

func TestRunbook(t *testing.T) {
	known, tests := anchors(t), read(t, "prometheus-rules_test.yml")
	for _, a := range alerts(t) {
		page, anchor, _ := strings.Cut(a.runbook, "#")
		if !strings.HasSuffix(page, "/examples/monitoring/README.md") || anchor != strings.ToLower(a.name) || !known[anchor] {
			t.Errorf("%s: runbook_url %s leads nowhere", a.name, a.runbook)
		}
		for _, fires := range []string{" fires: ", " does not fire: "} {
			if !strings.Contains(tests, "'"+a.name+fires) {
				t.Errorf("%s: there is no test that it%s...", a.name, strings.TrimSuffix(fires, ": "))
			}
		}
	}
	operations := read(t, "../../docs/operations.md")
	for _, r := range discovery.Reasons {
		if !strings.Contains(operations, "\n| `"+string(r)+"` | ") {
			t.Errorf("docs/operations.md says nothing on the reason %s", r)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`).FindAllStringSubmatch(read(t, "README.md"), -1) {
		if link[1] == "" && !known[link[2]] {
			t.Errorf("a link to #%s leads nowhere", link[2])
		}
		if link[1] != "" {
			if _, err := os.Stat(link[1]); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestMetricsExist(t *testing.T) {
	shown := scrape(t)
	for _, a := range alerts(t) {
		shown.check(t, a.name, a.expr)
	}
	var dashboard any
	if err := json.Unmarshal([]byte(read(t, "grafana-dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	exprs := 0
	var walk func(where string, v any)
	walk = func(where string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if title, ok := v["title"].(string); ok {
				where = title
			}
			for _, key := range slices.Sorted(maps.Keys(v)) {
				if text, ok := v[key].(string); ok && slices.Contains([]string{"expr", "query", "definition"}, key) {
					exprs++
					shown.check(t, "dashboard, "+where, text)
					continue
				}
				walk(where, v[key])
			}
		case []any:
			for _, e := range v {
				walk(where, e)
			}
		}
	}
	walk("", dashboard)
	if exprs < 20 {
		t.Errorf("%d expressions are read of the dashboard", exprs)
	}

	// docs/monitoring.md has a row for each metric, and for no other.
	var rows []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (gauge|counter|histogram) \\|").FindAllStringSubmatch(read(t, "../../docs/monitoring.md"), -1) {
		rows = append(rows, row[1])
	}
	names := map[string]bool{}
	for name := range shown {
		if name, ok := strings.CutPrefix(name, prefix); ok {
			names[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")] = true
		}
	}
	slices.Sort(rows)
	if want := slices.Sorted(maps.Keys(names)); !slices.Equal(rows, want) {
		t.Errorf("docs/monitoring.md has rows for\n%q, shown are\n%q", rows, want)
	}
}

func TestReadmeCaddyfile(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$").FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(blocks) == 0 {
		t.Error("there is no Caddyfile")
	}
	for _, b := range blocks {
		_, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(b[1]), map[string]any{"filename": "Caddyfile"})
		if err != nil || len(warnings) > 0 {
			t.Errorf("%v, %v:\n%s", err, warnings, b[1])
		}
	}
}

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool on PATH (Debian's package prometheus): the rules are not checked")
	}
	for _, args := range [][]string{{"check", "rules", "prometheus-rules.yml"}, {"test", "rules", "prometheus-rules_test.yml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
