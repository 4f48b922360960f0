// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/logging" // logs to files

	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// liveCaddy is a Caddy that runs.
type liveCaddy struct {
	addr string // of its server
	log  string // file of its log
}

// run runs one server with a handler in Caddy. The handler's config may need the server's port. server has more options
// of the server, each with a comma before it.
func run(t *testing.T, server string, handler func(port int) string) *liveCaddy {
	t.Helper()
	clearConsulEnv(t)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	r := &liveCaddy{log: filepath.Join(t.TempDir(), "log")}
	number := harness.Port(t)
	r.addr = "127.0.0.1:" + number
	port, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(fmt.Appendf(nil, `{"admin": {"disabled": true, "config": {"persist": false}},
		"logging": {"logs": {"default": {"level": "DEBUG", "writer": {"output": "file", "filename": %q}}}},
		"apps": {"http": {"servers": {"s": {"listen": [%q], "routes": [{"handle": [%s]}] %s}}}}}`,
		r.log, r.addr, handler(port), server), true); err != nil {
		t.Fatal(err)
	}
	return r
}

// get sends a request with a Host, follows no redirect, and returns the answer and its body.
func (r *liveCaddy) get(t *testing.T, host string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+r.addr+"/v1/sys/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, string(body)
}

// logged returns the lines of the log that have a text in them.
func (r *liveCaddy) logged(t *testing.T, text string) (lines []string) {
	t.Helper()
	all, err := os.ReadFile(r.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// proxyJSON is the config of a handler that proxies everything. more begins with a comma.
func proxyJSON(consul *standin.Consul, more string) string {
	return fmt.Sprintf(`{"handler": "vault_redirect", "discovery": {"source": "consul", "address": %q}, "proxy": {"match": [{"path": ["*"]}]} %s}`,
		consul.Addr(), unprobed(more))
}

// A node that refuses connections for a moment, and is back at its address, is tried again: that the proxy has set the
// Host of the request to the node's own by then makes no loop of it (C2).
func TestProxyRetriesTheSameNode(t *testing.T) {
	pair := certs.New("vault-1", "127.0.0.1")
	ca := writeFile(t, t.TempDir(), "ca.pem", string(pair.CertPEM()))
	for _, row := range []struct {
		name, more string
		tls        *tls.Config
	}{
		{"over TLS", fmt.Sprintf(`, "probe": {"mode": "auto", "tls": {"ca": %q}}`, ca), pair.Server()},
		{"plain", `, "scheme": "http"`, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			v := standin.RunVaultTLS(t, "vault-1", row.tls)
			host, port := hostPortOf(t, v.Addr())
			consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address(host), standin.Port(port)))
			site := run(t, "", func(int) string {
				return proxyJSON(consul, row.more)
			})
			if resp, body := site.get(t, "vault.example.com"); resp.StatusCode != http.StatusOK {
				t.Fatalf("before: status %d, %s", resp.StatusCode, body)
			}
			v.Kill()
			restarted := make(chan error, 1)
			time.AfterFunc(700*time.Millisecond, func() { restarted <- v.Start() })
			if resp, body := site.get(t, "vault.example.com"); resp.StatusCode != http.StatusOK {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
			if err := <-restarted; err != nil {
				t.Fatal(err)
			}
			if lines := site.logged(t, "api_addr"); len(lines) > 0 {
				t.Errorf("taken for a loop: %s", lines)
			}
		})
	}
}

// Where the active node is registered with an address of the very proxy, under whatever name, the second hop ends it (C12).
func TestProxyToItselfEnds(t *testing.T) {
	dns.register(t, "site.example.test").set("127.0.0.1")
	for _, host := range []string{"site.example.test", "127.0.0.1"} {
		t.Run(host, func(t *testing.T) {
			consul := standin.RunConsul(t)
			site := run(t, `, "logs": {}`, func(port int) string {
				consul.Set("vault", standin.Active("vault-1", standin.ServiceAddress(host), standin.Port(port)))
				return proxyJSON(consul, `, "scheme": "http"`)
			})
			resp, body := site.get(t, "vault.example.com")
			if resp.StatusCode < 500 {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
			if lines := site.logged(t, "redirect loop"); len(lines) != 1 || !strings.Contains(body, "correct api_addr") {
				t.Errorf("%d lines name the loop, want 1: %s", len(lines), lines)
			}
			wait.Until(t, "the access log", func() bool { return len(site.logged(t, "handled request")) > 0 })
			want := 2
			if host == "127.0.0.1" {
				want = 1 // the socket is known at once
			}
			if lines := site.logged(t, "handled request"); len(lines) > want {
				t.Errorf("%d requests, want %d: %s", len(lines), want, lines)
			}
		})
	}
}

// Outside, the name of the site is Caddy's; inside, it may well be Vault's. For a proxy, that is no loop (B2).
func TestProxyToItsOwnName(t *testing.T) {
	v := standin.RunVault(t, "vault-1")
	dns.register(t, "vault.example.test").set("127.0.0.1")
	_, port := hostPortOf(t, v.Addr())
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault.example.test"), standin.Port(port)))
	site := run(t, "", func(int) string { return proxyJSON(consul, `, "scheme": "http"`) })
	if resp, body := site.get(t, fmt.Sprintf("vault.example.test:%d", port)); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
}

// What a proxied request carries: the mark of the process, once however often it is tried.
func TestProxyMarksOnce(t *testing.T) {
	var via []string
	node := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { via = r.Header["Via"] }))
	defer node.Close()
	host, port := hostPortOf(t, node.Listener.Addr().String())
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address(host), standin.Port(port)))
	site := run(t, "", func(int) string { return proxyJSON(consul, `, "scheme": "http"`) })
	if resp, body := site.get(t, "vault.example.com", "Via", "1.1 other"); resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	marks := 0
	for _, line := range via {
		marks += strings.Count(line, redirect.ViaMark)
	}
	if marks != 1 || via[0] != "1.1 other" {
		t.Errorf("Via %q", via)
	}
}
