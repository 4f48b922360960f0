// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
)

// checks has a check for each file in this folder: it loads the file as far as that needs no network.
var checks = map[string]func(t *testing.T, text string){
	"minimal.Caddyfile":            caddyfile,
	"production.Caddyfile":         production,
	"without-consul.Caddyfile":     withoutConsul,
	"proxy.Caddyfile":              proxy,
	"datacenters.Caddyfile":        datacenters,
	"error-page.Caddyfile":         errorPage,
	"proxy-all.Caddyfile":          proxyAll,
	"reads.Caddyfile":              reads,
	"status.Caddyfile":             status,
	"events-exec.Caddyfile":        eventsCaddyfile,
	"events-webhook.Caddyfile":     eventsCaddyfile,
	"fastlane.Caddyfile":           caddyfile,
	"fleet.Caddyfile":              fleet,
	"internal-ca.Caddyfile":        internalCA,
	"acme-dns.Caddyfile":           acmeDNS,
	"config.json":                  config,
	"vault-redirector.service":     commandUnit,
	"caddy-vault-redirect.service": caddyUnit,
	"consul-policy.hcl":            consulPolicy,
	"vault-service.json":           vaultService,
	"redirector-service.json":      redirectorService,
	"Dockerfile":                   dockerfile,
	"compose.yaml":                 composed,
	"kubernetes.yaml":              kubernetes,
	"nomad.hcl":                    nomad,
}

// TestMain takes away what the caller's environment would put into the configs.
func TestMain(m *testing.M) {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "CONSUL_") || strings.HasPrefix(name, "VAULT_REDIRECT_") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func TestExamples(t *testing.T) {
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			check(t, string(text))
		})
	}
}

// TestAllAreChecked fails for a file without a check.
func TestAllAreChecked(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasSuffix(e.Name(), "_test.go") { // a folder has tests of its own
			continue
		}
		if checks[e.Name()] == nil {
			t.Errorf("%s has no row in checks", e.Name())
		}
	}
}

func quote(s string) string {
	text, _ := json.Marshal(s) // a string can always be encoded
	return string(text)
}

// setFiles lets the Caddyfiles that take them from the environment find files.
func setFiles(t *testing.T) files {
	t.Helper()
	f := newFiles(t)
	for name, path := range map[string]string{
		"CERT": f.cert, "KEY": f.key, "CONSUL_CA": f.cert, "CONSUL_TOKEN_FILE": f.token, "VAULT_CA": f.cert,
	} {
		t.Setenv("VAULT_REDIRECT_"+name, path)
	}
	return f
}

// files are those that the examples name: a certificate, its key, a token.
type files struct{ cert, key, token string }

func newFiles(t *testing.T) files {
	t.Helper()
	dir := t.TempDir()
	f := files{token: filepath.Join(dir, "token")}
	var err error
	if f.cert, f.key, err = certs.New("vault.example.com", "vault.example.com").Write(dir, "vault"); err != nil {
		t.Fatal(err)
	}
	write(t, f.token, "00000000-0000-0000-0000-000000000000\n")
	return f
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
