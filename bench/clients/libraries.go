// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// Where clients that are libraries come from: Go's from a module of their own, Python's from Debian, Node's from npm, in the
// versions that the lock file names.

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

//go:embed node/driver.mjs node/package.json node/package-lock.json python/driver.py
var drivers embed.FS

// once makes each thing that drivers need once a run.
type once struct {
	sync.Mutex
	made map[string]func() (string, error)
}

var prepared = once{made: map[string]func() (string, error){}}

func (o *once) get(what string, make func() (string, error)) (string, error) {
	o.Lock()
	f := o.made[what]
	if f == nil {
		f = sync.OnceValues(make)
		o.made[what] = f
	}
	o.Unlock()
	return f()
}

// program returns the path of a program. Without fetch, it must be on PATH or built already.
func (s *stage) program(ctx context.Context, name string) (string, error) {
	if s.fetch {
		return cluster.Program(ctx, name, nil)
	}
	path, err := cluster.Installed(name)
	if err == nil && path == "" {
		err = missing("neither on PATH nor built; `make clients` builds it")
	}
	return path, err
}

func openGo(name string) func(context.Context, *stage, *site) (driver, error) {
	return func(ctx context.Context, s *stage, at *site) (driver, error) {
		path, err := prepared.get("go "+s.dir, func() (string, error) { return buildGoClients(ctx, s) })
		if err != nil {
			return nil, err
		}
		return openScripted(ctx, s.env(at), path, name)
	}
}

// buildGoClients builds the program with Go's clients. Without fetch, only if their modules are here already.
func buildGoClients(ctx context.Context, s *stage) (string, error) {
	dir, err := sourceDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, "goclients")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", path, ".")
	cmd.Dir = filepath.Join(dir, "goclients")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if !s.fetch {
		cmd.Env = append(cmd.Env, "GOPROXY=off")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		if !s.fetch && bytes.Contains(out, []byte("GOPROXY=off")) {
			return "", missing("its modules are not downloaded")
		}
		return "", fmt.Errorf("build Go's clients: %w\n%s", err, out)
	}
	return path, nil
}

// sourceDir is the folder of this package: the command runs at the top of the checkout, tests in the package.
func sourceDir() (string, error) {
	for _, dir := range []string{".", "bench/clients"} {
		if _, err := os.Stat(filepath.Join(dir, "goclients", "go.mod")); err == nil {
			return filepath.Abs(dir)
		}
	}
	return "", fmt.Errorf("bench/clients/goclients is not here: run it at the top of the checkout")
}

func openPython(name string) func(context.Context, *stage, *site) (driver, error) {
	return func(ctx context.Context, s *stage, at *site) (driver, error) {
		script := filepath.Join(s.dir, "driver.py")
		if err := copyDriver("python/driver.py", script); err != nil {
			return nil, err
		}
		// Debian's packages are those of Debian's Python, which need not be the first on PATH.
		err := missing("no python3 is on PATH")
		for _, program := range []string{"python3", "/usr/bin/python3"} {
			if _, failed := exec.LookPath(program); failed != nil {
				continue
			}
			var d driver
			if d, err = openScripted(ctx, s.env(at), program, script, name); err == nil {
				return d, nil
			}
		}
		return nil, err
	}
}

func openNode(name string) func(context.Context, *stage, *site) (driver, error) {
	return func(ctx context.Context, s *stage, at *site) (driver, error) {
		if _, err := exec.LookPath("node"); err != nil {
			return nil, missing("no node is on PATH")
		}
		dir, err := prepared.get("node", func() (string, error) { return installNodeClients(ctx, s.fetch) })
		if err != nil {
			return nil, err
		}
		return openScripted(ctx, s.env(at), "node", filepath.Join(dir, "driver.mjs"), name)
	}
}

// installNodeClients returns the folder of Node's clients, in the user's cache, named by the lock file. Without fetch they
// must be there already.
func installNodeClients(ctx context.Context, fetch bool) (string, error) {
	lock, err := drivers.ReadFile("node/package-lock.json")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "caddy-vault-redirect", fmt.Sprintf("node-clients-%.8x", sha256.Sum256(lock)))
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err != nil && !fetch {
		return "", missing("not downloaded; `make clients` does that")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"package.json", "package-lock.json", "driver.mjs"} {
		if err := copyDriver("node/"+name, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	if _, err := os.Stat(done); err == nil {
		return dir, nil
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", missing("npm cannot install it: %s", strings.TrimSpace(string(out)))
	}
	return dir, os.WriteFile(done, nil, 0o644)
}

// copyDriver writes a file of this program, in one step: another run may be reading it.
func copyDriver(name, to string) error {
	text, err := drivers.ReadFile(name)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(to); err == nil && bytes.Equal(old, text) {
		return nil
	}
	tmp := fmt.Sprintf("%s.%d", to, os.Getpid())
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}
