// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// Redirects and the health document, as a client of a whole Caddy sees them.
func TestRedirectInCaddy(t *testing.T) {
	t.Run("loop by name", func(t *testing.T) {
		consul := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault.example.test"), standin.Port(8200)))
		site := run(t, "", func(int) string { return handlerJSON(consul.Addr(), "") })
		for host, want := range map[string]int{"vault.example.test:8200": http.StatusLoopDetected, "vault.example.test": http.StatusTemporaryRedirect} {
			if resp, body := site.get(t, host); resp.StatusCode != want {
				t.Errorf("Host %s: status %d, want %d: %s", host, resp.StatusCode, want, body)
			}
		}
		if lines := site.logged(t, "redirect loop"); len(lines) != 0 {
			t.Errorf("a client can have lines written: %s", lines)
		}
	})
	t.Run("loop by socket", func(t *testing.T) {
		consul := standin.RunConsul(t)
		site := run(t, "", func(port int) string {
			consul.Set("vault", standin.Active("vault-1", standin.ServiceAddress("127.0.0.1"), standin.Port(port)))
			return handlerJSON(consul.Addr(), "")
		})
		for range 3 {
			if resp, body := site.get(t, "redirector.example.test"); resp.StatusCode != http.StatusLoopDetected {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
		}
		if lines := site.logged(t, "redirect loop"); len(lines) != 1 {
			t.Errorf("%d lines, want 1: %s", len(lines), lines)
		}
	})
	t.Run("loopback target behind a trusted proxy", func(t *testing.T) {
		consul := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("127.0.0.1"), standin.Port(8200)))
		for _, row := range []struct {
			name, server, forwarded string
			want                    int
		}{
			{"no proxy", "", "", http.StatusTemporaryRedirect},
			{"a proxy that is not trusted", "", "203.0.113.7", http.StatusServiceUnavailable}, // it denies that the client is here, which needs no trust
			{"a proxy that is not trusted, for a client here", "", "127.0.0.1", http.StatusTemporaryRedirect},
			{"a client elsewhere", trustLoopback, "203.0.113.7", http.StatusServiceUnavailable},
			{"a client here", trustLoopback, "127.0.0.1", http.StatusTemporaryRedirect},
		} {
			t.Run(row.name, func(t *testing.T) {
				site := run(t, row.server, func(int) string { return handlerJSON(consul.Addr(), "") })
				resp, body := site.get(t, "redirector.example.test", "X-Forwarded-For", row.forwarded)
				if resp.StatusCode != row.want {
					t.Errorf("status %d, want %d: %s", resp.StatusCode, row.want, body)
				}
			})
		}
	})
}

// trustLoopback makes a server trust the headers of proxies on this machine.
const trustLoopback = `, "trusted_proxies": {"source": "static", "ranges": ["127.0.0.0/8"]}`

// Whenever a certificate is not verified, a line says so (C16).
func TestUnverifiedIsSaid(t *testing.T) {
	consul := standin.RunConsulTLS(t, certs.New("consul", "127.0.0.1").Server(), standin.Active("vault-1", standin.Address("127.0.0.1"), standin.Port(1)))
	for _, row := range []struct {
		name, env, config string
		lines             []string // texts of the lines that say so
	}{
		{"verified", "", handlerJSON(consul.URL(), ""), nil},
		{"by the environment", "false", handlerJSON(consul.URL(), ""), []string{"certificate of its server"}},
		{"by the environment, but the config has settings", "false", handlerWith(consul.URL(), `"tls": {}`, ""), nil},
		{"by the config", "", handlerWith(consul.URL(), `"tls": {"insecure_skip_verify": true}`, ""), []string{"certificate of its server"}},
		{"of probes", "", handlerJSON(consul.URL(), `, "probe": {"tls": {"insecure_skip_verify": true}}`), []string{"Vault nodes"}},
		{
			"of nodes without Consul", "",
			`{"handler": "vault_redirect", "discovery": {"source": "vault", "urls": ["https://127.0.0.1:1"]}, "probe": {"tls": {"insecure_skip_verify": true}}}`,
			[]string{"Vault nodes"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			site := run(t, "", func(int) string {
				t.Setenv("CONSUL_HTTP_SSL_VERIFY", row.env)
				return row.config
			})
			lines := site.logged(t, "a man in the middle can redirect clients")
			if len(lines) != len(row.lines) {
				t.Fatalf("lines %s, want %d", lines, len(row.lines))
			}
			for i, line := range lines {
				var l struct{ Level, Msg string }
				if err := json.Unmarshal([]byte(line), &l); err != nil || l.Level != "warn" || !strings.Contains(l.Msg, row.lines[i]) {
					t.Errorf("line %s, %v", line, err)
				}
			}
		})
	}
}

// handlerWith is handlerJSON with more options of the discovery.
func handlerWith(address, consul, more string) string {
	return strings.Replace(handlerJSON(address, more), `"poll_interval"`, consul+`, "poll_interval"`, 1)
}

// api_addr is the redirector's own address, or that of a balancer in front of it: that is named, with probes as without, for as long
// as it is so, and no request waits for a node that cannot come.
func TestLoopIsNamedForAsLongAsItIsThere(t *testing.T) {
	for _, probe := range []string{"auto", "off"} {
		for _, lane := range []string{"", ", " + laneWrapper} {
			for _, balanced := range []bool{false, true} {
				if balanced && probe == "off" {
					continue // this cannot be detected
				}
				t.Run(fmt.Sprintf("probe %s, lane %v, balancer %v", probe, lane != "", balanced), func(t *testing.T) {
					consul := standin.RunConsul(t)
					site := run(t, lane, func(port int) string {
						if balanced {
							port = relayTo(t, port)
						}
						consul.Set("vault", standin.Active("vault-1", standin.Address("127.0.0.1"), standin.Port(port)))
						return handlerWith(consul.Addr(), `"service": "vault"`, fmt.Sprintf(`, "scheme": "http", "probe": {"mode": %q}`, probe))
					})
					wait.Until(t, "the loop is named", func() bool {
						resp, _ := site.get(t, "vault.example.com")
						return resp.StatusCode == http.StatusLoopDetected
					})
					for range 50 {
						resp, body := site.get(t, "vault.example.com")
						if resp.StatusCode != http.StatusLoopDetected || !strings.Contains(body, "correct api_addr") {
							t.Fatalf("status %d: %s", resp.StatusCode, body)
						}
						_ = wait.Sleep(t.Context(), 50*time.Millisecond) // for five probes
					}
					if lines := site.logged(t, "redirect loop"); len(lines) != 1 {
						t.Errorf("named %d times in the log: %s", len(lines), lines)
					}
				})
			}
		}
	}
}

// relayTo returns the port of a relay to a port, as a balancer of TCP is one.
func relayTo(t *testing.T, port int) int {
	t.Helper()
	l := standin.Serve(t, func(client net.Conn) {
		server, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(client, server); client.Close() }()
		_, _ = io.Copy(server, client)
		server.Close()
	})
	return l.Addr().(*net.TCPAddr).Port
}
