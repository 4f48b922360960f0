// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Where programs are found, with a program of four lines in place of Consul, so that it is built in no time.

package cluster

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProgram(t *testing.T) {
	root, cache, bin := t.TempDir(), t.TempDir(), t.TempDir()
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		ok(t, os.MkdirAll(filepath.Dir(path), 0o755))
		ok(t, os.WriteFile(path, []byte(text), mode))
	}
	goProgram, err := exec.LookPath("go")
	ok(t, err)
	ok(t, os.Symlink(goProgram, filepath.Join(bin, "go")))
	// The module is a replaced folder, since nothing is downloaded here.
	write(filepath.Join(root, "tools/hello/go.mod"), `module tools

go 1.26

tool example.com/hello

require example.com/hello v1.2.3 // indirect

replace example.com/hello => ../../hello
`, 0o644)
	write(filepath.Join(root, "hello/go.mod"), "module example.com/hello\n\ngo 1.26\n", 0o644)
	write(filepath.Join(root, "hello/main.go"), "package main\n\nfunc main() { print(\"hello\") }\n", 0o644)
	write(filepath.Join(root, "a/b/c.txt"), "", 0o644)
	// The build keeps its own cache: Go's is in the same user's folder.
	gocache, err := exec.CommandContext(t.Context(), goProgram, "env", "GOCACHE").Output()
	ok(t, err)
	t.Setenv("GOCACHE", strings.TrimSpace(string(gocache)))
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("PATH", bin)
	t.Chdir(filepath.Join(root, "a/b"))

	want := filepath.Join(cache, "caddy-vault-redirect", "hello-v1.2.3")
	err = each(make([]struct{}, 4), func(struct{}) error {
		if got, err := Program(t.Context(), "hello"); err != nil || got != want {
			t.Errorf("Program: %q, %v, want %q", got, err, want)
		}
		return nil
	})
	ok(t, err)
	out, err := exec.CommandContext(t.Context(), want).CombinedOutput()
	if err != nil || string(out) != "hello" {
		t.Errorf("the program says %q, %v", out, err)
	}
	if left, _ := filepath.Glob(want + ".*.tmp"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	write(filepath.Join(bin, "hello"), "#!/bin/sh\n", 0o755)
	if got, err := Program(t.Context(), "hello"); err != nil || got != filepath.Join(bin, "hello") {
		t.Errorf("with one on PATH: %q, %v", got, err)
	}
	if _, err := Program(t.Context(), "nothing"); err == nil || !strings.Contains(err.Error(), "tools/nothing/go.mod") {
		t.Errorf("a program that is nowhere: %v", err)
	}
	write(filepath.Join(root, "tools/bare/go.mod"), "module bare\n", 0o644)
	if _, err := Program(t.Context(), "bare"); err == nil || !strings.Contains(err.Error(), "no tool") {
		t.Errorf("a go.mod without a tool: %v", err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	ok(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	unlock, err = lock(t.Context(), path)
	ok(t, err)
	unlock()
}

// TestEnded starts a program that ends at once: the wait must not last, and the error must hold what it said.
func TestEnded(t *testing.T) {
	sh, err := exec.LookPath("sh")
	ok(t, err)
	p := &Process{
		Name: "sh", label: "sh", LogFile: filepath.Join(t.TempDir(), "log"),
		path: sh, args: []string{"-c", "echo no such luck; exit 3"}, note: t.Logf,
	}
	ok(t, p.start())
	err = poll(within(t), pollEvery, "wait", func(context.Context) error {
		if err := p.ended(); err != nil {
			return err
		}
		return errors.New("still there")
	})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("the error is %v", err)
	}
	if _, err := p.signal(0); !errors.Is(err, errNotRunning) {
		t.Errorf("a signal to the dead: %v", err)
	}
	if err := p.Pause(t.Context()); !errors.Is(err, errNotRunning) {
		t.Errorf("pause the dead: %v", err)
	}
	ok(t, p.Stop(t.Context()))
}
