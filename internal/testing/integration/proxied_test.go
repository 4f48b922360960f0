// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// A client that follows nothing reads and writes over TLS with one private authority, right after each kind of failover.
func TestProxiedThroughFailovers(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{TLS: true})
	mountKV(t, c)
	caddy := runCaddy(t, "debug", `
http://{ip}:8080 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		probe {
			tls {
				ca `+c.VaultCA+`
			}
		}
		proxy path /v1/secret/*
	}
}`)
	site := "http://" + caddy.IP + ":8080"
	caddy.await("healthy", func() bool { return readHealth(t, site).Healthy })
	s := newService(t, site, c.RootToken)
	s.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	failovers(t, c, site, func() {
		s.ask("GET", "secret/data/x", "", nil)
	}, func(kind string) {
		s.ask("POST", "secret/data/x", "", map[string]any{"data": map[string]any{"by": kind}})
		if got := s.ask("GET", "secret/data/x", "", nil).Data["data"].(map[string]any)["by"]; got != kind {
			t.Errorf("%s: %v is read", kind, got)
		}
	})
	if code, location, _ := get(t, site+"/v1/sys/seal-status"); code != http.StatusTemporaryRedirect || !strings.HasPrefix(location, "https://") {
		t.Errorf("what is not proxied: status %d, Location %s", code, location)
	}
	if strings.Contains(caddy.Log(), c.RootToken) {
		t.Error("the token is logged at DEBUG")
	}
}

// Vault believes the X-Forwarded-For of a proxied request if it is told to, and goes on seeing clients that are redirected, and
// the probes, which have none.
func TestProxiedClientAddress(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{Vaults: 1, Listener: map[string]any{
		"x_forwarded_for_authorized_addrs": "127.0.0.1", "x_forwarded_for_reject_not_present": false,
	}})
	caddy := runCaddy(t, "", `
http://{ip}:8080 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		scheme http
		proxy path *
	}
}
http://{ip}:8081 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		scheme http
	}
}`)
	for _, port := range []string{":8080", ":8081"} {
		site := "http://" + caddy.IP + port
		caddy.await("healthy", func() bool { return readHealth(t, site).Healthy })
		t.Run(port, func(t *testing.T) { auditClientAddress(t, c, site, "audit"+port) })
		if err := c.Do(timeout(t), nil, "DELETE", "/v1/sys/audit/file", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}
