// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package block has parsers for the options of a Caddyfile block.
package block

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Options maps the names of a block's options to their parsers.
type Options map[string]func() error

// Parse parses a block. Each option may be given once, unless it is repeatable.
func Parse(d *caddyfile.Dispenser, o Options, repeatable ...string) error {
	seen, last := map[string]bool{}, ""
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := o[name]
		if name == "{" {
			return d.Errf("%s does not take a block", last)
		}
		if !ok {
			return d.Errf("unknown option %q; expected one of: %s", name, strings.Join(slices.Sorted(maps.Keys(o)), ", "))
		}
		if seen[name] && !slices.Contains(repeatable, name) {
			return d.Errf("%s is given twice", name)
		}
		seen[name], last = true, name
		if err := parse(); err != nil {
			return err
		}
	}
	return nil
}

// Text parses the one argument of an option. If values are given, it must be one of them.
func Text(d *caddyfile.Dispenser, to *string, values ...string) func() error {
	return func() error {
		name := d.Val()
		args := d.RemainingArgs()
		switch {
		case len(args) == 0 || args[0] == "":
			return d.Errf("%s: a value is missing", name)
		case len(args) > 1: // the values are not shown: they may be parts of a token
			return d.Errf("%s: it takes one value, not %d", name, len(args))
		case len(values) > 0 && !slices.Contains(values, args[0]):
			return d.Errf("%s: %q is not %s", name, args[0], strings.Join(values, " or "))
		}
		*to = args[0]
		return nil
	}
}

// Flag parses an option that takes no argument.
func Flag(d *caddyfile.Dispenser, to *bool) func() error {
	return func() error {
		name := d.Val()
		*to = true
		if d.NextArg() {
			return d.Errf("%s: unexpected argument %q: it takes none", name, d.Val())
		}
		return nil
	}
}

// Token parses the one argument of the option token, which may be empty.
func Token(d *caddyfile.Dispenser, to **string) func() error {
	return func() error {
		args := d.RemainingArgs()
		if len(args) != 1 {
			return d.Errf("token: it takes one value, not %d", len(args)) // the values are not shown: they may be parts of a token
		}
		*to = &args[0]
		return nil
	}
}

// Number parses the one argument of an option as a number from 1 to most.
func Number(d *caddyfile.Dispenser, to *int, most int) func() error {
	return func() error {
		name := d.Val()
		var value string
		if err := Text(d, &value)(); err != nil {
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

// Duration parses the one argument of an option as a duration of at least least.
func Duration(d *caddyfile.Dispenser, to *caddy.Duration, least time.Duration) func() error {
	return func() error {
		name := d.Val()
		var value string
		if err := Text(d, &value)(); err != nil {
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

// Checked adds a check to a parser, so that the error names the file and the line.
func Checked(d *caddyfile.Dispenser, parse, check func() error) func() error {
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
