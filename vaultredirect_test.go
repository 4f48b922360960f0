// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestRedirect(t *testing.T) {
	h := provision(t, standin.RunConsul(t,
		standin.Standby("vault-1", standin.Address("127.10.0.1")),
		standin.Active("vault-2", standin.Address("127.10.0.2"), standin.Tagged("wan", "vault.example.com", 443)),
	), "")
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "LIST", "SCAN"} {
		resp := ask(t, h, method, "http://redirector.example.com/v1/secret/a%2Fb//c?list=true&x")
		if resp.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("%s: status %d", method, resp.StatusCode)
		}
		if got, want := resp.Header.Get("Location"), "https://127.10.0.2:8200/v1/secret/a%2Fb//c?list=true&x"; got != want {
			t.Errorf("%s: Location %s, want %s", method, got, want)
		}
		if got := resp.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q", method, got)
		}
		if resp.ContentLength > 0 {
			t.Errorf("%s: %d bytes of body", method, resp.ContentLength)
		}
	}
}

func TestRedirectFollowsConfig(t *testing.T) {
	consul := standin.RunConsul(t, standin.Active("vault-2", standin.Address("127.10.0.2"), standin.ServiceAddress("10.9.9.9"), standin.Tagged("wan", "198.51.100.7", 8443)))
	for config, want := range map[string]string{
		``:                                          "https://10.9.9.9:8200/",
		`, "scheme": "http"`:                        "http://10.9.9.9:8200/",
		`, "redirect_to": "node_name"`:              "https://vault-2:8200/",
		`, "redirect_to": "node_address"`:           "https://127.10.0.2:8200/",
		`, "redirect_to": "tagged:wan"`:             "https://198.51.100.7:8443/",
		`, "redirect_to": "{node}.example.com"`:     "https://vault-2.example.com:8200/",
		`, "redirect_to": "node_name", "port": 443`: "https://vault-2:443/",
	} {
		if got := ask(t, provision(t, consul, config), "GET", "/").Header.Get("Location"); got != want {
			t.Errorf("%s: Location %s, want %s", config, got, want)
		}
	}
}

func TestUnavailable(t *testing.T) {
	rows := []struct {
		name    string
		entries []*api.ServiceEntry
		fault   func(*standin.Consul)
		reason  discovery.Reason
	}{
		{name: "none registered", reason: discovery.ReasonNoService},
		{name: "none active", entries: []*api.ServiceEntry{standin.Standby("vault-1")}, reason: discovery.ReasonNoActive},
		{name: "critical", entries: []*api.ServiceEntry{standin.Active("vault-1", standin.NodeCheck("serfHealth", "critical"))}, reason: discovery.ReasonUnhealthy},
		{name: "bad address", entries: []*api.ServiceEntry{standin.Active("vault-1", standin.ServiceAddress("evil.example.com/"))}, reason: discovery.ReasonBadAddress},
		{name: "refused", fault: (*standin.Consul).Refuse, reason: discovery.ReasonConsulUnreachable},
		{name: "denied", fault: answerWith(403, "Permission denied"), reason: discovery.ReasonACLDenied},
		{name: "broken", fault: answerWith(200, "<html>"), reason: discovery.ReasonConsulError},
		{name: "filtered", fault: func(c *standin.Consul) {
			c.Header(func(h http.Header) { h.Set("X-Consul-Results-Filtered-By-ACLs", "true") })
		}, reason: discovery.ReasonACLFiltered},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			consul := standin.RunConsul(t, row.entries...)
			if row.fault != nil {
				row.fault(consul)
			}
			h := provision(t, consul, `, "retry_after": "2500ms"`)
			resp := ask(t, h, "PUT", "/v1/secret/x")
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "3" {
				t.Errorf("status %d, Retry-After %q, want 503 and 3", resp.StatusCode, resp.Header.Get("Retry-After"))
			}
			if resp.Header.Get("Location") != "" {
				t.Errorf("Location %s", resp.Header.Get("Location"))
			}
			if text := errorsOf(t, resp); !strings.Contains(text, redirect.Explain(row.reason)) || redirect.Explain(row.reason) == string(row.reason) {
				t.Errorf("text %q does not explain %s", text, row.reason)
			}
			if s := h.redirector.View.State(); s.ReasonAt(time.Now()) != row.reason {
				t.Errorf("reason %s, want %s", s.ReasonAt(time.Now()), row.reason)
			}
		})
	}
}

func answerWith(code int, body string) func(*standin.Consul) {
	return func(c *standin.Consul) {
		c.Handle(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
			return true
		})
	}
}

func TestLoop(t *testing.T) {
	h := provision(t, standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault.example.com"), standin.Port(443))), "")
	resp := ask(t, h, "GET", "https://vault.example.com/v1/sys/health")
	if resp.StatusCode != http.StatusLoopDetected || !strings.Contains(errorsOf(t, resp), "api_addr") {
		t.Errorf("status %d", resp.StatusCode)
	}
	if resp := ask(t, h, "GET", "https://redirector.example.com/"); resp.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("another name: status %d", resp.StatusCode)
	}

	// By the address of the socket that took the connection, whatever name the client used.
	var h2 *Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = h2.ServeHTTP(w, r, nil) }))
	defer server.Close()
	addr := server.Listener.Addr().(*net.TCPAddr)
	h2 = provision(t, standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress(addr.IP.String()), standin.Port(addr.Port))), "")
	req, _ := http.NewRequest("GET", server.URL, nil)
	req.Host = "redirector.example.com"
	resp2, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp2.Body.Close()
	if resp2.StatusCode != http.StatusLoopDetected {
		t.Errorf("own socket: status %d, Location %s", resp2.StatusCode, resp2.Header.Get("Location"))
	}
}

func TestNoPath(t *testing.T) {
	h := provision(t, standin.RunConsul(t, standin.Active("vault-1")), "")
	for _, r := range []*http.Request{
		{Method: "OPTIONS", RequestURI: "*"},
		{Method: "CONNECT", Host: "vault.example.com:443"},
	} {
		req := httptest.NewRequest("GET", "/", nil)
		req.Method = r.Method
		req.URL.Path = r.RequestURI
		resp := serve(t, h, req)
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d", r.Method, resp.StatusCode)
		}
		errorsOf(t, resp)
	}
}

// Instances whose names and IDs make the same text are two instances (C26).
func TestIdentitiesWithSlashes(t *testing.T) {
	entry := func(build func(string, ...standin.Opt) *api.ServiceEntry, node, id, address string) *api.ServiceEntry {
		e := build(node, standin.ServiceAddress(address))
		e.Service.ID = id
		return e
	}
	h := provision(t, standin.RunConsul(t, entry(standin.Standby, "vault-1", "x/y", "127.10.0.1"), entry(standin.Active, "vault-1/x", "y", "127.10.0.2")), "")
	if resp := ask(t, h, "GET", "/"); resp.Header.Get("Location") != "https://127.10.0.2:8200/" {
		t.Errorf("status %d, Location %q, %s", resp.StatusCode, resp.Header.Get("Location"), h.redirector.View.State().Detail)
	}
	if n := h.redirector.View.State().Nodes(); n != 2 {
		t.Errorf("%d nodes, want 2", n)
	}
}

// What one word configures is the best that is known.
func TestDefaults(t *testing.T) {
	clearConsulEnv(t)
	h, end := newHandler(t, `{}`)
	defer end()
	c := h.redirector.View.Config
	if c.Name != "vault" || c.MaxStale != 5*time.Minute || h.redirector.Queue.Hold != 50*time.Second || h.redirector.Queue.Most != 10000 {
		t.Errorf("name %s, max_stale %s, hold %s, hold_max %d", c.Name, c.MaxStale, h.redirector.Queue.Hold, h.redirector.Queue.Most)
	}
	if p := c.Probe; p.Mode != engine.ProbeAuto || p.Interval != 500*time.Millisecond || p.Timeout != time.Second || p.Fall != 3 || p.TLS == nil || p.TLS.InsecureSkipVerify {
		t.Errorf("probes %+v", p)
	}
	if h.healthPath != "/vault-redirector-health" || h.redirector.RetryAfter[0] != "1" || h.discoverer.Endpoint() != "127.0.0.1:8500" {
		t.Errorf("health_path %s, retry_after %s, Consul at %s", h.healthPath, h.redirector.RetryAfter, h.discoverer.Endpoint())
	}
}

// A cluster has the name that the config gives it, else that of what is watched.
func TestName(t *testing.T) {
	clearConsulEnv(t)
	for config, want := range map[string]string{
		`{}`:               "vault",
		`{"name": "prod"}`: "prod",
		`{"discovery": {"source": "consul", "service": "vault-eu"}}`:                             "vault-eu",
		`{"discovery": {"source": "vault", "urls": ["https://vault-0.test:8200", "http://b"]}}`:  "vault-0.test",
		`{"name": "x", "discovery": {"source": "vault", "urls": ["https://vault-0.test:8200"]}}`: "x",
	} {
		h, end := newHandler(t, config)
		if got := h.redirector.View.Name; got != want {
			t.Errorf("%s: name %s, want %s", config, got, want)
		}
		end()
	}
	if got := discovery.ClusterName(new(standin.Given)); got != "given" {
		t.Errorf("of somebody else's discovery: %s", got)
	}
}

// benchmarkRedirect measures ServeHTTP on the path that counts.
func benchmarkRedirect(b *testing.B, instances int) {
	entries := []*api.ServiceEntry{standin.Active("vault-0")}
	for i := 1; i < instances; i++ {
		entries = append(entries, standin.Standby(fmt.Sprintf("vault-%d", i)))
	}
	h := provision(b, standin.RunConsul(b, entries...), "")
	until(b, h, "start", (*engine.State).Active)
	r := httptest.NewRequest("GET", "http://redirector.example.com/v1/secret/data/team/app?version=3", nil)
	r.RemoteAddr = local
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		if err := h.ServeHTTP(w, r, nil); err != nil {
			b.Fatal(err)
		}
	}
	if w.code != http.StatusTemporaryRedirect {
		b.Fatalf("status %d", w.code)
	}
}

// BenchmarkRedirectToStandby is the same for a read with a token, with three nodes, of which two serve reads.
func BenchmarkRedirectToStandby(b *testing.B) {
	c := standin.RunCluster(b, 3)
	for _, v := range c.Vaults {
		v.SetServesReads(true)
	}
	h := provision(b, c.Consul, `, "scheme": "http", "probe": {"interval": "10s"}, "standby": {"match": [{"method": ["GET", "LIST"]}]}`)
	until(b, h, "standbys", func(s *engine.State) bool { return len(s.Standbys()) == 2 })
	r := httptest.NewRequest("GET", "http://redirector.example.com/v1/secret/data/team/app?version=3", nil)
	r.RemoteAddr = local
	r.Header.Set("X-Vault-Token", "hvs.CAESIJlU02LQZq_0rYyvM7qXhK4fXW5yXxQkq5mJ0sT3wB2xGh4KHGh2cy5abcdefghijklmnopqrstuvwxyz")
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		if err := h.ServeHTTP(w, r, nil); err != nil {
			b.Fatal(err)
		}
	}
	if location := w.header.Get("Location"); w.code != http.StatusTemporaryRedirect || strings.HasPrefix(location, c.Vaults[0].URL()) {
		b.Fatalf("status %d, Location %s", w.code, location)
	}
}

func BenchmarkRedirect(b *testing.B)              { benchmarkRedirect(b, 3) }
func BenchmarkRedirect1000Instances(b *testing.B) { benchmarkRedirect(b, 1000) }

// discard is a ResponseWriter that costs nothing.
type discard struct {
	header http.Header
	code   int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(code int)        { d.code = code }
