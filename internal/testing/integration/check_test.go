// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the test of the command check against a real cluster.

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestCheckCommand(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{ACL: true})
	caddy := harness.Prepare(t, harness.Options{Caddyfile: "{\n}\n"})
	ip := caddy.IP
	token, err := c.Token(timeout(t), `service_prefix "vault" { policy = "read" } node_prefix "" { policy = "read" }`)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, tokenFile := filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "token")
	caddyfile := "http://" + ip + ":8080 {\n\tbind " + ip + "\n\tvault_redirect {\n\t\tconsul " + c.Consuls[0].HTTPAddr + " {\n\t\t\ttoken_file " +
		tokenFile + "\n\t\t}\n\t\tscheme http\n\t}\n}\n"
	for name, text := range map[string]string{config: caddyfile, tokenFile: token} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// check fails unless the command ends with the code and says what it should.
	check := func(what string, wantCode int, want ...string) {
		t.Helper()
		cmd := caddy.Command(t.Context(), "vault-redirect", "check", "--config", config)
		out, _ := cmd.CombinedOutput()
		text := strings.Join(strings.Fields(string(out)), " ") // whatever the columns are
		if code := cmd.ProcessState.ExitCode(); code != wantCode {
			t.Errorf("%s: exit %d, want %d", what, code, wantCode)
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q", what, w)
			}
		}
		if strings.Contains(text, token) {
			t.Errorf("%s: the token is shown", what)
		}
		t.Logf("%s:\n%s", what, out)
	}

	if err := c.WaitSettled(timeout(t)); err != nil {
		t.Fatal(err)
	}
	active, err := c.Active(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	check("healthy", 0, ", "+active.URL+": it says so itself", "0 warning, 0 wrong", "nothing was hidden", "all nodes that say it are of one cluster")

	var standby *cluster.Vault
	for _, v := range c.Vaults {
		if v != active {
			standby = v
		}
	}
	if err := standby.Seal(timeout(t)); err != nil {
		t.Fatal(err)
	}
	check("a standby is sealed", 0, "sealed (503)", "vault operator unseal -address="+standby.URL, ", 0 wrong")
	if err := standby.Unseal(timeout(t)); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(tokenFile, []byte("00000000-0000-0000-0000-000000000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("the token is not known", 2, "wrong token", `node_prefix "" { policy = "read" }`)
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := c.Consuls[0].Stop(timeout(t)); err != nil {
		t.Fatal(err)
	}
	check("Consul is stopped", 2, "wrong consul", "connection refused", "start the Consul agent at "+c.Consuls[0].HTTPAddr)
}
