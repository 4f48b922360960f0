// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// A client with the certificate of the redirector's probes may log in with it at Vault. A client that is proxied is not lent
// it: with neither certificate nor token it is refused as it would be at Vault itself. Where proxy_tls names the certificate,
// each of them logs in, and the log says so once.
func TestProxiedClientsHaveNoCertificate(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{Vaults: 1, TLS: true}) // Vault asks for a client certificate unless it is told not to
	mountKV(t, c)
	cert, key, err := c.Cert("redirector")
	if err != nil {
		t.Fatal(err)
	}
	enableCertLogin(t, c, "redirector")
	whole := "tls {\n ca " + c.VaultCA + "\n cert " + cert + "\n key " + key + "\n }"
	proxied := " proxy path /v1/auth/cert/login /v1/secret/*\n"
	caddy := runCaddy(t, "", `
http://{ip}:8001 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		probe {
			`+whole+`
		}
		`+proxied+`
	}
}
http://{ip}:8002 {
	vault_redirect {
		vault `+c.Vaults[0].URL+`
		probe {
			`+whole+`
		}
		`+proxied+`
	}
}
http://{ip}:8003 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		probe {
			`+whole+`
		}
		`+proxied+`
		proxy_`+whole+`
	}
}`)
	site := func(port int) string { return fmt.Sprintf("http://%s:%d", caddy.IP, port) }
	for port := 8001; port <= 8003; port++ {
		caddy.awaitTarget(site(port), c.Vaults[0].URL)
	}
	const secret = "/v1/secret/data/x"
	direct := trusting(t, c.VaultCA)
	for name, at := range map[string]certLogin{
		"at Vault itself": {direct, c.Vaults[0].URL},
		"trust of probe":  {client, site(8001)},
		"trust of vault":  {client, site(8002)},
	} {
		if code, token, answer := at.login(t); code != http.StatusBadRequest || token != "" || !strings.Contains(answer, "client certificate must be supplied") {
			t.Errorf("%s: login with nothing: status %d: %s", name, code, answer)
		}
		if code, answer := at.ask(t, "GET", secret, ""); code != http.StatusForbidden || strings.Contains(answer, `"data"`) {
			t.Errorf("%s: read with nothing: status %d: %s", name, code, answer)
		}
	}
	lent := certLogin{client, site(8003)}
	code, token, answer := lent.login(t)
	if code != http.StatusOK || token == "" {
		t.Fatalf("with proxy_tls: login: status %d: %s", code, answer)
	}
	if code, answer := lent.ask(t, "GET", secret, token); code != http.StatusOK || !strings.Contains(answer, `"a":"b"`) {
		t.Errorf("with proxy_tls: read: status %d: %s", code, answer)
	}
	// The token of such a login is good wherever it is shown, and changes nothing for clients that have none.
	if code, _ := (certLogin{client, site(8001)}).ask(t, "GET", secret, token); code != http.StatusOK {
		t.Errorf("read with its token elsewhere: status %d", code)
	}
	if code, _, _ := (certLogin{client, site(8001)}).login(t); code != http.StatusBadRequest {
		t.Errorf("trust of probe, after the other's login: status %d", code)
	}
	const warning = "the proxy presents a client certificate to Vault for every client that is proxied"
	var warned []string
	for line := range strings.Lines(caddy.Log()) {
		if strings.Contains(line, warning) {
			warned = append(warned, line)
		}
	}
	if len(warned) != 1 || !strings.Contains(warned[0], `"level":"warn"`) || !strings.Contains(warned[0], cert) {
		t.Errorf("%d warnings, want one with the file of the certificate: %q", len(warned), warned)
	}
}

// enableCertLogin lets clients with a certificate for a name log in at Vault and read the secrets.
func enableCertLogin(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	ca, err := os.ReadFile(c.VaultCA)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		path string
		body map[string]any
	}{
		{"sys/policies/acl/secrets", map[string]any{"policy": `path "secret/*" { capabilities = ["read"] }`}},
		{"sys/auth/cert", map[string]any{"type": "cert"}},
		{"auth/cert/certs/" + name, map[string]any{"certificate": string(ca), "allowed_common_names": name, "token_policies": "secrets"}},
	} {
		if err := c.Do(timeout(t), nil, "POST", "/v1/"+step.path, step.body, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// certLogin is a client of an address.
type certLogin struct {
	client  *http.Client
	address string
}

// login logs in by certificate, and returns the token, if there is one.
func (l certLogin) login(t *testing.T) (code int, token, answer string) {
	t.Helper()
	code, answer = l.ask(t, "POST", "/v1/auth/cert/login", "")
	var got struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	_ = json.Unmarshal([]byte(answer), &got) // an answer of another form has none
	return code, got.Auth.Token, answer
}

// ask sends a request, with a token unless it is empty.
func (l certLogin) ask(t *testing.T, method, path, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, l.address+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
