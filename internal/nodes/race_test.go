// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build race

package nodes

import "runtime"

// The race detector of Go 1.26 breaks now and then ("ThreadSanitizer: CHECK failed") when goroutines of a synctest bubble
// run on several threads: go.dev/issue/78156. It finds the same races on one.
func init() { runtime.GOMAXPROCS(1) }
