// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// What only Linux has: Caddy dies with the demo even if the demo is killed.

package main

import "syscall"

func init() { caddyAttr.Pdeathsig = syscall.SIGKILL }
