// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// What only Linux has: Caddy dies with this program even if it is killed.

package main

import "syscall"

func init() { caddyAttr.Pdeathsig = syscall.SIGKILL }
