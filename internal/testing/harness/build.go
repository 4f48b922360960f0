// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// module is what Caddy is built from. The tests that ask for a build may belong to another module, such as bench/.
const module = "github.com/vault-redirector/caddy-vault-redirect"

// builds are the programs that this process has built.
var builds struct {
	sync.Mutex
	dir  string
	made map[bool]string // by whether they have the race detector
}

// Build returns a Caddy with the plugin, as users build it from cmd/caddy, with the race detector if race. It is built
// once for all tests of a package; Main removes it.
func Build(ctx context.Context, race bool) (program string, err error) {
	builds.Lock()
	defer builds.Unlock()
	if program := builds.made[race]; program != "" {
		return program, nil
	}
	if builds.dir == "" {
		if builds.dir, err = os.MkdirTemp("", "caddy-build-"); err != nil {
			return "", fmt.Errorf("build caddy: %w", err)
		}
		builds.made = map[bool]string{}
	}
	// The flags of the Makefile, so that what make has compiled is not compiled again.
	name, flags := "caddy", []string{"build", "-trimpath", "-tags", "nobadger,nomysql,nopgx"}
	if race {
		name, flags = "caddy-race", append(flags, "-race")
	}
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	program = filepath.Join(builds.dir, name)
	root, err := moduleDir(ctx)
	if err != nil {
		return "", fmt.Errorf("build caddy: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", append(flags, "-o", program, module+"/cmd/caddy")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build caddy: %w\n%s", err, out)
	}
	builds.made[race] = program
	return program, nil
}

// moduleDir is the folder of the module.
func moduleDir(ctx context.Context) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the folder of %s: %w\n%s", module, err, &stderr)
	}
	return string(bytes.TrimSpace(out)), nil
}

// Main runs the tests of a package (m is a *testing.M), removes what Build has made, and returns the exit code.
func Main(m interface{ Run() int }) int {
	defer func() {
		builds.Lock()
		defer builds.Unlock()
		if builds.dir != "" {
			_ = os.RemoveAll(builds.dir)
		}
	}()
	return m.Run()
}

// MainAsCaddy is Main for a test binary that is the Caddy of its tests as well: then it runs caddy, which is caddycmd.Main.
func MainAsCaddy(m interface{ Run() int }, caddy func()) int {
	if AsCaddy() {
		caddy()
		return 0
	}
	return Main(m)
}
