// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Keeps the package compiling on Windows, where a cluster does not start.

package cluster

import (
	"context"
	"os"
)

// lock locks nothing: two processes build a program twice, and the second replaces that of the first.
func lock(context.Context, string, func()) (unlock func(), err error) { return func() {}, nil }

func interrupt(p *os.Process) error { return p.Kill() }
