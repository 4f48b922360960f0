// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the Caddyfile directive and its parser.

package vaultredirect

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("vault_redirect", parseDirective)
	// After what may check, count or rewrite requests, and before what would answer them.
	httpcaddyfile.RegisterDirectiveOrder("vault_redirect", httpcaddyfile.Before, "reverse_proxy")
}

func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	vault_redirect [<matcher>] [<consul-address>] {
//	    consul [<address>] {
//	        service       <name>
//	        select        auto|tag|check
//	        tag           <tag>
//	        check_id      <id>
//	        token         <token>
//	        token_file    <file>
//	        datacenter    <name>
//	        namespace     <name>
//	        partition     <name>
//	        peer          <name>
//	        consistency   default|stale|consistent
//	        poll_interval <duration>
//	        tls {
//	            ca                   <file or folder>
//	            cert                 <file>
//	            key                  <file>
//	            server_name          <name>
//	            insecure_skip_verify
//	        }
//	    }
//	    scheme      https|http
//	    redirect_to auto|node_name|node_address|service_address|tagged:<key>|<template>
//	    port        <port>
//	    health_path <path>|off
//	    max_stale   <duration>
//	    retry_after <duration>
//	}
//
// All of it is optional: without anything, Consul is found by the environment variables of its own client, else at
// 127.0.0.1:8500.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	var consul Consul
	if d.NextArg() {
		consul.Address = d.Val()
		if d.NextArg() {
			return d.Errf("unexpected argument %q: only the address of Consul goes on this line", d.Val())
		}
	}
	err := parseBlock(d, options{
		"consul":      func() error { return consul.parse(d) },
		"scheme":      text(d, &h.Scheme, "https", "http"),
		"redirect_to": text(d, &h.RedirectTo),
		"port": func() error {
			var port string
			if err := text(d, &port)(); err != nil {
				return err
			}
			n, err := strconv.Atoi(port)
			if err != nil || n < 1 || n > 65535 {
				return d.Errf("port: %q is not a number from 1 to 65535", port)
			}
			h.Port = n
			return nil
		},
		"health_path": text(d, &h.HealthPath),
		"max_stale": func() error {
			h.MaxStale = new(caddy.Duration)
			return duration(d, h.MaxStale)()
		},
		"retry_after": duration(d, &h.RetryAfter),
	})
	if err != nil {
		return err
	}
	h.DiscoveryRaw = caddyconfig.JSONModuleObject(consul, "source", "consul", nil)
	return nil
}

// UnmarshalCaddyfile sets up the discovery from Caddyfile tokens. Syntax: the consul block of [Handler.UnmarshalCaddyfile].
func (c *Consul) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the discovery
	return c.parse(d)
}

func (c *Consul) parse(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		if c.Address != "" {
			return d.Errf("the address of Consul is given twice: %s and %s", c.Address, d.Val())
		}
		c.Address = d.Val()
		if d.NextArg() {
			return d.Errf("unexpected argument %q: only the address of Consul goes on this line", d.Val())
		}
	}
	return parseBlock(d, options{
		"service":       text(d, &c.Service),
		"select":        text(d, &c.Select, selectAuto, selectTag, selectCheck),
		"tag":           text(d, &c.Tag),
		"check_id":      text(d, &c.CheckID),
		"token":         text(d, &c.Token),
		"token_file":    text(d, &c.TokenFile),
		"datacenter":    text(d, &c.Datacenter),
		"namespace":     text(d, &c.Namespace),
		"partition":     text(d, &c.Partition),
		"peer":          text(d, &c.Peer),
		"consistency":   text(d, &c.Consistency, consistencyDefault, consistencyStale, consistencyConsistent),
		"poll_interval": duration(d, &c.PollInterval),
		"tls": func() error {
			c.TLS = new(TLS)
			return c.TLS.parse(d)
		},
	})
}

func (t *TLS) parse(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("tls: unexpected argument %q: its settings go in a block", d.Val())
	}
	return parseBlock(d, options{
		"ca":          text(d, &t.CA),
		"cert":        text(d, &t.Cert),
		"key":         text(d, &t.Key),
		"server_name": text(d, &t.ServerName),
		"insecure_skip_verify": func() error {
			t.InsecureSkipVerify = true
			if d.NextArg() {
				return d.Errf("insecure_skip_verify: unexpected argument %q: it takes none", d.Val())
			}
			return nil
		},
	})
}

// options has the parsers of a block's options by name.
type options map[string]func() error

// parseBlock parses a block, in which each option may stand once.
func parseBlock(d *caddyfile.Dispenser, o options) error {
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := o[name]
		if !ok {
			return d.Errf("unknown option %q: there are %s", name, strings.Join(o.names(), ", "))
		}
		if seen[name] {
			return d.Errf("%s is given twice", name)
		}
		seen[name] = true
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
		case len(args) > 1:
			return d.Errf("%s: unexpected argument %q: it takes one value", name, args[1])
		case len(values) > 0 && !slices.Contains(values, args[0]):
			return d.Errf("%s: %q is not %s", name, args[0], strings.Join(values, " or "))
		}
		*to = args[0]
		return nil
	}
}

// duration parses the one argument of an option as a duration that is not negative.
func duration(d *caddyfile.Dispenser, to *caddy.Duration) func() error {
	return func() error {
		name := d.Val()
		var value string
		if err := text(d, &value)(); err != nil {
			return err
		}
		parsed, err := caddy.ParseDuration(value)
		if err != nil || parsed < 0 {
			return d.Errf("%s: %q is not a duration such as %s", name, value, 30*time.Second)
		}
		*to = caddy.Duration(parsed)
		return nil
	}
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*Consul)(nil)
)
