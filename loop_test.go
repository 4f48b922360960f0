// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// stateAt returns a state in which a node is active that is registered with an address and a port.
func stateAt(t *testing.T, scheme, address string, port int) *engine.State {
	t.Helper()
	h, end := handlerOf(t, scheme, "", nodeAt(address, port))
	defer end()
	s := h.redirector.View.State()
	if !s.Active() {
		t.Fatalf("no target: %s", s.Detail)
	}
	return s
}

func TestLeadsBack(t *testing.T) {
	tcp := func(s string) net.Addr { a, _ := net.ResolveTCPAddr("tcp", s); return a }
	const no, claimed, proven = 0, 1, 2
	for _, tc := range []struct {
		name      string
		host, to  string // the request's Host; where the node is, without scheme
		scheme    string
		port      int
		tls       bool
		forwarded string
		local     net.Addr
		want      int
	}{
		{name: "another node", host: "vault.example.com:8200", to: "vault-1", port: 8200},
		{name: "same name and port", host: "vault.example.com:8200", to: "vault.example.com", port: 8200, want: claimed},
		{name: "case", host: "VAULT.example.com:8200", to: "vault.EXAMPLE.com", port: 8200, want: claimed},
		{name: "same name, another port", host: "vault.example.com:8201", to: "vault.example.com", port: 8200},
		{name: "no port, but the node has one", host: "vault.example.com", to: "vault.example.com", port: 8200},
		{name: "no port, https, 443", host: "vault.example.com", to: "vault.example.com", port: 443, tls: true, want: claimed},
		{name: "no port, case, https, 443", host: "Vault.example.com", to: "vault.example.com", port: 443, tls: true, want: claimed},
		{name: "no port, http, 443", host: "vault.example.com", to: "vault.example.com", port: 443},
		{name: "no port, http, 80", host: "vault.example.com", to: "vault.example.com", scheme: "http", port: 80, want: claimed},
		{name: "no port, https, 80", host: "vault.example.com", to: "vault.example.com", scheme: "http", port: 80, tls: true},
		{name: "explicit 443", host: "vault.example.com:443", to: "vault.example.com", port: 443, tls: true, want: claimed},
		{name: "behind a proxy that ends TLS", host: "vault.example.com", to: "vault.example.com", port: 443, forwarded: "https", want: claimed},
		{name: "behind a proxy, in capitals", host: "vault.example.com", to: "vault.example.com", port: 443, forwarded: "HTTPS", want: claimed},
		{name: "behind a proxy of plain http", host: "vault.example.com", to: "vault.example.com", port: 443, forwarded: "http"},
		{name: "IPv6", host: "[2001:db8::1]:8200", to: "2001:db8::1", port: 8200, want: claimed},
		{name: "IPv6 case", host: "[2001:DB8::1]:8200", to: "2001:db8::1", port: 8200, want: claimed},
		{name: "IPv6 without port", host: "[2001:db8::1]", to: "2001:db8::1", port: 443, tls: true, want: claimed},
		{name: "IPv6, another", host: "[2001:db8::2]:8200", to: "2001:db8::1", port: 8200},
		{name: "own socket", host: "lb.example.com", to: "10.0.0.5", port: 8200, local: tcp("10.0.0.5:8200"), want: proven},
		{name: "own socket and name", host: "10.0.0.5:8200", to: "10.0.0.5", port: 8200, local: tcp("10.0.0.5:8200"), want: proven},
		{name: "own socket, IPv4 mapped", host: "lb.example.com", to: "10.0.0.5", port: 8200, local: &net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.5"), Port: 8200}, want: proven},
		{name: "own socket, mapped by the node", host: "lb.example.com", to: "::ffff:10.0.0.5", port: 8200, local: tcp("10.0.0.5:8200"), want: proven},
		{name: "own socket, IPv6", host: "lb", to: "2001:db8::1", port: 8200, local: tcp("[2001:db8::1]:8200"), want: proven},
		{name: "own socket, HTTP/3", host: "lb", to: "10.0.0.5", port: 8200, local: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 8200}, want: proven},
		// HTTP/3 on a wildcard listener does not know its address (B6).
		{name: "wildcard, HTTP/3", host: "lb", to: "127.0.0.1", port: 8200, local: &net.UDPAddr{IP: net.IPv6unspecified, Port: 8200}, want: proven},
		{name: "wildcard, HTTP/3, another address of loopback", host: "lb", to: "127.0.0.2", port: 8200, local: &net.UDPAddr{IP: net.IPv6unspecified, Port: 8200}, want: proven},
		{name: "IPv4 wildcard, HTTP/3", host: "lb", to: "127.0.0.1", port: 8200, local: &net.UDPAddr{IP: net.IPv4zero, Port: 8200}, want: proven},
		{name: "wildcard, HTTP/3, another port", host: "lb", to: "127.0.0.1", port: 8200, local: &net.UDPAddr{IP: net.IPv6unspecified, Port: 443}},
		{name: "wildcard, HTTP/3, another machine", host: "lb", to: "192.0.2.77", port: 8200, local: &net.UDPAddr{IP: net.IPv6unspecified, Port: 8200}},
		{name: "own address, another port", host: "lb", to: "10.0.0.5", port: 8200, local: tcp("10.0.0.5:443")},
		{name: "another address, same port", host: "lb", to: "10.0.0.6", port: 8200, local: tcp("10.0.0.5:8200")},
		{name: "a name is no socket", host: "lb", to: "vault-1", port: 8200, local: tcp("10.0.0.5:8200")},
		{name: "unix socket", host: "lb", to: "10.0.0.5", port: 8200, local: &net.UnixAddr{Name: "/run/x", Net: "unix"}},
		{name: "no Host", to: "vault-1", port: 443, tls: true},
		{name: "name of another site behind the same name", host: "vault.example.com.evil", to: "vault.example.com", port: 443, tls: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := stateAt(t, tc.scheme, tc.to, tc.port)
			r := httptest.NewRequest(http.MethodGet, "/v1/sys/health", nil)
			r.Host = tc.host
			if tc.tls {
				r.TLS = new(tls.ConnectionState)
			}
			if tc.forwarded != "" {
				r.Header.Set("X-Forwarded-Proto", tc.forwarded)
			}
			if tc.local != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tc.local))
			}
			got := no
			switch v := redirect.Decide(s, r, redirect.ToRedirect); {
			case v.Answer == engine.Loop && v.Proven:
				got = proven
			case v.Answer == engine.Loop:
				got = claimed
			case v.Proven:
				t.Error("proven, but no loop")
			}
			if got != tc.want {
				t.Errorf("loop %d, want %d, for Host %q and target %s", got, tc.want, tc.host, s.Target.URL)
			}
		})
	}
}

// The commonest mistake in Vault's configuration is an api_addr of 127.0.0.1: a client elsewhere that followed it would
// send its token to whatever listens there (C11).
func TestLoopbackTargets(t *testing.T) {
	for _, row := range []struct {
		address string
		only    bool // for clients on this machine only
	}{
		{"127.0.0.1", true},
		{"127.45.6.7", true},
		{"::1", true},
		{"[::1]", true},
		{"::ffff:127.0.0.1", true},
		{"localhost", true},
		{"LocalHost.", true},
		{"vault.localhost", true},
		{"10.0.0.1", false},
		{"2001:db8::1", false},
		{"vault-1", false},
		{"localhost.example.com", false},
		{"notlocalhost", false},
	} {
		t.Run(row.address, func(t *testing.T) {
			h := provision(t, standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress(row.address))), "")
			until(t, h, "active", (*engine.State).Active)
			for _, client := range []string{local, "[::1]:1234", "[::ffff:127.0.0.1]:1234", "127.9.9.9:1", "@", remote, "10.0.0.1:1", "[2001:db8::9]:1", "nonsense:1"} {
				here := strings.HasPrefix(client, "127.") || strings.Contains(client, "::1]") || strings.Contains(client, ":127.") || client == "@"
				resp := askFrom(t, h, client, "GET", "http://redirector.example.com/v1/x")
				health := askFrom(t, h, client, "GET", "http://redirector.example.com"+defaultHealthPath)
				var d status.Health
				if err := json.NewDecoder(health.Body).Decode(&d); err != nil {
					t.Fatal(err)
				}
				if row.only && !here {
					if text := errorsOf(t, resp); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, redirect.Explain(discovery.ReasonBadAddress)) {
						t.Errorf("client %s: status %d, %s", client, resp.StatusCode, text)
					}
					if health.StatusCode != http.StatusServiceUnavailable || d.Healthy || d.Reason != discovery.ReasonBadAddress || d.RedirectURL != "" || d.ActiveVault != nil {
						t.Errorf("client %s: health %d, %+v", client, health.StatusCode, d)
					}
					continue
				}
				if resp.StatusCode != http.StatusTemporaryRedirect || health.StatusCode != http.StatusOK || !d.Healthy {
					t.Errorf("client %s: status %d, health %d, %+v", client, resp.StatusCode, health.StatusCode, d)
				}
			}
		})
	}
}

// Behind a proxy that the server trusts, the client is the one that the proxy names.
func TestLoopbackTargetBehindAProxy(t *testing.T) {
	h, end := handlerOf(t, "https", "", nodeAt("127.0.0.1", 8200))
	defer end()
	for client, want := range map[string]int{
		"203.0.113.7": http.StatusServiceUnavailable, "127.0.0.1": http.StatusTemporaryRedirect, "::1": http.StatusTemporaryRedirect,
		"": http.StatusTemporaryRedirect, "nonsense": http.StatusServiceUnavailable,
	} {
		r := httptest.NewRequest("GET", "/v1/x", nil)
		r.RemoteAddr = local
		r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: client}))
		if resp := serve(t, h, r); resp.StatusCode != want {
			t.Errorf("client %q: status %d, want %d", client, resp.StatusCode, want)
		}
	}
}

// A proxy on this machine that the server does not know may say that the client is elsewhere: that is believed without trust.
func TestLoopbackTargetBehindAProxyThatIsNotTrusted(t *testing.T) {
	h, end := handlerOf(t, "https", "", nodeAt("127.0.0.1", 8200))
	defer end()
	for _, row := range []struct {
		name, value string
		elsewhere   bool
	}{
		{"X-Forwarded-For", "203.0.113.7", true},
		{"X-Forwarded-For", "127.0.0.1", false},
		{"X-Forwarded-For", "::1", false},
		{"X-Forwarded-For", "203.0.113.7, 127.0.0.1", true},
		{"X-Forwarded-For", "127.0.0.1, 203.0.113.7", true},
		{"X-Forwarded-For", "203.0.113.7:1234", true},
		{"X-Forwarded-For", "2001:db8::7", true},
		{"X-Forwarded-For", "[2001:db8::7]:1234", true},
		{"X-Forwarded-For", "::ffff:127.0.0.1", false},
		{"X-Forwarded-For", "unknown", false},
		{"X-Forwarded-For", "", false},
		{"X-Real-IP", "203.0.113.7", true},
		{"X-Real-IP", "127.0.0.1", false},
		{"Forwarded", "for=203.0.113.7", true},
		{"Forwarded", `For="[2001:db8::7]:4711"; proto=https;by=127.0.0.1`, true},
		{"Forwarded", "for=127.0.0.1;by=203.0.113.1;host=203.0.113.7", false},
		{"Forwarded", "for=127.0.0.1, for=203.0.113.7", true},
		{"Forwarded", "for=_hidden", false},
		{"X-Forwarded-Host", "203.0.113.7", false},
	} {
		for _, client := range []string{local, "@"} {
			r := httptest.NewRequest("GET", "/v1/x", nil)
			r.RemoteAddr = client
			r.Header.Set(row.name, row.value)
			resp, want := serve(t, h, r), http.StatusTemporaryRedirect
			if row.elsewhere {
				want = http.StatusServiceUnavailable
			}
			if resp.StatusCode != want {
				t.Errorf("%s: %s from %s: status %d, want %d", row.name, row.value, client, resp.StatusCode, want)
			}
			if row.elsewhere && !strings.Contains(errorsOf(t, resp), redirect.Explain(discovery.ReasonBadAddress)) {
				t.Errorf("%s: %s: another reason", row.name, row.value)
			}
		}
	}
}

// Anybody can send the Host of the active node and gets 508; only the socket that took the connection proves a loop, which
// is logged once for each target (C25).
func TestLoopIsLoggedIfProven(t *testing.T) {
	h, end := handlerOf(t, "https", "", nodeAt("10.0.0.5", 8200))
	defer end()
	core, logs := observer.New(zap.DebugLevel)
	h.redirector.Log = zap.New(core)
	for range 3 {
		resp := ask(t, h, "GET", "https://10.0.0.5:8200/v1/x")
		if text := errorsOf(t, resp); resp.StatusCode != http.StatusLoopDetected || !strings.Contains(text, "https://10.0.0.5:8200") || !strings.Contains(text, "api_addr") {
			t.Errorf("status %d, %s", resp.StatusCode, text)
		}
	}
	if n := logs.Len(); n > 0 {
		t.Fatalf("a client has %d lines written: %v", n, logs.All())
	}
	for range 3 {
		r := httptest.NewRequest("GET", "https://redirector.example.com/v1/x", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 8200})))
		if resp := serve(t, h, r); resp.StatusCode != http.StatusLoopDetected {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	if all := logs.All(); len(all) != 1 || all[0].Level != zap.WarnLevel || all[0].ContextMap()["url"] != "https://10.0.0.5:8200" {
		t.Errorf("lines %v, want one WARN", all)
	}
}

// A request that comes with the mark of this process has been proxied by it before (C12).
func TestMark(t *testing.T) {
	for _, row := range []struct {
		name  string
		via   []string
		comes bool
	}{
		{"no proxy before", nil, false},
		{"another proxy before", []string{"1.1 Caddy", "2.0 vault-redirect-abcdefghijkl"}, false},
		{"this one before", []string{"1.1 Caddy", redirect.ViaMark}, true},
		{"in one line", []string{fmt.Sprintf("1.1 Caddy, %s, 1.1 other (x)", redirect.ViaMark)}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header["Via"] = row.via
			v := redirect.Decide(stateAt(t, "https", "192.0.2.9", 8200), r, redirect.ToProxy)
			if got := v.Answer == engine.Loop; got != row.comes || v.Proven != row.comes {
				t.Errorf("comes back %v, want %v", got, row.comes)
			}
		})
	}
}
