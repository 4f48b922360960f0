// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file checks the systemd units.

package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// service checks the unit with systemd's own tool, where there is one, and its command line with the command.
func service(t *testing.T, text string) {
	start := regexp.MustCompile(`(?m)^ExecStart=(\S+) (\S+) (.*)$`).FindStringSubmatch(text)
	if start == nil {
		t.Fatal("ExecStart has no program, command and arguments")
	}
	program, name, args := start[1], start[2], strings.Fields(start[3])
	command, ok := caddycmd.Commands()[name]
	if !ok {
		t.Fatalf("there is no command %s", name)
	}
	cmd := &cobra.Command{Use: name}
	command.CobraFunc(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Error(err)
	}
	if rest := cmd.Flags().Args(); len(rest) != 1 {
		t.Errorf("arguments of ExecStart besides flags: %q, want the address of Consul", rest)
	}

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here: the unit itself is not checked")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "vault-redirector.service")
	write(t, unit, strings.Replace(text, program, self, 1))
	// It fails where the unit cannot be loaded, and merely writes where a line is ignored.
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
