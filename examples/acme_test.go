// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	parser "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
)

func init() { caddy.RegisterModule(rfc2136{}) }

// rfc2136 has the name and the syntax of the plugin caddy-dns/rfc2136, and does nothing.
type rfc2136 struct {
	certmagic.DNSProvider `json:"-"`

	Server  string `json:"server,omitempty"`
	KeyName string `json:"key_name,omitempty"`
	KeyAlg  string `json:"key_alg,omitempty"`
	Key     string `json:"key,omitempty"`
}

func (rfc2136) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dns.providers.rfc2136", New: func() caddy.Module { return new(rfc2136) }}
}

func (r *rfc2136) UnmarshalCaddyfile(d *parser.Dispenser) error {
	d.Next()
	fields := map[string]*string{"server": &r.Server, "key_name": &r.KeyName, "key_alg": &r.KeyAlg, "key": &r.Key}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		field := fields[d.Val()]
		if field == nil {
			return d.Errf("unrecognized subdirective '%s'", d.Val())
		}
		if !d.AllArgs(field) {
			return d.ArgErr()
		}
	}
	for name, field := range fields {
		if *field == "" {
			return d.Errf("rfc2136: missing %s", name)
		}
	}
	return nil
}

func acmeDNS(t *testing.T, text string) {
	f := newFiles(t)
	t.Setenv("VAULT_REDIRECT_ACME_ROOT", f.cert)
	t.Setenv("VAULT_REDIRECT_DNS_KEY", "c2VjcmV0")
	caddyfile(t, text)
	filtered(t, text)
	caddyfile(t, uncommented(t, text, "\t# storage "))
	caddyfile(t, uncommented(t, text, "\t\t# resolvers "))
	for _, want := range []string{"--with github.com/caddy-dns/rfc2136\n", "go tool -modfile=tools/xcaddy/go.mod xcaddy build ", "@v0.1.0 --with github.com/caddy-dns/rfc2136\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say how to build its Caddy: %q is missing", want)
		}
	}
}
