// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the parsers of single options, whatever they belong to.

package vaultredirect

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// options has the parsers of a block's options by name.
type options map[string]func() error

// parseBlock parses a block, in which each option may stand once.
func parseBlock(d *caddyfile.Dispenser, o options) error {
	seen, last := map[string]bool{}, ""
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := o[name]
		if name == "{" {
			return d.Errf("%s: takes no block", last)
		}
		if !ok {
			return d.Errf("unknown option %q: there are %s", name, strings.Join(o.names(), ", "))
		}
		if seen[name] {
			return d.Errf("%s is given twice", name)
		}
		seen[name], last = true, name
		if err := parse(); err != nil {
			return err
		}
	}
	return nil
}

func (o options) names() []string {
	var names []string
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// text parses the one argument of an option, which is one of some values if there are any.
func text(d *caddyfile.Dispenser, to *string, values ...string) func() error {
	return func() error {
		name := d.Val()
		args := d.RemainingArgs()
		switch {
		case len(args) == 0 || args[0] == "":
			return d.Errf("%s: a value is missing", name)
		case len(args) > 1: // and do not repeat what may be a part of a token
			return d.Errf("%s: it takes one value, not %d", name, len(args))
		case len(values) > 0 && !slices.Contains(values, args[0]):
			return d.Errf("%s: %q is not %s", name, args[0], strings.Join(values, " or "))
		}
		*to = args[0]
		return nil
	}
}

// token parses the one argument of the option token, which may be empty.
func token(d *caddyfile.Dispenser, to **string) func() error {
	return func() error {
		args := d.RemainingArgs()
		if len(args) != 1 {
			return d.Errf("token: it takes one value, not %d", len(args)) // and do not repeat what may be a part of a token
		}
		*to = &args[0]
		return nil
	}
}

// number parses the one argument of an option as a number from 1 to most.
func number(d *caddyfile.Dispenser, to *int, most int) func() error {
	return func() error {
		name := d.Val()
		var value string
		if err := text(d, &value)(); err != nil {
			return err
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > most {
			return d.Errf("%s: %q is not a number from 1 to %d", name, value, most)
		}
		*to = n
		return nil
	}
}

// duration parses the one argument of an option as a duration that is not below least.
func duration(d *caddyfile.Dispenser, to *caddy.Duration, least time.Duration) func() error {
	return func() error {
		name := d.Val()
		var value string
		if err := text(d, &value)(); err != nil {
			return err
		}
		parsed, err := caddy.ParseDuration(value)
		switch {
		case err != nil || parsed < 0:
			return d.Errf("%s: %q is not a duration such as %s", name, value, 30*time.Second)
		case parsed < least:
			return d.Errf("%s: %q is too short", name, value)
		}
		*to = caddy.Duration(parsed)
		return nil
	}
}

// checked adds a check to a parser, so that the error names the file and the line.
func checked(d *caddyfile.Dispenser, parse, check func() error) func() error {
	return func() error {
		if err := parse(); err != nil {
			return err
		}
		if err := check(); err != nil {
			return d.WrapErr(err)
		}
		return nil
	}
}
