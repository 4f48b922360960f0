// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// mustLoadCaddyfile runs a Caddyfile whose site has directives.
func (c *testCaddy) mustLoadCaddyfile(options, site string) {
	c.t.Helper()
	text := fmt.Sprintf("{\n\tadmin unix/%s\n\tpersist_config off\n\tstorage file_system %s\n%s\n}\nhttp://%s {\n%s\n}\n",
		c.admin, c.t.TempDir(), options, c.site, site)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		c.t.Fatal(err)
	}
}

// accessLog is the access log of a test.
type accessLog struct {
	c    *testCaddy
	file string
}

// newAccessLog returns a log and the global options that write it.
func newAccessLog(c *testCaddy) (l *accessLog, options string) {
	l = &accessLog{c, filepath.Join(c.t.TempDir(), "access.log")}
	return l, "\tlog {\n\t\toutput file " + l.file + "\n\t\tformat json\n\t}"
}

// lines returns the lines on requests for a path so far.
func (l *accessLog) lines(path string) (list []map[string]any) {
	l.c.t.Helper()
	text, err := os.ReadFile(l.file)
	if err != nil {
		l.c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue
		}
		if request, ok := entry["request"].(map[string]any); ok && request["uri"] == path && entry["msg"] == "handled request" {
			list = append(list, entry)
		}
	}
	return list
}

// await returns the line on the only request for a path.
func (l *accessLog) await(path string) map[string]any {
	l.c.t.Helper()
	l.c.await("a line on "+path, func() bool { return len(l.lines(path)) == 1 })
	return l.lines(path)[0]
}

// TestPlaceholdersAndFields has handlers around ours, which ends the chain: what they do on the way back sees the outcome.
func TestPlaceholdersAndFields(t *testing.T) {
	c := newTestCaddy(t)
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	log, options := newAccessLog(c)
	c.mustLoadCaddyfile(options, `
	log
	header X-Before "{http.vault_redirect.node}"
	header >X-Node "{http.vault_redirect.cluster}|{http.vault_redirect.node}|{http.vault_redirect.url}|{http.vault_redirect.reason}|{http.vault_redirect.result}|{http.vault_redirect.held_ms}"
	log_append answered {http.vault_redirect.result}
	log_append by {http.vault_redirect.node}
	log_append nonsense {http.vault_redirect.nonsense}
	vault_redirect `+consul.Addr()+` {
		name prod
		probe off
		hold 3s
	}`)
	c.awaitReason(discovery.ReasonOK)
	resp, _ := c.do("GET", "http://"+c.site+"/v1/x", "X-Vault-Token", "planted")
	if got, want := resp.Header.Get("X-Node"), "prod|vault-1|https://127.10.0.1:8200|ok|redirected|0"; got != want {
		t.Errorf("deferred header %q, want %q", got, want)
	}
	if got := resp.Header.Get("X-Before"); got != "{http.vault_redirect.node}" { // on the way in there is nothing to tell yet
		t.Errorf("header %q", got)
	}
	entry := log.await("/v1/x")
	if entry["vault_result"] != "redirected" || entry["vault_node"] != "vault-1" || entry["answered"] != "redirected" || entry["by"] != "vault-1" || entry["nonsense"] != nil {
		t.Errorf("fields %v", entry)
	}
	if _, held := entry["vault_held"]; held {
		t.Error("vault_held of a request that did not wait")
	}

	consul.Set("vault", standin.Standby("vault-1", standin.Address("127.10.0.1")))
	c.awaitReason(discovery.ReasonNoActive)
	resp, _ = c.do("GET", "http://"+c.site+"/v1/held")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.HasPrefix(resp.Header.Get("X-Node"), "prod|||no_active|unavailable|") {
		t.Errorf("status %d, header %q", resp.StatusCode, resp.Header.Get("X-Node"))
	}
	entry = log.await("/v1/held")
	held, _ := entry["vault_held"].(float64)
	if _, node := entry["vault_node"]; node || entry["vault_result"] != "unavailable" || held <= 0 || held > 10 {
		t.Errorf("fields %v, %v, %v", entry["vault_result"], entry["vault_node"], entry["vault_held"])
	}
}

// TestHealthIsLoggedOnce: what asks for the health every other second leaves one line when the answer becomes 503, at
// level WARN, whatever else is asked for in between.
func TestHealthIsLoggedOnce(t *testing.T) {
	c := newTestCaddy(t)
	consul := standin.RunConsul(t)
	const path = "/vault-redirector-health"
	for _, all := range []bool{false, true} {
		log, options := newAccessLog(c)
		option := ""
		if all {
			option = "log_health"
		}
		consul.Set("vault", standin.Active("vault-1", standin.Address("127.10.0.1")))
		c.mustLoadCaddyfile(options, "log\nvault_redirect "+consul.Addr()+" {\nprobe off\n hold 0\n"+option+"\n}")
		ask := func(rounds int) {
			for range rounds {
				for _, rest := range []string{"", "/ready", "/live"} {
					c.do("GET", "http://"+c.site+path+rest)
				}
			}
		}
		c.awaitReason(discovery.ReasonOK)
		ask(3)
		for range 2 {
			consul.Set("vault", standin.Standby("vault-1", standin.Address("127.10.0.1")))
			c.awaitReason(discovery.ReasonNoActive)
			ask(3)
			consul.Set("vault", standin.Active("vault-1", standin.Address("127.10.0.1")))
			c.awaitReason(discovery.ReasonOK)
			ask(3)
		}
		c.do("GET", "http://"+c.site+"/v1/last")
		log.await("/v1/last")
		unwell, others := 0, len(log.lines(path+"/ready"))+len(log.lines(path+"/live"))
		for _, entry := range log.lines(path) {
			if entry["status"] == 503.0 {
				unwell++
				if entry["level"] != "warn" {
					t.Errorf("level %v", entry["level"])
				}
			} else {
				others++
			}
		}
		switch {
		case !all && (unwell != 2 || others != 0):
			t.Errorf("%d lines of 503, want 2, and %d others", unwell, others)
		case all && (unwell != 6 || others != 9+30):
			t.Errorf("log_health: %d lines of 503, want 6, and %d others, want 39", unwell, others)
		}
	}
}

// noWriter is an answer that goes nowhere.
type noWriter struct{ header http.Header }

func (w *noWriter) Header() http.Header         { return w.header }
func (w *noWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *noWriter) WriteHeader(int)             { clear(w.header) }

// BenchmarkRedirectNoted is a redirect with what Caddy's server has in the context: a replacer with the HTTP placeholders,
// as new as that of each request is.
func BenchmarkRedirectNoted(b *testing.B) {
	for _, row := range []struct {
		name          string
		replacer, log bool
	}{{"bare", false, false}, {"replacer", true, false}, {"replacer and log", true, true}} {
		b.Run(row.name, func(b *testing.B) {
			h := &Handler{redirector: &redirect.Redirector{Queue: new(engine.Queue), View: benchView(b), AccessLog: row.log}}
			r := httptest.NewRequest("GET", "http://redirector.example.com/v1/secret/data/x?version=2", nil)
			server := new(caddyhttp.Server)
			w := &noWriter{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				request := r
				if row.replacer { // as the server does; it costs the same with and without us
					request = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)
				}
				if err := h.ServeHTTP(w, request, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		if !row.replacer {
			continue
		}
		b.Run(row.name+", without ours", func(b *testing.B) {
			view := benchView(b)
			r := httptest.NewRequest("GET", "http://redirector.example.com/v1/secret/data/x?version=2", nil)
			server := new(caddyhttp.Server)
			w := &noWriter{http.Header{}}
			s := view.State()
			b.ReportAllocs()
			for b.Loop() {
				request := caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)
				path, _ := redirect.RequestPath(request)
				if view.State() != s {
					b.Fatal("another state")
				}
				if !redirect.Decide(s, request, redirect.ToRedirect).Goes() {
					b.Fatal("a loop")
				}
				_ = redirect.WriteRedirect(w, request, &s.Target, path)
			}
		})
	}
}

// benchView returns a view that has an active node.
func benchView(b *testing.B) *engine.View {
	h, end := handlerOf(b, "", "", node("vault-0", true))
	b.Cleanup(end)
	return h.redirector.View
}

// TestNoAccessLogs: for a server that logs no requests, no fields are made.
func TestNoAccessLogs(t *testing.T) {
	for _, logs := range []*caddyhttp.ServerLogConfig{nil, {}} {
		ctx, end := newContext(t)
		ctx.Context = context.WithValue(ctx.Context, caddyhttp.ServerCtxKey, &caddyhttp.Server{Logs: logs})
		h := load[*Handler](t, ctx, handlerID, `{"probe": {"mode": "off"}}`)
		if got := h.redirector.AccessLog; got != (logs != nil) {
			t.Errorf("fields are made: %v, want %v", got, logs != nil)
		}
		end()
	}
}
