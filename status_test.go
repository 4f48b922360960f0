// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/spf13/cobra"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
)

// runSubcommand runs status or history as Caddy does, and returns what it prints, and its error.
func runSubcommand(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	parent := &cobra.Command{Use: "vault-redirect", SilenceUsage: true}
	status.AddCommands(parent)
	parent.SetArgs(args)
	out = process.Stdout(t, func() { err = parent.Execute() })
	return out, err
}

// TestStatusCommandOfARunningCaddy checks what the commands print of a real document, through the address in a config file.
func TestStatusCommandOfARunningCaddy(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "command", node("vault-0", true))
	config := c.config(nil, redirector(s, map[string]any{"name": "prod"}))
	c.mustLoad(config)
	c.awaitReason(discovery.ReasonOK)
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runSubcommand(t, "status", "--config", file, "--cluster", "prod")
	if err != nil || !strings.HasPrefix(out, "prod: redirecting to https://vault.invalid:8200 (vault-0), active for ") {
		t.Errorf("%v: %s", err, out)
	}
	for args, want := range map[string]string{
		"status --cluster x": `there are: prod`, "history --cluster x": "there is no cluster", "history --limit 0": "limit",
	} {
		if _, err := runSubcommand(t, append(strings.Fields(args), "--config", file)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestStatusPageComesFirst: in the order of directives, the page stands before vault_redirect and what answers, after what checks.
func TestStatusPageComesFirst(t *testing.T) {
	const text = ":8080 {\nrespond 200\nvault_redirect\nvault_redirect_status\nreverse_proxy x:1\nrequest_header a b\n}\n"
	const want = `[{"handle":[{"handler":"headers","request":{"set":{"A":["b"]}}},{"handler":"static_response","status_code":200},` +
		`{"handler":"vault_redirect_status"},` +
		`{"discovery":{"source":"consul"},"handler":"vault_redirect"},{"handler":"reverse_proxy","upstreams":[{"dial":"x:1"}]}]}]`
	got, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got), `"routes":`+want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
