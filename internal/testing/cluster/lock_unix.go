// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build unix

package cluster

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// lock takes an exclusive flock on path. It asks again and again rather than blocking in the kernel, where no context
// reaches, and calls waiting whenever another process has it. The kernel releases it when this process ends.
func lock(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = wait.Poll(ctx, 200*time.Millisecond, "lock "+path, func(context.Context) error {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != nil {
			waiting()
		}
		return err
	})
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// interrupt ends a program as Ctrl-C does.
func interrupt(p *os.Process) error { return p.Signal(os.Interrupt) }
