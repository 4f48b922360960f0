// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestBuilds(t *testing.T) {
	if testing.Short() {
		t.Skip("builds Caddy twice: left out with -short (make test-quick)")
	}
	t.Parallel()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`github.com/caddyserver/caddy/v2 (v\S+)`).FindStringSubmatch(string(mod))
	if version == nil {
		t.Fatal("no version of Caddy in go.mod")
	}
	for name, build := range map[string]func(t *testing.T) string{
		"go build": plainCaddy,
		"xcaddy": func(t *testing.T) string {
			bin := filepath.Join(t.TempDir(), "caddy")
			// Without @v0.0.0, xcaddy asks for a list of versions that an unpublished module does not have.
			cmd := exec.CommandContext(t.Context(), "go", "tool", "xcaddy", "build", version[1],
				"--with", "github.com/vault-redirector/caddy-vault-redirect@v0.0.0="+root, "--output", bin)
			cmd.Dir = filepath.Join(root, "tools", "xcaddy")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, tail(string(out), 4000))
			}
			return bin
		},
	} {
		t.Run(name, func(t *testing.T) {
			bin := build(t)
			out, err := exec.Command(bin, "list-modules").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, module := range []string{"http.handlers.vault_redirect", "http.handlers.vault_redirect_status", "http.vault_redirect.discovery.consul", "vault_redirect", "http.handlers.reverse_proxy"} {
				if !strings.Contains(string(out), "\n"+module+"\n") {
					t.Errorf("%s is not among the modules", module)
				}
			}
			if out, err := exec.Command(bin, "vault-redirect", "-V").CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// plainCaddy is a Caddy as users build it.
func plainCaddy(t *testing.T) string {
	t.Helper()
	bin, err := harness.Build(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
