// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestWhatCaddyItselfShows(t *testing.T) {
	t.Parallel()
	const vaultToken, literal, byEnv = "hvs.PLANTEDvault", "PLANTED-literal", "PLANTED-by-env"
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := runCaddy(t, "\tdebug", `
http://{ip}:8001 {
	log
	vault_redirect {
		consul `+consul.Addr()+` {
			token `+literal+`
		}
	}
}
http://{ip}:8002 {
	vault_redirect {
		consul `+consul.Addr()+` {
			token {env.PLANTED}
		}
	}
}`, "PLANTED="+byEnv)
	for _, port := range []string{"8001", "8002"} {
		caddy.awaitTarget("http://"+caddy.IP+":"+port, "https://127.10.0.1:8200")
	}
	req, err := http.NewRequest("GET", "http://"+caddy.IP+":8001/v1/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", vaultToken)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	caddy.await("the request is logged", func() bool { return strings.Contains(caddy.Log(), `"uri":"/v1/x"`) })
	_, config := caddy.admin("GET", "/config/", "", "")
	autosave, err := os.ReadFile(filepath.Join(caddy.DataDir, "caddy", "autosave.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		where, text, secret string
		shows               bool
	}{
		{"an access log without a filter", caddy.Log(), vaultToken, true},
		{"the log at DEBUG", caddy.Log(), literal, true},
		{"the admin API", config, literal, true},
		{"autosave.json", string(autosave), literal, true},
		{"the log at DEBUG", caddy.Log(), byEnv, false},
		{"the admin API", config, byEnv, false},
		{"autosave.json", string(autosave), byEnv, false},
	} {
		if strings.Contains(row.text, row.secret) != row.shows {
			t.Errorf("%s shows %s: want %v", row.where, row.secret, row.shows)
		}
	}
}

// TestCommandFiltersItsLog sends all that may be secret to the drop-in command, which logs as much as it can.
func TestCommandFiltersItsLog(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, originalData()...)
	p := harness.Port(t)
	s := run(t, harness.Options{Args: []string{"vault-redirect", "-vv", "-P", p, consul.Addr()}, Env: []string{"CONSUL_HTTP_TOKEN=PLANTED-consul"}})
	site := "http://" + s.IP + ":" + p
	s.await("it answers", func() bool { return answers(site) })
	s.awaitTarget(site, "http://node2:8200")
	req, err := http.NewRequest("GET", site+"/v1/secret/seen", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"X-Vault-Token", "X-Consul-Token", "X-Vault-MFA", "Authorization", "Cookie"} {
		req.Header.Set(name, "PLANTED-"+name)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	s.await("the request is logged", func() bool { return strings.Contains(s.Log(), "/v1/secret/seen") })
	if log := s.Log(); strings.Contains(log, "PLANTED") {
		t.Errorf("the log shows a secret:\n%s", log)
	}
}

// TestHealthForSome runs the site of SECURITY.md that hides the health document from some: here, from us.
func TestHealthForSome(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(text), "```caddyfile\nhttps://vault.example.com {\n")
	block, _, closed := strings.Cut(block, "```")
	if !ok || !closed {
		t.Fatal("there is no such site")
	}
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	block = strings.ReplaceAll(block, "vault_redirect\n", "vault_redirect "+consul.Addr()+"\n")
	hidden, shown := strings.ReplaceAll(block, "private_ranges", "192.0.2.0/24"), block // loopback is private
	caddy := runCaddy(t, "", "http://{ip}:8001 {\n"+hidden+"\nhttp://{ip}:8002 {\n"+shown)
	for port, want := range map[string]int{"8001": http.StatusNotFound, "8002": http.StatusOK} {
		site := "http://" + caddy.IP + ":" + port
		if code, _, body := get(t, site+"/vault-redirector-health"); code != want || want == http.StatusNotFound && body != "" {
			t.Errorf("status %d, want %d: %s", code, want, body)
		}
		if code, location, _ := get(t, site+"/v1/x"); code != http.StatusTemporaryRedirect || location != "https://127.10.0.1:8200/v1/x" {
			t.Errorf("status %d, Location %q", code, location)
		}
	}
}
