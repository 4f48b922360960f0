// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestHealth(t *testing.T) {
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")), standin.Standby("vault-2"))
	h := provision(t, consul, "")
	resp := ask(t, h, "GET", "http://any.example.com/vault-redirector-health?x=1")
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("status %d, headers %v", resp.StatusCode, resp.Header)
	}
	var doc map[string]any
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339, doc["last_consul_poll"].(string)); err != nil {
		t.Error(err)
	}
	delete(doc, "last_consul_poll")
	want := map[string]any{
		"healthy": true, "application": "vault-redirector", "version": "dev", "source": instance.SourceURL,
		"consul_host_port": consul.Addr(), "active_vault": "127.10.0.1:8200",
		"reason": "ok", "active_node": "vault-1", "redirect_url": "https://127.10.0.1:8200",
		"nodes": 2.0, "candidates": 1.0, "changes": 1.0,
	}
	for key, value := range want {
		if doc[key] != value {
			t.Errorf("%s: %v, want %v", key, doc[key], value)
		}
	}
	if len(doc) != len(want) {
		t.Errorf("document %s", body)
	}

	head := ask(t, h, "HEAD", "/vault-redirector-health")
	if head.StatusCode != http.StatusOK || head.Header.Get("Content-Length") != strconv.Itoa(len(body)) {
		t.Errorf("HEAD: status %d, headers %v", head.StatusCode, head.Header)
	}
	put := ask(t, h, "PUT", "/vault-redirector-health")
	if put.StatusCode != http.StatusMethodNotAllowed || put.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("PUT: status %d, headers %v", put.StatusCode, put.Header)
	}
	for _, path := range []string{"/vault-redirector-health/", "/Vault-Redirector-Health", "/x/vault-redirector-health"} {
		if resp := ask(t, h, "GET", path); resp.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("%s: status %d", path, resp.StatusCode)
		}
	}
}

func TestHealthWithoutActiveNode(t *testing.T) {
	consul := standin.RunConsul(t)
	h := provision(t, consul, `, "max_stale": 0, "hold": 0`)
	read := func() (int, status.Health) {
		resp := ask(t, h, "GET", "/vault-redirector-health")
		var d status.Health
		if err := json.NewDecoder(resp.Body).Decode(&d); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, d
	}
	if code, d := read(); code != http.StatusServiceUnavailable || d.Healthy || d.ActiveVault != nil || d.Reason != discovery.ReasonNoService {
		t.Errorf("status %d, document %+v", code, d)
	}
	consul.Set("vault", standin.Active("vault-1"))
	until(t, h, "registered", (*engine.State).Active)
	consul.Refuse()
	until(t, h, "consul gone", func(s *engine.State) bool { return !s.Active() })
	code, d := read()
	if code != http.StatusServiceUnavailable || d.Healthy || d.ActiveVault != nil || d.Reason != discovery.ReasonStaleExpired || d.StaleSince == nil || d.Detail == "" {
		t.Errorf("status %d, document %+v", code, d)
	}
}

func TestHealthPath(t *testing.T) {
	consul := standin.RunConsul(t, standin.Active("vault-1"))
	for _, row := range []struct {
		config, path string
		code         int
	}{
		{`, "health_path": "/-/health"`, "/-/health", http.StatusOK},
		{`, "health_path": "/-/health"`, "/vault-redirector-health", http.StatusTemporaryRedirect},
		{`, "health_path": "off"`, "/vault-redirector-health", http.StatusTemporaryRedirect},
		{`, "health_path": "off"`, "/off", http.StatusTemporaryRedirect},
	} {
		if resp := ask(t, provision(t, consul, row.config), "GET", row.path); resp.StatusCode != row.code {
			t.Errorf("%s: %s: status %d, want %d", row.config, row.path, resp.StatusCode, row.code)
		}
	}
}

// Where redirects would lead back to this site, it is not healthy there.
func TestHealthInALoop(t *testing.T) {
	h := provision(t, standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault.example.com"), standin.Port(443))), "")
	resp := ask(t, h, "GET", "https://vault.example.com/vault-redirector-health")
	var d status.Health
	if err := json.NewDecoder(resp.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable || d.Healthy || d.Reason != discovery.ReasonBadAddress || d.Detail == "" {
		t.Errorf("status %d, document %+v", resp.StatusCode, d)
	}
}

// bannerServer is no HTTP server: it tells its name and version to each client. It returns its address.
func bannerServer(t *testing.T) string {
	t.Helper()
	return standin.Serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1)) // otherwise it is taken for a break
		_, _ = io.WriteString(c, "SSH-2.0-PLANTED_9.9 Debian-2\r\n")
	}).Addr().String()
}

// mutualConsul is a stand-in for Consul that wants a client's certificate.
func mutualConsul(t *testing.T) *standin.Consul {
	t.Helper()
	config := certs.New("consul", "127.0.0.1").Server()
	config.ClientAuth = tls.RequireAnyClientCert
	return standin.RunConsulTLS(t, config)
}

// Anybody may read the document: it quotes no file, no address but Consul's and the node's, and nothing that a foreign
// server said (C24).
func TestHealthQuotesNobody(t *testing.T) {
	clearConsulEnv(t)
	dir := t.TempDir()
	cert, key := writePair(t, dir, "PLANTED")
	banner := bannerServer(t)
	host, port := hostPortOf(t, banner)
	registered := standin.RunConsul(t, standin.Active("vault-1", standin.Address(host), standin.Port(port)))
	mutual := mutualConsul(t)
	foreign := standin.RunConsul(t)
	answerWith(500, "PLANTED, and try http://127.0.0.1:9/PLANTED")(foreign)
	odd := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("PLANTED address")))
	for _, row := range []struct {
		name, config string
		reason       discovery.Reason
		hides        string // what the log has
	}{
		{"what Consul says", handlerJSON(foreign.Addr(), ""), discovery.ReasonConsulError, "PLANTED"},
		{"an address that Consul has", handlerJSON(odd.Addr(), ""), discovery.ReasonBadAddress, "PLANTED"},
		{"files of a client certificate", handlerWith(mutual.URL(), fmt.Sprintf(`"tls": {"cert": %q, "key": %q, "insecure_skip_verify": true}`, cert, key), ""), discovery.ReasonConsulUnreachable, dir},
		{"what a node says", handlerJSON(registered.Addr(), `, "scheme": "http", "probe": {"mode": "strict", "interval": "50ms"}`), discovery.ReasonUnhealthy, "probe: "},
		{"what answers at the node's address", fmt.Sprintf(`{"discovery": {"source": "vault", "urls": ["http://%s"]}, "probe": {"interval": "50ms"}}`, banner), discovery.ReasonUnhealthy, "probe: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, end := newHandler(t, row.config)
			defer end()
			if strings.Contains(row.config, cert) { // gone after the config was loaded
				_, _ = os.Remove(cert), os.Remove(key)
			}
			h.redirector.View.Start()
			until(t, h, "the reason", func(s *engine.State) bool { return s.ReasonAt(time.Now()) == row.reason })
			if s := h.redirector.View.State(); !strings.Contains(s.Detail, row.hides) {
				t.Errorf("detail %q has no %q: there is nothing to hide", s.Detail, row.hides)
			}
			resp := ask(t, h, "GET", defaultHealthPath)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			var d status.Health
			if err := json.Unmarshal(body, &d); err != nil || resp.StatusCode != http.StatusServiceUnavailable || d.Reason != row.reason || d.Detail != redirect.Explain(row.reason) {
				t.Errorf("status %d, document %s, %v", resp.StatusCode, body, err)
			}
			rest := strings.ReplaceAll(string(body), h.discoverer.Endpoint(), "")
			for _, secret := range []string{"PLANTED", "Debian", dir, "127.0.0.1"} {
				if strings.Contains(rest, secret) {
					t.Errorf("%s is in the document: %s", secret, body)
				}
			}
		})
	}
}
