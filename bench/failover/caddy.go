// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

// variant of the plugin, by what its block says besides discovery and scheme.
type variant struct {
	name, note, block string
	proxies           bool
}

// variants returns those of this cluster.
func (b *bench) variants() []variant {
	proxy := variant{"this plugin, `proxy all`", "`vault_redirect { proxy all }`: it proxies instead of redirecting", "proxy all", true}
	if b.tls {
		proxy.block += "\nproxy_tls {\nca " + b.cluster.VaultCA + "\n}"
	}
	if !b.withConsul() {
		return []variant{{"this plugin, `vault <url>...`", "the nodes are named, no other option is set", "", false}, proxy}
	}
	return []variant{{"this plugin, `vault_redirect`", "the default: no option is set", "", false}, proxy}
}

// discovery returns how the plugin finds the nodes, and to which scheme it redirects.
func (b *bench) discovery() string {
	if b.withConsul() {
		return "consul " + b.consul() + "\nscheme " + b.scheme()
	}
	line := "vault"
	for _, v := range b.cluster.Vaults {
		line += " " + v.URL
	}
	return line
}

// startPlugins starts a Caddy for each variant.
func (b *bench) startPlugins(ctx context.Context) error {
	for _, v := range b.variants() {
		f := b.newFront(v.name, v.note)
		if f == nil {
			continue
		}
		f.proxies = v.proxies
		if v.proxies || b.redirects == 0 {
			f.look = lookHealth(f)
		} else {
			b.lookAtRedirects(f)
		}
		if err := b.startCaddy(ctx, f, "vault_redirect {\n"+b.discovery()+"\n"+v.block+"\n}"); err != nil {
			return err
		}
	}
	return nil
}

// reverseProxies are the configurations of Caddy's own proxy: one that its manual leads to, and a tuned one that loses as little as it
// can. Without request_buffers, a write that is sent again would lack its body, and hang.
var reverseProxies = []struct{ name, note, block string }{
	{
		"Caddy's `reverse_proxy`", "`lb_policy first`, `health_uri /v1/sys/health`, `health_status 200`, `health_interval 1s`, `lb_try_duration 15s`",
		"health_interval 1s\nlb_try_duration 15s",
	},
	{
		"Caddy's `reverse_proxy`, tuned",
		"`health_interval 250ms`, `lb_try_duration 50s`, `lb_try_interval 50ms`, `fail_duration 2s`; all is retried, also writes, 500 and 503",
		`health_interval 250ms
lb_try_duration 50s
lb_try_interval 50ms
fail_duration 2s
request_buffers 1MiB
lb_retry_match {
	method GET LIST PUT POST DELETE PATCH
}
lb_retry_match {
	expression "{rp.status_code} in [500, 503]"
}`,
	},
}

// startReverseProxies starts a Caddy for each configuration.
func (b *bench) startReverseProxies(ctx context.Context) error {
	for _, p := range reverseProxies {
		f := b.newFront(p.name, p.note)
		if f == nil {
			continue
		}
		b.lookThrough(f)
		var upstreams, trust string
		for _, v := range b.cluster.Vaults {
			upstreams += " " + v.URL
		}
		if b.tls {
			trust = "transport http {\ntls_trust_pool file " + b.cluster.VaultCA + "\n}\n"
		}
		site := fmt.Sprintf("reverse_proxy%s {\nlb_policy first\nhealth_uri /v1/sys/health\nhealth_status 200\n%s\n%sheader_down %s {http.reverse_proxy.upstream.hostport}\n}",
			upstreams, p.block, trust, upstreamHeader)
		if err := b.startCaddy(ctx, f, site); err != nil {
			return err
		}
	}
	return nil
}

// startCaddy starts a Caddy, which is this program, with one site.
func (b *bench) startCaddy(ctx context.Context, f *front, site string) error {
	var file strings.Builder
	fmt.Fprintf(&file, "{\npersist_config off\nauto_https disable_redirects\ndefault_bind {ip}\n}\n%s {\n", f.url)
	if b.tls {
		cert, key, err := b.certificate()
		if err != nil {
			return err
		}
		fmt.Fprintf(&file, "tls %s %s\n", cert, key)
	}
	file.WriteString(site + "\n}\n")
	caddy, err := harness.Start(ctx, harness.Options{IP: b.cluster.IP(cluster.FirstFreeHost), Caddyfile: file.String()})
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	b.closers = append(b.closers, func() error { return errors.Join(caddy.Ended(), caddy.Close()) })
	return nil
}
