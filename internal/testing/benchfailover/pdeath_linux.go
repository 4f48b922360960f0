// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// What only Linux has: the processes die with this one even if it is killed.

package main

import "syscall"

func init() { childAttr.Pdeathsig = syscall.SIGKILL }
