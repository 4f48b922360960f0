// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Where the Consul and Vault programs come from: PATH, the user's cache, or a build.

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Program returns the path of the program name, "consul" or "vault". It is looked for on PATH, then in the user's
// cache folder (caddy-vault-redirect/<name>-<version>), else built there from tools/<name>, a Go module with a
// `tool` line, found in the working directory or above it. Processes that ask at the same time build it once.
// A build takes minutes: Vault 8 on two cores, so mind the ten minutes of `go test -timeout`.
func Program(ctx context.Context, name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	dir, err := toolDir(name)
	if err != nil {
		return "", err
	}
	module, version, err := toolModule(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder for %s: %w", name, err)
	}
	cache = filepath.Join(cache, "caddy-vault-redirect")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("cache folder for %s: %w", name, err)
	}
	path := filepath.Join(cache, name+"-"+version)
	if isProgram(path) {
		return path, nil
	}
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if isProgram(path) { // another process built it while this one waited
		return path, nil
	}
	return path, build(ctx, dir, module, path)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// toolDir finds tools/<name> in the working directory or the nearest folder above: tests run in their package's
// folder, the demo anywhere in the checkout.
func toolDir(name string) (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		tool := filepath.Join(dir, "tools", name)
		if _, err := os.Stat(filepath.Join(tool, "go.mod")); err == nil {
			return tool, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not on PATH, and neither %s nor a folder above it has tools/%s/go.mod", name, wd, name)
		}
	}
}

// toolModule reads the module of the `tool` line, and its required version, from a go.mod.
func toolModule(file string) (module, version string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	versions := make(map[string]string)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) > 0 && f[0] == "require" {
			f = f[1:]
		}
		switch {
		case len(f) == 2 && f[0] == "tool":
			module = f[1]
		case len(f) >= 2 && strings.HasPrefix(f[1], "v"):
			versions[f[0]] = f[1]
		}
	}
	if err := lines.Err(); err != nil {
		return "", "", fmt.Errorf("read %s: %w", file, err)
	}
	if version = versions[module]; module == "" || version == "" {
		return "", "", fmt.Errorf("%s names no tool with a required version", file)
	}
	return module, version, nil
}

// build compiles module in dir and moves it to path in one step, so that nobody ever starts half a program.
func build(ctx context.Context, dir, module, path string) (err error) {
	tmp := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
	defer func() {
		if rmErr := os.Remove(tmp); err == nil && rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
			err = rmErr
		}
	}()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", tmp, module)
	cmd.Dir = dir
	// A caller's workspace or race flags must not decide what is cached for everybody.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", module, dir, err, out)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("build %s: %w", module, err)
	}
	return nil
}

// lock takes an exclusive flock on path. It asks again and again rather than blocking in the kernel, where no
// context reaches. The kernel releases it should this process die.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = poll(ctx, 200*time.Millisecond, "lock "+path, func(context.Context) error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
