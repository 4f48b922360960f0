// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func TestTwelveFactor(t *testing.T) {
	cluster.Needed(t)
	if _, _, err := findMariaDB(); err != nil {
		t.Skip(err)
	}
	caddy, err := harness.Build(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	todo := buildTodo(t)
	var out bytes.Buffer
	d := &demo{caddyProgram: caddy, todoProgram: todo, out: &out}
	if err := d.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, line := range []string{"is killed", "it serves", "is active", "is back, sealed", "is unsealed", "to 3 copies", "and failed 0 times"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is not in the output:\n%s", line, out.String())
		}
	}
	if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
		t.Errorf("the demo leaves its folder: %v", err)
	}
}

// A copy that lacks a part of its configuration says which.
func TestTodoNeedsItsEnvironment(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the service: left out with -short")
	}
	todo := buildTodo(t)
	cmd := exec.CommandContext(t.Context(), todo)
	cmd.Env = []string{"LISTEN=127.0.0.1:0"}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "the environment has no DATABASE") {
		t.Errorf("%v: %s", err, out)
	}
}

// buildTodo builds the service, which is a module of its own.
func buildTodo(t *testing.T) string {
	t.Helper()
	todo := filepath.Join(t.TempDir(), "todo")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", todo, ".")
	build.Dir = "todo"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the service: %v\n%s", err, out)
	}
	return todo
}
