// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Keeps the package compiling on other Unixes, where 127.0.0.0/8 is not all loopback and a cluster does not start.

//go:build unix && !linux

package cluster

import "syscall"

func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func stopped(int) error { return nil }
