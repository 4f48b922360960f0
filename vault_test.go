// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestVaultURLs(t *testing.T) {
	t.Setenv("VAULT_NODE", "https://vault-9:8200")
	for _, row := range []struct {
		urls  []string
		want  string // endpoint
		wrong string
	}{
		{[]string{"https://vault-0:8200", "http://127.10.0.1"}, "https://vault-0:8200,http://127.10.0.1:80", ""},
		{[]string{"https://vault.example.com/", "https://[::1]:8200"}, "https://vault.example.com:443,https://[::1]:8200", ""},
		{[]string{"{env.VAULT_NODE}"}, "https://vault-9:8200", ""},
		{nil, "", "missing"},
		{[]string{"vault-0:8200"}, "", "https://vault-0.example.com:8200"},
		{[]string{"unix:///x"}, "", "not the URL of a node"},
		{[]string{"https://vault-0:0"}, "", "port"},
		{[]string{"https://user:pw@vault-0"}, "", "nothing else"},
		{[]string{"https://vault-0/v1"}, "", "nothing else"},
		{[]string{"https://vault-0", "https://vault-0:443"}, "", "twice"},
		{[]string{"https://vault 0"}, "", "not the URL"},
		{[]string{"https://0.0.0.0:8200"}, "", "not that of one machine"},
		{[]string{"{env.NO_SUCH_NODE}"}, "", "NO_SUCH_NODE"},
	} {
		v := &Vault{URLs: row.urls}
		err := v.Provision(caddy.Context{})
		if row.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), row.wrong) || strings.Contains(err.Error(), "pw") {
				t.Errorf("%v: %v, want %q", row.urls, err, row.wrong)
			}
			continue
		}
		if err != nil || v.Endpoint() != row.want {
			t.Errorf("%v: endpoint %s, %v", row.urls, v.Endpoint(), err)
		}
	}
}

func TestVaultDiscovery(t *testing.T) {
	t.Parallel()
	c := standin.RunCluster(t, 3)
	c.Consul.Close()
	urls := fmt.Sprintf("%q, %q, %q", c.Vaults[0].URL(), c.Vaults[1].URL(), c.Vaults[2].URL())
	h := provisionJSON(t, `{"hold": 0, "discovery": {"source": "vault", "urls": [`+urls+`]}, "probe": {"interval": "50ms", "timeout": "1s"}}`)
	untilTarget(t, h, c.Vaults[0])
	for range 2 {
		untilTarget(t, h, c.StepDown())
	}
	killed, next := c.Kill()
	untilTarget(t, h, next)
	next.SetSealed(true)
	untilTarget(t, h, nil)
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	killed.SetActive(true)
	untilTarget(t, h, killed)
	for _, v := range c.Vaults {
		v.Kill()
	}
	until(t, h, "all refuse", func(s *engine.State) bool { // one may have been asked just before
		return !s.Active() && s.ReasonAt(time.Now()) == discovery.ReasonUnhealthy && strings.Contains(s.Detail, "refused")
	})
	for _, v := range c.Vaults {
		if err := v.Start(); err != nil {
			t.Fatal(err)
		}
	}
	untilTarget(t, h, killed)
}
