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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const orphanEnv = "CLUSTER_TEST_ORPHAN"

// TestOrphan runs itself in another process, which starts a server and is then killed.
func TestOrphan(t *testing.T) {
	if os.Getenv(orphanEnv) != "" {
		c, err := Start(t.Context(), Options{NoVault: true})
		ok(t, err)
		fmt.Println(c.Consuls[0].PID())
		ok(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	}
	Needed(t)
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOrphan$")
	cmd.Env = append(os.Environ(), orphanEnv+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.Output()
	if exit := (&exec.ExitError{}); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the other process: %v\n%s", err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	pid, err := strconv.Atoi(line)
	ok(t, err)
	// Nobody may be there to reap it: then it stays as a zombie.
	err = wait.Poll(within(t), 10*time.Millisecond, "wait for the orphan's end", func(context.Context) error {
		stat, err := os.ReadFile(filepath.Join("/proc", line, "stat"))
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		return fmt.Errorf("process %d: %s (%v)", pid, stat, err)
	})
	ok(t, err)
}
