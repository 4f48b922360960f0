// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestRollingUpgradeScript(t *testing.T) {
	const script = "rolling-upgrade/rolling-upgrade.sh"
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh here")
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "#!/bin/sh\n") || !strings.Contains(string(text), "\nset -eu\n") {
		t.Error("it is no script for sh that ends with the first error")
	}
	if out, err := exec.Command(sh, "-n", script).CombinedOutput(); err != nil {
		t.Errorf("sh -n: %v: %s", err, out)
	}
	for _, row := range []struct{ name, token, want string }{
		{"without a token", "", "VAULT_TOKEN"},
		{"without nodes", "hvs.x", "usage:"},
	} {
		cmd := exec.Command(sh, script)
		cmd.Env = append(os.Environ(), "VAULT_TOKEN="+row.token)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), row.want) {
			t.Errorf("%s: error %v, output %s", row.name, err, out)
		}
	}
}
