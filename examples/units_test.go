// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// commandUnit checks the unit of the drop-in command, and its command line with the command.
func commandUnit(t *testing.T, text string) {
	start := regexp.MustCompile(`(?m)^ExecStart=(\S+) (\S+) (.*)$`).FindStringSubmatch(text)
	if start == nil {
		t.Fatal("ExecStart has no program, command and arguments")
	}
	name, args := start[2], strings.Fields(start[3])
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
	// command.go has the grace period.
	longer(t, "systemd", duration(t, text, `(?m)^TimeoutStopSec=(\S+)$`), 10*time.Second)
	verify(t, text, start[1])
}

// caddyUnit checks the unit of Caddy with a Caddyfile.
func caddyUnit(t *testing.T, text string) {
	for _, example := range []string{"production.Caddyfile", "fleet.Caddyfile"} {
		config := page(t, "examples/"+example)
		longer(t, "systemd", duration(t, text, `(?m)^TimeoutStopSec=(\S+)$`), drains(t, config))
		if !strings.Contains(config, ":unix//run/caddy/admin.sock}") {
			t.Errorf("the admin socket of %s is not in the folder that the unit makes", example)
		}
	}
	for _, line := range []string{"RuntimeDirectory=caddy", "RuntimeDirectoryMode=0700", "AmbientCapabilities=CAP_NET_BIND_SERVICE"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
	for _, line := range []string{"ExecStart=%s run", "ExecReload=%s reload --force"} {
		if line = fmt.Sprintf(line, "/usr/local/bin/caddy") + " --config /etc/caddy/Caddyfile"; !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
	verify(t, text, "/usr/local/bin/caddy")
}

// verify checks a unit with systemd's own tool, where there is one. This test stands for its program.
func verify(t *testing.T, text, program string) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here: the unit itself is not checked")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "unit.service")
	write(t, unit, strings.ReplaceAll(text, program, self))
	// It fails where the unit cannot be loaded, and merely writes where a line is ignored.
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
