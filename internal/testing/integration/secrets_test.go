// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the test that no token shows in any output.

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// logFilter is the filter that README and examples recommend: Caddy's own redaction leaves X-Vault-Token alone.
const logFilter = `
	debug
	log {
		format filter {
			request>headers>X-Vault-Token delete
			request>headers>X-Consul-Token delete
			request>headers>Authorization delete
		}
	}`

func TestNoTokenInAnyOutput(t *testing.T) {
	t.Parallel()
	// Planted: all that this process is told and must not repeat.
	const (
		vaultToken    = "hvs.PLANTEDvaultTOKEN0123456789"
		bearerToken   = "PLANTEDbearerTOKEN0123456789"
		consulToken   = "11111111-PLANTED-consul-token"
		fileToken     = "22222222-PLANTED-file-token"
		basicPassword = "PLANTEDbasicPASSWORD"
	)
	planted := []string{vaultToken, bearerToken, consulToken, fileToken, basicPassword}

	consul := standinConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(fileToken), 0o600); err != nil {
		t.Fatal(err)
	}
	site := func(listen, options string) string {
		return "http://{ip}:" + listen + " {\n\tlog\n\tvault_redirect {\n\t\tconsul " + consul.Addr() + " {\n" + options + "\n\t\t}\n\t\tmax_stale 0\n\t\thold 0\n\t}\n}\n"
	}
	for _, row := range []struct{ name, options string }{
		{"filtered", logFilter},
		{"no access log, no filter", "\n\tdebug"},
	} {
		t.Run(row.name, func(t *testing.T) {
			consul.Handle(nil)
			sites := site("8001", "token {env.PLANTED_TOKEN}") + site("8002", "token_file "+tokenFile+"\n poll_interval 1s")
			if row.options != logFilter {
				sites = strings.ReplaceAll(sites, "\tlog\n", "")
			}
			caddy := runCaddy(t, row.options, sites, "PLANTED_TOKEN="+consulToken, "CONSUL_HTTP_AUTH=user:"+basicPassword)
			var seen strings.Builder
			askAll := func() {
				for _, port := range []string{"8001", "8002"} {
					for _, r := range []struct{ method, path, host string }{
						{"GET", "/v1/secret/data/x?list=true", ""},
						{"PUT", "/v1/auth/token/create", ""},
						{"LIST", "/v1/secret/metadata", ""},
						{"GET", "/vault-redirector-health", ""},
						{"PUT", "/vault-redirector-health", ""},
						{"OPTIONS", "*", ""},
						{"GET", "/v1/sys/health", "127.10.0.1:8200"}, // 508
					} {
						req, err := http.NewRequest(r.method, "http://"+caddy.IP+":"+port+strings.TrimPrefix(r.path, "*"), nil)
						if err != nil {
							t.Fatal(err)
						}
						if r.path == "*" {
							req.URL.Opaque = "*"
						}
						req.Host = r.host
						req.Header.Set("X-Vault-Token", vaultToken)
						req.Header.Set("Authorization", "Bearer "+bearerToken)
						resp, err := client.Do(req)
						if err != nil {
							t.Fatal(err)
						}
						seen.WriteString(readAll(t, resp))
						for _, values := range resp.Header {
							seen.WriteString(strings.Join(values, " "))
						}
					}
				}
			}
			caddy.awaitTarget("http://"+caddy.IP+":8001", "https://127.10.0.1:8200")
			caddy.awaitTarget("http://"+caddy.IP+":8002", "https://127.10.0.1:8200")
			askAll()

			// A Consul, or something in its place, that sends back what it was sent.
			echo := func(r *http.Request) string {
				_, password, _ := r.BasicAuth()
				return "denied: " + r.Header.Get("X-Consul-Token") + " " + password
			}
			for _, fault := range []func(http.ResponseWriter, *http.Request) bool{
				func(w http.ResponseWriter, r *http.Request) bool {
					http.Error(w, echo(r), http.StatusForbidden)
					return true
				},
				func(w http.ResponseWriter, r *http.Request) bool {
					http.Error(w, strings.Repeat("x", 250)+echo(r), http.StatusInternalServerError)
					return true
				},
				func(w http.ResponseWriter, r *http.Request) bool {
					conn, _, err := http.NewResponseController(w).Hijack()
					if err == nil {
						_, _ = conn.Write([]byte(echo(r) + " is no HTTP\r\n\r\n"))
						conn.Close()
					}
					return true
				},
				func(w http.ResponseWriter, r *http.Request) bool {
					w.Header().Set("Location", "http://127.0.0.1:1/"+r.Header.Get("X-Consul-Token"))
					w.WriteHeader(http.StatusFound)
					return true
				},
				func(w http.ResponseWriter, r *http.Request) bool {
					_, _ = w.Write([]byte(`[{"Node": "` + echo(r) + `"}]`))
					return true
				},
			} {
				consul.Handle(fault)
				for _, port := range []string{"8001", "8002"} {
					caddy.awaitReason("http://"+caddy.IP+":"+port, "stale_expired")
				}
				askAll()
				consul.Handle(nil)
				for _, port := range []string{"8001", "8002"} {
					caddy.awaitTarget("http://"+caddy.IP+":"+port, "https://127.10.0.1:8200")
				}
			}
			for _, path := range []string{"/config/", "/metrics"} {
				_, body := caddy.admin("GET", path, "", "")
				seen.WriteString(body)
			}
			seen.WriteString(caddy.Log())
			for _, secret := range planted {
				if at := strings.Index(seen.String(), secret); at >= 0 {
					t.Errorf("%s shows: …%s…", secret, seen.String()[max(0, at-300):min(seen.Len(), at+100)])
				}
			}
			if !strings.Contains(caddy.Log(), "discovery failed") {
				t.Error("the log does not have what it should have")
			}
		})
	}
	sent := map[string]bool{}
	for _, r := range consul.Requests() {
		sent[r.Token] = true
	}
	if !sent[consulToken] || !sent[fileToken] {
		t.Errorf("Consul saw the tokens %v", sent)
	}
}
