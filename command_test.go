// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"os"
	"path/filepath"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// In the first vault-redirector, -c was what -C is now.
func TestCommandKnowsTheOldFlagOfTheCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		"vault-active": `there is no file "vault-active"; if it is the ID of a Consul check, which was -c in the first vault-redirector, that is -C (--checkid) now`,
		file:           "-k|--key-path and -c|--cert-path must be specified together",
	} {
		cmd := new(cobra.Command)
		caddycmd.Commands()["vault-redirect"].CobraFunc(cmd)
		if err := cmd.ParseFlags([]string{"-c", value, "127.0.0.1:8500"}); err != nil {
			t.Fatal(err)
		}
		_, err := commandConfig(caddycmd.Flags{FlagSet: cmd.Flags()})
		wantError(t, err, want)
	}
}
