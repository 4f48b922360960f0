// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the discovery without Consul.

package vaultredirect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestVaultURLs(t *testing.T) {
	t.Setenv("VAULT_NODE", "https://vault-9:8200")
	for _, row := range []struct {
		urls  []string
		want  string // endpoint
		wrong string
	}{
		{[]string{"https://vault-0:8200", "http://10.0.0.1"}, "https://vault-0:8200,http://10.0.0.1:80", ""},
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

func TestVaultNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &Vault{URLs: []string{"https://one:8200", "https://many:8200", "https://both:8200", "https://none:8200", "https://10.0.0.9:8200"}}
		if err := v.Provision(caddy.Context{}); err != nil {
			t.Fatal(err)
		}
		names := map[string][]netip.Addr{
			"one":  {netip.MustParseAddr("10.0.0.1")},
			"many": {netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("::ffff:10.0.0.2")},
			"both": {netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("2001:db8::4")},
		}
		s := &vaultSource{known: make([][]Node, len(v.nodes)), nodes: v.nodes, lookup: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			if a, ok := names[host]; ok {
				return a, nil
			}
			return nil, errors.New("no such host")
		}}
		a, err := s.Query(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, n := range a.Nodes {
			to, err := addressing{redirectTo: toAuto}.target(&n)
			if err != nil {
				t.Fatal(err)
			}
			got += fmt.Sprintf("%s %s\n", to.url, n.ServerName)
		}
		want := "https://one:8200 \nhttps://10.0.0.2:8200 many\nhttps://10.0.0.3:8200 many\nhttps://both:8200 \nhttps://none:8200 \nhttps://10.0.0.9:8200 \n"
		if got != want {
			t.Errorf("nodes\n%swant\n%s", got, want)
		}
		// An error is no answer: what a name stood for still holds. And one that takes long holds up no other.
		names["one"] = nil
		delete(names, "many")
		lookup := s.lookup
		s.lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error) {
			if host == "both" || host == "none" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return lookup(ctx, network, host)
		}
		ctx5, cancel5 := context.WithTimeout(t.Context(), querySlack)
		defer cancel5()
		if again, err := s.Query(ctx5, 0, 0); err != nil || !reflect.DeepEqual(again.Nodes, a.Nodes) {
			t.Errorf("%v: nodes %v, want %v", err, again.Nodes, a.Nodes)
		}
		s.lookup = lookup
		// The next answer is there when the wait is over, and earlier when nobody waits any more.
		began := time.Now()
		if _, err := s.Query(t.Context(), a.Index, 10*time.Second); err != nil || time.Since(began) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Query(ctx, a.Index, 10*time.Second); err == nil {
			t.Error("no error although nobody waits")
		}
	})
}

func TestVaultDiscovery(t *testing.T) {
	t.Parallel()
	c, err := standin.NewCluster(3, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.Consul.Close()
	urls := fmt.Sprintf("%q, %q, %q", c.Vaults[0].URL(), c.Vaults[1].URL(), c.Vaults[2].URL())
	h := provisionJSON(t, `{"hold": 0, "discovery": {"source": "vault", "urls": [`+urls+`], "interval": "50ms", "timeout": "200ms"}}`)
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
	untilTarget(t, h, nil)
	if s := h.view.current.Load(); s.reason != ReasonUnhealthy || !strings.Contains(s.detail, "refused") {
		t.Errorf("reason %s (%s)", s.reason, s.detail)
	}
	for _, v := range c.Vaults {
		if err := v.Start(); err != nil {
			t.Fatal(err)
		}
	}
	untilTarget(t, h, killed)
}
