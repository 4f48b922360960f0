// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build !unix

package logswitch

// ObeySignals does nothing: this system has no such signals. The admin API can set the level of the log.
func ObeySignals(string) {}
