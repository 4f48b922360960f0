// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package process

import (
	"fmt"
	"syscall"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// sysProcAttr: a group of its own, so that Ctrl-C in a terminal reaches the caller alone and the caller decides what
// becomes of its children; and SIGKILL should the caller die without deciding.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// stopped is nil when the process stands still: SIGSTOP returns before every thread has noticed it.
func stopped(pid int) error {
	fields, err := statOf(pid)
	if err != nil {
		return wait.Fatal(err)
	}
	if len(fields) == 0 || fields[0] != "T" {
		return fmt.Errorf("process %d is not stopped yet", pid)
	}
	return nil
}
