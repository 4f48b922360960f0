// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build unix

package process

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// terminate asks a process to end. A paused one is continued, for it could not obey otherwise.
func terminate(p *os.Process) error {
	return errors.Join(p.Signal(syscall.SIGTERM), p.Signal(syscall.SIGCONT))
}

// killGroup ends a process that still runs, and what it has started: nginx, for one, has workers.
func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }

// Pause freezes the process with SIGSTOP and returns when it stands still: its connections stay open and its port
// accepts new ones, but nothing is answered.
func (p *Process) Pause(ctx context.Context) error {
	r, err := p.signal(syscall.SIGSTOP)
	if err != nil {
		return err
	}
	err = wait.Poll(ctx, time.Millisecond, "pause "+p.label(), func(context.Context) error {
		return stopped(r.cmd.Process.Pid)
	})
	if err != nil {
		return err
	}
	p.note("%s paused", p.label())
	return nil
}

// Continue ends a Pause.
func (p *Process) Continue() error {
	if _, err := p.signal(syscall.SIGCONT); err != nil {
		return err
	}
	p.note("%s continued", p.label())
	return nil
}
