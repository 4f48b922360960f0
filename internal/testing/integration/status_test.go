// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// subcommand runs caddy vault-redirect with arguments beside a Caddy, at whose admin endpoint it looks.
func (s *server) subcommand(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	cmd := s.Command(timeout(s.t), append([]string{"vault-redirect"}, args...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), problems.String()
}

func TestStatusCommands(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := run(t, harness.Options{Caddyfile: draining(consul, "0s")})
	code, stdout, stderr := caddy.subcommand("status", "--wait", "30s")
	if code != 0 || !strings.Contains(stdout, "prod: redirecting to https://127.10.0.1:8200 (vault-1), active for ") || stderr != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if code, stdout, _ := caddy.subcommand("history", "--json"); code != 0 || !strings.Contains(stdout, `"event": "active_changed"`) {
		t.Errorf("exit code %d, %q", code, stdout)
	}
	consul.Set("vault", standin.Standby("vault-1", standin.Address("127.10.0.1")))
	caddy.await("no active node", func() bool { code, _, _ := caddy.subcommand("status"); return code == 2 })
	code, stdout, stderr = caddy.subcommand("status", "--cluster", "prod")
	if code != 2 || !strings.Contains(stdout, "prod: NO ACTIVE NODE for ") || stderr != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	for _, args := range [][]string{{"status", "--cluster", "none"}, {"status", "--nonsense"}, {"status", "extra"}, {"history", "--limit", "0"}, {"status", "--address", "127.0.0.1:1"}} {
		code, stdout, stderr := caddy.subcommand(args...)
		if code != 1 || stdout != "" || strings.Count(strings.TrimSpace(stderr), "\n") > 15 || stderr == "" {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}
