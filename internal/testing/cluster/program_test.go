// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// write writes a file, and makes its folder.
func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	ok(t, os.MkdirAll(filepath.Dir(path), 0o755))
	ok(t, os.WriteFile(path, []byte(text), mode))
}

// enterHelloModule makes a module whose tool is hello, and enters one of its folders, with a cache and a PATH of the test's
// own. It returns the folders of all three.
func enterHelloModule(t *testing.T) (root, cache, bin string) {
	t.Helper()
	root, cache, bin = t.TempDir(), t.TempDir(), t.TempDir()
	goProgram, err := exec.LookPath("go")
	ok(t, err)
	ok(t, os.Symlink(goProgram, filepath.Join(bin, "go")))
	// The module is a replaced folder, since nothing is downloaded here.
	write(t, filepath.Join(root, "tools/hello/go.mod"), `module tools

go 1.26

tool example.com/hello

require example.com/hello v1.2.3 // indirect

replace example.com/hello => ../../hello
`, 0o644)
	write(t, filepath.Join(root, "hello/go.mod"), "module example.com/hello\n\ngo 1.26\n", 0o644)
	write(t, filepath.Join(root, "hello/main.go"), "package main\n\nfunc main() { print(\"hello\") }\n", 0o644)
	write(t, filepath.Join(root, "a/b/c.txt"), "", 0o644)
	// The build keeps its own cache: Go's is in the same user's folder.
	gocache, err := exec.CommandContext(t.Context(), goProgram, "env", "GOCACHE").Output()
	ok(t, err)
	t.Setenv("GOCACHE", strings.TrimSpace(string(gocache)))
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("PATH", bin)
	t.Chdir(filepath.Join(root, "a/b"))
	return root, cache, bin
}

func TestProgram(t *testing.T) {
	root, cache, bin := enterHelloModule(t)
	want := filepath.Join(cache, "caddy-vault-redirect", "hello-v1.2.3")
	// What a build that was killed has left.
	write(t, want+".1.tmp", "half a program", 0o755)
	var said notes
	err := wait.Each(make([]struct{}, 4), func(struct{}) error {
		if got, err := Program(t.Context(), "hello", said.add); err != nil || got != want {
			t.Errorf("Program: %q, %v, want %q", got, err, want)
		}
		return nil
	})
	ok(t, err)
	said.has(t, "hello v1.2.3: building, some minutes", "hello v1.2.3: built in ", "hello v1.2.3: in the cache: "+want+" (")
	out, err := exec.CommandContext(t.Context(), want).CombinedOutput()
	if err != nil || string(out) != "hello" {
		t.Errorf("the program says %q, %v", out, err)
	}
	if left, _ := filepath.Glob(want + ".*.tmp"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	write(t, filepath.Join(bin, "hello"), "#!/bin/sh\n", 0o755)
	if got, err := Program(t.Context(), "hello", said.add); err != nil || got != filepath.Join(bin, "hello") {
		t.Errorf("with one on PATH: %q, %v", got, err)
	}
	said.has(t, "hello: on PATH: "+filepath.Join(bin, "hello"))
	if _, err := Program(t.Context(), "nothing", nil); err == nil || !strings.Contains(err.Error(), "tools/nothing/go.mod") {
		t.Errorf("a program that is nowhere: %v", err)
	}
	write(t, filepath.Join(root, "tools/bare/go.mod"), "module bare\n", 0o644)
	if _, err := Program(t.Context(), "bare", nil); err == nil || !strings.Contains(err.Error(), "no tool") {
		t.Errorf("a go.mod without a tool: %v", err)
	}
}

// notes are lines of progress.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}

// has checks that exactly one line begins with each of these, or at least one where the cache is meant.
func (n *notes) has(t *testing.T, begins ...string) {
	t.Helper()
	for _, begin := range begins {
		found := 0
		for _, line := range n.lines {
			if strings.HasPrefix(line, begin) {
				found++
			}
		}
		if found == 0 || found > 1 && !strings.Contains(begin, "in the cache") {
			t.Errorf("%d lines begin with %q: %q", found, begin, n.lines)
		}
	}
}

// TestBuildFails breaks the program, and ends a build before it is over: nothing may be left.
func TestBuildFails(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/broken\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() { broken() }\n"} {
		ok(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	b := &builder{title: "broken", dir: dir, module: "example.com/broken", path: filepath.Join(t.TempDir(), "broken"), progress: t.Logf}
	if err := b.buildOnce(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "undefined: broken") {
		t.Errorf("the error does not say what is wrong: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.buildOnce(ended, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a build that was ended: %v", err)
	}
	if left, _ := filepath.Glob(b.path + "*"); len(left) != 1 || left[0] != b.path+".lock" {
		t.Errorf("left behind: %v", left)
	}
}

// TestGoOutput reads what go says, in pieces as a pipe gives them.
func TestGoOutput(t *testing.T) {
	o := &goOutput{}
	write := func(text string) {
		t.Helper()
		if n, err := o.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("Write: %d, %v", n, err)
		}
	}
	write("go: downloading example.com/a v1.0.0\ngo: down")
	if got := o.count(); got != "1 modules downloaded" {
		t.Error(got)
	}
	write("loading example.com/b v1.0.0\ninternal/abi\nexample.com/a/v2\n# example.com/b\n./b.go:1:2: undefined: x\nexa")
	if got := o.count(); got != "2 packages compiled" {
		t.Error(got)
	}
	if got := o.errors(); got != "# example.com/b\n./b.go:1:2: undefined: x\nexa" {
		t.Errorf("%q", got)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, func() {})
	ok(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	waited := false
	if _, err := lock(ctx, path, func() { waited = true }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
	if !waited {
		t.Error("nobody was told of the wait")
	}
	unlock()
	unlock, err = lock(t.Context(), path, func() {})
	ok(t, err)
	unlock()
}
