// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"cmp"
	"math"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/block"
	"github.com/vault-redirector/caddy-vault-redirect/internal/consul"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/nodes"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("vault_redirect", parseDirective)
	// After handlers that may check, count or rewrite requests, and before those that would answer them.
	httpcaddyfile.RegisterDirectiveOrder("vault_redirect", httpcaddyfile.Before, "reverse_proxy")
}

func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	vault_redirect [<matcher>] [<consul-address>] {
//	    name <name>
//	    consul [<address>] {
//	        service       <name>
//	        active_by     auto|tag|check
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
//	    vault <url>...
//	    scheme      https|http
//	    redirect_to auto|node_name|node_address|service_address|tagged:<key>|leader|<template>
//	    port        <port>
//	    probe [auto|strict|off] [<interval>] {
//	        interval <duration>
//	        timeout  <duration>
//	        fall     <number>
//	        tls { ... }
//	    }
//	    proxy       all|<matcher> [<args>...]
//	    proxy_tls {
//	        ...
//	    }
//	    standby     <matcher> [<args>...]
//	    hold        <duration>
//	    hold_max    <number>
//	    max_stale   <duration>
//	    retry_after <duration>
//	    health_path <path>|off
//	    log_health
//	    pass_thru
//	}
//
// Each option may be given once, except proxy and standby, each of which adds a matcher. Any of Caddy's matchers works, such as
//
//	proxy path /v1/sys/storage/raft/snapshot*
//	proxy header X-Vault-Proxy yes
//	standby method GET LIST
//
// proxy all proxies every request, and takes no matcher beside it.
//
// Everything is optional: by default, the address of Consul is that of the environment variables of its own client, else
// 127.0.0.1:8500. consul and vault are mutually exclusive.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	var (
		through Consul
		vault   *Vault
	)
	if err := through.parseAddress(d); err != nil {
		return err
	}
	other := through.Address != "" // there is a consul block or an address of Consul
	err := block.Parse(d, block.Options{
		"name": block.Text(d, &h.Name),
		"consul": func() error {
			other = true
			return through.parse(d)
		},
		"vault": func() error {
			vault = new(Vault)
			return vault.parse(d)
		},
		"scheme": block.Text(d, &h.Scheme, "https", "http"),
		"redirect_to": block.Checked(d, block.Text(d, &h.RedirectTo), func() error {
			_, err := engine.NewAddressing("", h.RedirectTo, 0)
			return err
		}),
		"port": block.Number(d, &h.Port, 65535),
		"max_stale": func() error {
			h.MaxStale = new(caddy.Duration)
			return block.Duration(d, h.MaxStale, 0)()
		},
		"hold": func() error {
			h.Hold = new(caddy.Duration)
			return block.Duration(d, h.Hold, 0)()
		},
		"hold_max": block.Number(d, &h.HoldMax, math.MaxInt32),
		"probe": func() error {
			h.Probe = new(Probe)
			return h.Probe.parse(d)
		},
		"health_path": block.Checked(d, block.Text(d, &h.HealthPath), func() error { return checkHealthPath(h.HealthPath) }),
		"log_health":  block.Flag(d, &h.LogHealth),
		"proxy": func() error {
			h.Proxy = cmp.Or(h.Proxy, new(Proxy))
			return h.Proxy.parseMatcher(d)
		},
		"proxy_tls": func() error {
			h.Proxy = cmp.Or(h.Proxy, new(Proxy))
			return parseTLS(d, &h.Proxy.TLS)()
		},
		"pass_thru": block.Flag(d, &h.PassThru),
		"standby": func() error {
			h.Standby = cmp.Or(h.Standby, new(Standby))
			return h.Standby.parseMatcher(d)
		},
		"retry_after": block.Duration(d, &h.RetryAfter, time.Nanosecond),
	}, "proxy", "standby")
	switch invalid := h.Standby.check(h); {
	case err != nil:
		return err
	case invalid != nil:
		return d.WrapErr(invalid)
	case vault != nil && other:
		return d.Err("consul and vault are mutually exclusive")
	case vault != nil:
		h.DiscoveryRaw = caddyconfig.JSONModuleObject(vault, "source", "vault", nil)
	default:
		h.DiscoveryRaw = caddyconfig.JSONModuleObject(through, "source", "consul", nil)
	}
	return nil
}

// parse parses the option vault. d is at its name.
func (v *Vault) parse(d *caddyfile.Dispenser) error {
	v.URLs = d.RemainingArgs()
	if len(v.URLs) == 0 {
		return d.Err("vault: the URLs of the nodes are missing, such as https://vault-0.example.com:8200")
	}
	for _, u := range v.URLs {
		if strings.Contains(u, "{") {
			continue // the values of placeholders are not known yet
		}
		if _, err := nodes.ParseURL(u); err != nil {
			return d.Errf("vault: %v", err)
		}
	}
	return nil
}

// parse parses the consul block. d is at its name.
func (c *Consul) parse(d *caddyfile.Dispenser) error {
	if err := c.parseAddress(d); err != nil {
		return err
	}
	err := block.Parse(d, block.Options{
		"service":       block.Checked(d, block.Text(d, &c.Service), func() error { return checkService(c.Service) }),
		"active_by":     block.Text(d, &c.ActiveBy, discovery.ByAuto, discovery.ByTag, discovery.ByCheck),
		"tag":           block.Text(d, &c.Tag),
		"check_id":      block.Text(d, &c.CheckID),
		"token":         block.Token(d, &c.Token),
		"token_file":    block.Text(d, &c.TokenFile),
		"datacenter":    block.Text(d, &c.Datacenter),
		"namespace":     block.Text(d, &c.Namespace),
		"partition":     block.Text(d, &c.Partition),
		"peer":          block.Text(d, &c.Peer),
		"consistency":   block.Text(d, &c.Consistency, consul.ConsistencyDefault, consul.ConsistencyStale, consul.ConsistencyConsistent),
		"poll_interval": block.Checked(d, block.Duration(d, &c.PollInterval, 0), func() error { return checkPollInterval(c.PollInterval) }),
		"tls":           parseTLS(d, &c.TLS),
	})
	if err == nil && c.Token != nil && c.TokenFile != "" {
		err = d.WrapErr(errTwoTokens)
	}
	return err
}

// parseAddress parses the address of Consul if it comes next. It must be the only argument on its line.
func (c *Consul) parseAddress(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return nil
	}
	if c.Address != "" {
		return d.Errf("the address of Consul is given twice: %s and %s", c.Address, d.Val())
	}
	c.Address = d.Val()
	if !strings.Contains(c.Address, "{") { // else it has placeholders, whose values are not known yet
		if _, err := consul.ParseEndpoint(c.Address, false); err != nil {
			return d.Errf("address of Consul: %v", err)
		}
	}
	if d.NextArg() {
		return d.Err("unexpected argument: only the address of Consul goes on this line")
	}
	return nil
}

// parseTLS parses a block of TLS settings.
func parseTLS(d *caddyfile.Dispenser, to **TLS) func() error {
	return block.Checked(d, func() error {
		if d.NextArg() {
			return d.Errf("tls: unexpected argument %q: its settings go in a block", d.Val())
		}
		t := new(TLS)
		*to = t
		return block.Parse(d, block.Options{
			"ca":                   block.Text(d, &t.CA),
			"cert":                 block.Text(d, &t.Cert),
			"key":                  block.Text(d, &t.Key),
			"server_name":          block.Text(d, &t.ServerName),
			"insecure_skip_verify": block.Flag(d, &t.InsecureSkipVerify),
		})
	}, func() error { return (*to).checkPair() })
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
