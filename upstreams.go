// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the source of upstreams for Caddy's reverse proxy, for clients that cannot follow a redirect.

package vaultredirect

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

func init() { caddy.RegisterModule(Upstreams{}) }

// Upstreams gives the active node of a Vault cluster to Caddy's reverse proxy, as its only upstream. It shares what it
// knows with the vault_redirect handlers that have the same discovery.
//
// It is for clients that cannot follow a redirect. Those that are proxied show up in Vault with the address of the proxy,
// unless Vault is told to trust its X-Forwarded-For, and the proxy carries their secrets: redirect whoever can follow.
type Upstreams struct {
	Active
}

// CaddyModule returns the Caddy module information.
func (Upstreams) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.upstreams.vault_active",
		New: func() caddy.Module { return new(Upstreams) },
	}
}

// Provision sets up the module. It does not use the network.
func (u *Upstreams) Provision(ctx caddy.Context) error { return u.Active.provision(ctx) }

// Validate checks what can be wrong by itself.
func (u *Upstreams) Validate() error { return u.Active.validate() }

// Cleanup releases what Provision took.
func (u *Upstreams) Cleanup() error { return u.Active.cleanup() }

// GetUpstreams returns the active node. It is an error if there is none, or if proxying to it leads back to this process.
// A node that is registered with the name under which clients know this site is no such error: the name may well mean
// another machine here.
func (u *Upstreams) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	s := u.await(r)
	switch {
	case !s.Active():
		u.count(r, engine.Unavailable)
		return nil, errors.New(noActiveNode(s.ReasonAt(time.Now())))
	case elsewhere(s):
		u.count(r, engine.Unavailable)
		return nil, errors.New(noActiveNode(discovery.ReasonBadAddress))
	case isSocket(s.Target.Addr, r.Context()), mark(r):
		u.count(r, engine.Loop)
		return nil, errors.New(loopText(s.Target.URL))
	}
	u.count(r, engine.Proxied)
	return []*reverseproxy.Upstream{{Dial: s.Target.Authority}}, nil
}

// cameVar is the variable of a request with when it came here first.
const cameVar = "vault_redirect.came"

// await returns the state for a request. The reverse proxy comes for each of its attempts: they have one deadline.
func (u *Upstreams) await(r *http.Request) *engine.State {
	came, again := caddyhttp.GetVar(r.Context(), cameVar).(time.Time)
	if !again {
		came = time.Now()
		caddyhttp.SetVar(r.Context(), cameVar, came)
	}
	return u.view.Await(r.Context(), u.queue, engine.Waiter{Client: clientAddress(r), Came: came})
}

// count counts a request. The reverse proxy comes for each of its attempts: it counts once for each outcome.
func (u *Upstreams) count(r *http.Request, a engine.Answer) {
	counted := "vault_redirect_" + a.String()
	if caddyhttp.GetVar(r.Context(), counted) != nil {
		return
	}
	caddyhttp.SetVar(r.Context(), counted, true)
	u.view.Stats().Answered(a)
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	dynamic vault_active [<consul-address>] {
//	    <the options of vault_redirect, without health_path, log_health, proxy, proxy_tls and retry_after>
//	}
func (u *Upstreams) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	return u.Active.parse(d, nil)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Upstreams)(nil)
	_ caddy.Validator             = (*Upstreams)(nil)
	_ caddy.CleanerUpper          = (*Upstreams)(nil)
	_ caddyfile.Unmarshaler       = (*Upstreams)(nil)
	_ reverseproxy.UpstreamSource = (*Upstreams)(nil)
)
