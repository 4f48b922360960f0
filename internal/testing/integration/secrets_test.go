// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

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

// Planted: all that the Caddy of TestNoTokenInAnyOutput is told and must not repeat.
const (
	plantedVaultToken    = "hvs.PLANTEDvaultTOKEN0123456789"
	plantedBearerToken   = "PLANTEDbearerTOKEN0123456789"
	plantedConsulToken   = "11111111-PLANTED-consul-token"
	plantedFileToken     = "22222222-PLANTED-file-token"
	plantedBasicPassword = "PLANTEDbasicPASSWORD"
)

// listener is a Caddy with two sites, and all that it has said to clients and on its admin endpoint.
type listener struct {
	*server
	sites []string
	seen  strings.Builder
}

// ask sends a request with the planted tokens.
func (l *listener) ask(method, url, host string) {
	l.t.Helper()
	req, err := http.NewRequest(method, strings.TrimSuffix(url, "*"), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if strings.HasSuffix(url, "*") {
		req.URL.Opaque = "*"
	}
	req.Host = host
	req.Header.Set("X-Vault-Token", plantedVaultToken)
	req.Header.Set("Authorization", "Bearer "+plantedBearerToken)
	resp, err := client.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	l.seen.WriteString(readAll(l.t, resp))
	for _, values := range resp.Header {
		l.seen.WriteString(strings.Join(values, " "))
	}
}

// askAll asks both sites for each kind of answer.
func (l *listener) askAll() {
	l.t.Helper()
	for _, site := range l.sites {
		for _, r := range []struct{ method, path, host string }{
			{"GET", "/v1/secret/data/x?list=true", ""},
			{"PUT", "/v1/auth/token/create", ""},
			{"LIST", "/v1/secret/metadata", ""},
			{"GET", "/vault-redirector-health", ""},
			{"PUT", "/vault-redirector-health", ""},
			{"OPTIONS", "*", ""},
			{"GET", "/v1/sys/health", "127.10.0.1:8200"}, // 508
		} {
			l.ask(r.method, site+r.path, r.host)
		}
	}
}

// awaitTargets waits until both sites redirect.
func (l *listener) awaitTargets() {
	l.t.Helper()
	for _, site := range l.sites {
		l.awaitTarget(site, "https://127.10.0.1:8200")
	}
}

// wantNoSecret checks all that was said, and the log.
func (l *listener) wantNoSecret() {
	l.t.Helper()
	for _, path := range []string{"/config/", "/metrics"} {
		_, body := l.admin("GET", path, "", "")
		l.seen.WriteString(body)
	}
	l.await("the log to have what it should have", func() bool { return strings.Contains(l.Log(), "discovery failed") })
	l.seen.WriteString(l.Log())
	seen := l.seen.String()
	for _, secret := range []string{plantedVaultToken, plantedBearerToken, plantedConsulToken, plantedFileToken, plantedBasicPassword} {
		if at := strings.Index(seen, secret); at >= 0 {
			l.t.Errorf("%s shows: …%s…", secret, seen[max(0, at-300):min(len(seen), at+100)])
		}
	}
}

// echo is what Consul, or something in its place, was sent.
func echo(r *http.Request) string {
	_, password, _ := r.BasicAuth()
	return "denied: " + r.Header.Get("X-Consul-Token") + " " + password
}

// echoes are answers of a Consul, or of something in its place, that sends back what it was sent.
var echoes = []func(http.ResponseWriter, *http.Request) bool{
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
}

func TestNoTokenInAnyOutput(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(plantedFileToken), 0o600); err != nil {
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
			caddy := runCaddy(t, row.options, sites, "PLANTED_TOKEN="+plantedConsulToken, "CONSUL_HTTP_AUTH=user:"+plantedBasicPassword)
			l := &listener{server: caddy, sites: []string{"http://" + caddy.IP + ":8001", "http://" + caddy.IP + ":8002"}}
			l.awaitTargets()
			l.askAll()
			for _, answer := range echoes {
				consul.Handle(answer)
				for _, site := range l.sites {
					l.awaitReason(site, "stale_expired")
				}
				l.askAll()
				consul.Handle(nil)
				l.awaitTargets()
			}
			l.wantNoSecret()
		})
	}
	sent := map[string]bool{}
	for _, r := range consul.Requests() {
		sent[r.Token] = true
	}
	if !sent[plantedConsulToken] || !sent[plantedFileToken] {
		t.Errorf("Consul saw the tokens %v", sent)
	}
}
