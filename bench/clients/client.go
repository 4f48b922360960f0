// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// op is something that clients do.
type op string

const (
	opRead     op = "read"
	opWrite    op = "write"
	opList     op = "list"
	opDelete   op = "delete"
	opBig      op = "big" // writes 600 KiB
	opWrap     op = "wrap"
	opUserpass op = "userpass"
	opAppRole  op = "approle"
	opCert     op = "cert"
	opTemplate op = "template" // renders a secret into a file, and again once it has changed
	opCache    op = "cache"    // asks twice, and is answered from a cache the second time

	// In a browser: a page of its own; and what a page asks for at the origin from which it comes, or at another one.
	opNavigate  op = "navigate"
	opSame      op = "same"
	opOther     op = "other"     // without anything that wants a preflight
	opPreflight op = "preflight" // with a token in a header
)

// commonOps is what every client is asked to do.
var commonOps = []op{opRead, opWrite, opList, opDelete, opBig, opWrap, opUserpass, opAppRole, opCert}

// request is an op with what is needed for it. Drivers in other languages get it as JSON.
type request struct {
	Op       op     `json:"op"`
	Name     string `json:"name"` // of a secret in the kv-v2 mount "secret"
	Value    string `json:"value"`
	User     string `json:"user"`
	Password string `json:"password"`
	RoleID   string `json:"role_id"`
	SecretID string `json:"secret_id"`
}

// driver is a client at work.
type driver interface {
	// version is the client's.
	version() string
	// do does what is asked and returns what was read, or the token of a login. errLacks: the client cannot be asked that.
	do(ctx context.Context, q request) (value string, err error)
	close() error
}

// errLacks is the error of what a client has no call for.
var errLacks = errors.New("the client has no call for that")

// missingError says why a client is left out.
type missingError struct{ why string }

func (e missingError) Error() string { return e.why }

func missing(format string, args ...any) error { return missingError{fmt.Sprintf(format, args...)} }

// client is one of the clients that the matrix has.
type client struct {
	name  string
	ops   []op // default commonOps
	open  func(ctx context.Context, s *stage, at *site) (driver, error)
	fails []op   // what is known not to work through a redirect
	never []op   // what the option cannot mend either
	mend  string // the option of vault_redirect that mends it
	fault string // whose fault it is, in Markdown
}

// longOps are left out where little time is to be spent: what is left has a redirect of each kind.
var longOps = []op{opList, opDelete, opUserpass, opAppRole, opCache, opSame, opOther}

// asked returns what the client is asked to do, all of it or the short part.
func (c *client) asked(short bool) []op {
	ops := slices.Clone(c.ops)
	if ops == nil {
		ops = slices.Clone(commonOps)
	}
	if short {
		ops = slices.DeleteFunc(ops, func(o op) bool { return slices.Contains(longOps, o) })
	}
	return ops
}
