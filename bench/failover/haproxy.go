// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// haproxies are the configurations, the one that most users have and a tuned one: what the backend says beside its check, and
// what each server says.
var haproxies = []struct{ name, note, key, backend, server string }{
	{"HAProxy", "as Vault's users configure it: `inter 1s fall 2`", "haproxy", "", "inter 1s fall 2"},
	{
		"HAProxy, tuned", "`inter 250ms fall 1 rise 1`, `redispatch`, `retry-on conn-failure`, `on-marked-down shutdown-sessions`", "haproxy-tuned",
		"  option redispatch\n  retry-on conn-failure\n", "inter 250ms fall 1 rise 1 on-marked-down shutdown-sessions",
	},
}

// startHAProxies starts an HAProxy for each configuration, with a health check of every node.
func (b *bench) startHAProxies(context.Context) error {
	for _, h := range haproxies {
		path, f := b.peer("haproxy", h.name, h.note)
		if f == nil {
			continue
		}
		bind, ssl := f.address(), ""
		if b.tls {
			pem, err := b.combined()
			if err != nil {
				return err
			}
			bind, ssl = bind+" ssl crt "+pem, " ssl ca-file "+b.cluster.VaultCA
		}
		var config strings.Builder
		fmt.Fprintf(&config, `global
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend clients
  bind %s
  default_backend vault
  http-after-response set-header %s %%s
backend vault
  option httpchk GET /v1/sys/health
  http-check expect status 200
%s  default-server check %s%s
`, bind, upstreamHeader, h.backend, h.server, ssl)
		for _, v := range b.cluster.Vaults {
			fmt.Fprintf(&config, "  server %s %s\n", v.Addr, v.Addr)
		}
		file := filepath.Join(b.dir, h.key+".cfg")
		if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
			return err
		}
		if _, err := b.start(h.key, path, "-db", "-f", file); err != nil {
			return err
		}
	}
	return nil
}

// combined returns a file with a certificate of the fronts' address and its key, as HAProxy wants them.
func (b *bench) combined() (string, error) {
	cert, key, err := b.certificate()
	if err != nil {
		return "", err
	}
	var text []byte
	for _, name := range []string{cert, key} {
		part, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		text = append(text, part...)
	}
	file := cert + ".both.pem"
	return file, os.WriteFile(file, text, 0o600)
}
