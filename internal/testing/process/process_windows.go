// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Windows has neither signals nor process groups of this kind: a process is ended at once, and cannot be paused.

package process

import (
	"context"
	"fmt"
	"os"
	"syscall"
)

func sysProcAttr() *syscall.SysProcAttr { return nil }

func terminate(p *os.Process) error { return p.Kill() }

func killGroup(p *os.Process) error { return p.Kill() }

// Pause fails: a process cannot be frozen here.
func (p *Process) Pause(context.Context) error {
	return fmt.Errorf("pause %s: not possible on Windows", p.label())
}

// Continue fails as Pause does.
func (p *Process) Continue() error {
	return fmt.Errorf("continue %s: not possible on Windows", p.label())
}
