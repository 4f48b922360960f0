// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program returns the path of a program such as "consul" or "vault". It is looked for on PATH, then in the user's
// cache folder (caddy-vault-redirect/<name>-<version>), else built there from tools/<name>, a Go module with a
// `tool` line, found in the working directory or above it. Processes that ask at the same time build it once.
// A build takes minutes: Vault 8 on two cores, so mind the ten minutes of `go test -timeout`.
//
// progress, unless it is nil, gets a line for where the program was found, and lines that tell how a build goes.
func Program(ctx context.Context, name string, progress func(format string, args ...any)) (string, error) {
	if progress == nil {
		progress = func(string, ...any) {}
	}
	if path, err := exec.LookPath(name); err == nil {
		progress("%s: on PATH: %s", name, path)
		return filepath.Abs(path)
	}
	b, err := newBuilder(name, progress)
	if err != nil {
		return "", err
	}
	if isProgram(b.path) {
		progress("%s: in the cache: %s (%s)", b.title, b.path, size(b.path))
		return b.path, nil
	}
	return b.path, b.buildOnce(ctx, expected[name])
}

// Bao returns the path of an OpenBao: the program that VAULT_REDIRECT_BAO in the environment names, or `bao` on PATH. It
// is not built here: its module is not to be had in the ordinary way, for its tags are not those that its path asks for.
func Bao() (string, error) {
	path, err := exec.LookPath(cmp.Or(os.Getenv("VAULT_REDIRECT_BAO"), "bao"))
	if err != nil {
		return "", fmt.Errorf("OpenBao: no bao on PATH, and none in VAULT_REDIRECT_BAO: %w", err)
	}
	return filepath.Abs(path)
}

// Installed is like Program, but does not build: it returns "" for a program that is neither on PATH nor in the
// cache.
func Installed(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	b, err := newBuilder(name, nil)
	if err != nil || !isProgram(b.path) {
		return "", err
	}
	return b.path, nil
}

// newBuilder returns the builder of a program, which has the path in the cache.
func newBuilder(name string, progress func(format string, args ...any)) (*builder, error) {
	dir, err := toolDir(name)
	if err != nil {
		return nil, err
	}
	module, version, err := toolModule(filepath.Join(dir, "go.mod"))
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("cache folder for %s: %w", name, err)
	}
	cache = filepath.Join(cache, "caddy-vault-redirect")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("cache folder for %s: %w", name, err)
	}
	return &builder{title: name + " " + version, dir: dir, module: module, path: filepath.Join(cache, name+"-"+version), progress: progress}, nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// toolDir finds the module tools/<name>.
func toolDir(name string) (string, error) {
	dir, err := toolFolder(name, "go.mod")
	if err != nil {
		return "", fmt.Errorf("%s is not on PATH, and %w", name, err)
	}
	return dir, nil
}

// toolFolder finds the folder tools/<name> with a file in it, in the working directory or the nearest folder above: tests
// run in their package's folder, the demo anywhere in the checkout.
func toolFolder(name, file string) (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		tool := filepath.Join(dir, "tools", name)
		if _, err := os.Stat(filepath.Join(tool, file)); err == nil {
			return tool, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("neither %s nor a folder above it has tools/%s/%s", wd, name, file)
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
