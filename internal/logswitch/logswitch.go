// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package logswitch turns logging on and off by signals, as vault-redirector did.
package logswitch

// Off is the level at which nothing is logged: no message has it.
const Off = "FATAL"
