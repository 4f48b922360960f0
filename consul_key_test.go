// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"cmp"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

func TestConsulKey(t *testing.T) {
	ca, _ := writePair(t, t.TempDir(), "ca")
	key := func(c Consul, e env) string {
		t.Helper()
		s, err := c.resolve(caddy.NewEmptyReplacer(), e.get)
		if err != nil {
			t.Fatal(err)
		}
		c.resolved = s
		return c.Key()
	}
	base := key(Consul{Token: new("hunter2"), TLS: &TLS{CA: ca}}, env{"CONSUL_HTTP_AUTH": "user:hunter4"})
	for _, tc := range []struct {
		name   string
		change func(*Consul)
		env    env
		same   bool
	}{
		{name: "nothing", change: func(*Consul) {}, same: true},
		{name: "active_by", change: func(c *Consul) { c.ActiveBy = "check" }, same: true},
		{name: "tag", change: func(c *Consul) { c.Tag = "x" }, same: true},
		{name: "check_id", change: func(c *Consul) { c.CheckID = "x" }, same: true},
		{name: "a default by name", change: func(c *Consul) { c.Address, c.Service, c.Consistency = "127.0.0.1:8500", "vault", "default" }, same: true},
		{name: "a default by environment", change: func(*Consul) {}, env: env{"CONSUL_HTTP_ADDR": "127.0.0.1:8500"}, same: true},
		{name: "address", change: func(c *Consul) { c.Address = "127.0.0.2:8500" }},
		{name: "service", change: func(c *Consul) { c.Service = "x" }},
		{name: "token", change: func(c *Consul) { c.Token = new("hunter3") }},
		{name: "datacenter", change: func(c *Consul) { c.Datacenter = "x" }},
		{name: "namespace", change: func(c *Consul) { c.Namespace = "x" }},
		{name: "partition", change: func(c *Consul) { c.Partition = "x" }},
		{name: "peer", change: func(c *Consul) { c.Peer = "x" }},
		{name: "consistency", change: func(c *Consul) { c.Consistency = "stale" }},
		{name: "poll_interval", change: func(c *Consul) { c.PollInterval = caddy.Duration(time.Second) }},
		{name: "tls", change: func(c *Consul) { c.TLS = nil }},
		{name: "tls server_name", change: func(c *Consul) { c.TLS.ServerName = "x" }},
		{name: "tls insecure_skip_verify", change: func(c *Consul) { c.TLS.InsecureSkipVerify = true }},
		{name: "user", change: func(*Consul) {}, env: env{"CONSUL_HTTP_AUTH": "user:other"}},
		{name: "content of the CA file", change: func(*Consul) { writePair(t, filepath.Dir(ca), "ca") }}, // last: it changes the file
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Consul{Token: new("hunter2"), TLS: &TLS{CA: ca}}
			tc.change(&c)
			e := env{"CONSUL_HTTP_AUTH": "user:hunter4"}
			for name, value := range tc.env {
				e[name] = value
			}
			got := key(c, e)
			if (got == base) != tc.same {
				t.Errorf("keys %s and %s, want the same: %v", base, got, tc.same)
			}
			if strings.Contains(got, "hunter") || !strings.HasPrefix(got, "consul:") {
				t.Errorf("key %q", got)
			}
		})
	}
}

// FuzzJSON loads any JSON as the handler's config, up to where files or the network would be needed.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{}`), "", "")
	f.Add([]byte(`{"discovery":{"address":"http://u:p@[::1]:8500/x?y","token":"hunter2"},"scheme":"http","port":-1,"max_stale":"1d"}`), "https://a:1", "1")
	f.Add([]byte(`{"discovery":{"address":"unix:///x","active_by":"tag","poll_interval":"10m","service":"{x}"},"redirect_to":"{node}.{meta.a}.b"}`), "a:1", "x")
	f.Add([]byte(`{"discovery":{"address":"[fe80::1%25lo]:8500"},"redirect_to":"tagged:","port":1e9}`), "unix://", "")
	f.Add([]byte(`{"discovery":null,"redirect_to":"{node","max_stale":null}`), "a:0", "true")
	f.Fuzz(func(t *testing.T, config []byte, addr, ssl string) {
		h, c := new(Handler), new(Consul)
		if caddy.StrictUnmarshalJSON(config, h) != nil {
			return
		}
		if _, err := engine.NewAddressing(h.Scheme, h.RedirectTo, h.Port); err == nil {
			n := nodeAt("127.10.0.1", 8200)
			n.Address, n.Datacenter = "127.10.0.2", "d"
			n.Meta, n.Tagged = map[string]string{"a": "b"}, map[string]discovery.TaggedAddress{"wan": {Host: "w"}}
			known, end := handlerOf(t, h.Scheme, h.RedirectTo, n)
			defer end()
			if s := known.redirector.View.State(); s.Active() {
				checkURL(t, s.Target.URL, cmp.Or(h.Scheme, "https"), s.Target)
			}
		}
		if len(h.DiscoveryRaw) > 0 && caddy.StrictUnmarshalJSON(h.DiscoveryRaw, c) != nil {
			return
		}
		c.TokenFile, c.TLS = "", nil
		s, err := c.resolve(caddy.NewEmptyReplacer(), env{"CONSUL_HTTP_ADDR": addr, "CONSUL_HTTP_SSL": ssl}.get)
		if err != nil {
			return
		}
		c.resolved = s
		if s.endpoint.Host == "" || strings.Contains(s.endpoint.Host, "@") || s.Service == "" || s.Tag == "" || c.MaxWait() < time.Second ||
			c.MaxWait() > 10*time.Minute || len(c.Key()) != len("consul:")+64 {
			t.Fatalf("settings %+v", s)
		}
	})
}
