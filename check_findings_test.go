// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestCheckFindings(t *testing.T) {
	for _, row := range []struct {
		name                    string
		make                    func(c *standin.Cluster)
		site                    string // default: localSite
		code                    int
		check                   string
		severity                doctor.Severity
		subject, detail, remedy string
	}{
		{
			"filtered", func(c *standin.Cluster) {
				c.Consul.Set("vault")
				c.Consul.Header(func(h http.Header) { h.Set("X-Consul-Results-Filtered-By-ACLs", "true") })
			}, "", 2, "token", doctor.Wrong, "", "filtered", `service_prefix "vault"`,
		},
		{
			"denied", func(c *standin.Cluster) { c.Consul.Handle(refuseWith(403, "Permission denied")) },
			"", 2, "token", doctor.Wrong, "", "Permission denied", "node_prefix",
		},
		{
			"no leader", func(c *standin.Cluster) { c.Consul.Handle(refuseWith(500, "No cluster leader")) },
			"", 2, "consul", doctor.Wrong, "", "No cluster leader", "raft list-peers",
		},
		{"consul refuses", func(c *standin.Cluster) { c.Consul.Refuse() }, "", 2, "consul", doctor.Wrong, "", "connection refused", "start the Consul agent"},
		{
			"consul hangs", func(c *standin.Cluster) {
				c.Consul.Handle(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
			}, "", 2, "consul", doctor.Wrong, "", "no answer within 1.5s", "firewall",
		},
		{"no service", func(c *standin.Cluster) { c.Consul.Set("vault") }, "", 2, "service", doctor.Wrong, "vault", "no instance", "service_registration"},
		{
			"sealed standby", func(c *standin.Cluster) { c.Vaults[1].SetSealed(true) },
			"", 0, "role", doctor.Warning, "vault-1", "sealed (503)", "vault operator unseal -address=http://127.0.0.1:",
		},
		{
			"all sealed", func(c *standin.Cluster) {
				for _, v := range c.Vaults {
					v.SetSealed(true)
				}
			}, "", 2, "active", doctor.Wrong, "vault", "sealed", "unseal",
		},
		{
			"no standby", func(c *standin.Cluster) { c.Vaults[1].SetSealed(true); c.Vaults[2].SetHealth(501) },
			"", 0, "standby", doctor.Warning, "vault", "no node can take over", "unseal vault-1",
		},
		{"two actives", func(c *standin.Cluster) { c.Vaults[2].SetActive(true) }, "", 2, "active", doctor.Wrong, "vault", "vault-0, vault-2", "raft list-peers"},
		{"unreachable", func(c *standin.Cluster) { c.Vaults[1].Kill() }, "", 2, "reach", doctor.Wrong, "vault-1", "connection refused", "start Vault"},
		{
			"node hangs", func(c *standin.Cluster) { c.Vaults[1].Hang(true) },
			"", 2, "role", doctor.Wrong, "vault-1", "no answer in time", "log",
		},
		{
			"loopback api_addr", func(c *standin.Cluster) {
				c.Consul.Set("vault", standin.Active("vault-0", standin.Address("10.0.0.1"), standin.ServiceAddress("127.0.0.1"), portOf(c.Vaults[0])))
			}, "", 2, "redirect", doctor.Wrong, "vault-0", "the node is at 10.0.0.1", "api_addr",
		},
		{
			"bad address", func(c *standin.Cluster) {
				c.Consul.Set("vault", standin.Active("vault-0", standin.ServiceAddress("0.0.0.0"), portOf(c.Vaults[0])))
			}, "", 2, "redirect", doctor.Wrong, "vault-0", "0.0.0.0", "api_addr",
		},
		{
			"http after https", func(*standin.Cluster) {},
			strings.Replace(localSite, "http://127.0.0.1:18200", "https://vault.test:18200", 1),
			2, "scheme", doctor.Wrong, "vault", "site serves https", "scheme https",
		},
		{
			"https to http", func(*standin.Cluster) {}, strings.Replace(localSite, "scheme http", "scheme https", 1),
			2, "scheme", doctor.Wrong, "vault-0", "the node answers http", "scheme http",
		},
		{
			"probe off", func(*standin.Cluster) {}, strings.Replace(localSite, "scheme http", "scheme http\n\t\tprobe off", 1),
			0, "probe", doctor.Warning, "vault", "off", "remove",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := standIns(t)
			row.make(c)
			if row.site == "" {
				row.site = localSite
			}
			list, code := findingsOf(t, "--config", configFile(t, c.Consul.Addr(), row.site), "--timeout", "1500ms")
			wantFinding(t, list, row.check, row.severity, row.subject, row.detail, row.remedy)
			if code != row.code {
				t.Errorf("exit %d, want %d:\n%s", code, row.code, dump(list))
			}
		})
	}
}

// refuseWith makes a stand-in answer with an error.
func refuseWith(code int, text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, text, code)
		return true
	}
}

// portOf is that of a node.
func portOf(v *standin.Vault) standin.Opt {
	_, text, _ := net.SplitHostPort(v.Addr())
	n, _ := strconv.Atoi(text)
	return standin.Port(n)
}

// A node that is registered with the address of the redirector leads clients round in circles.
func TestCheckFindsTheRedirectorItself(t *testing.T) {
	c := standIns(t)
	_, p, _ := net.SplitHostPort(c.Vaults[0].Addr()) // as if the redirector listened there
	site := strings.ReplaceAll(localSite, "18200", p)
	list, code := findingsOf(t, "--config", configFile(t, c.Consul.Addr(), site))
	wantFinding(t, list, "redirect", doctor.Wrong, "vault-0", "leads back to the redirector itself", "api_addr")
	if code != 2 {
		t.Errorf("exit %d", code)
	}
	// The same by the name under which clients know the site.
	c.Consul.Set("vault", standin.Active("localhost", standin.Address("127.0.0.1"), standin.ServiceAddress("localhost"), portOf(c.Vaults[0])))
	list, _ = findingsOf(t, "--config", configFile(t, c.Consul.Addr(), "http://localhost:"+p+" {\n\tbind 127.0.0.9\n\tvault_redirect {consul} {\n\t\tscheme http\n\t}\n}"))
	wantFinding(t, list, "redirect", doctor.Wrong, "localhost", "the site localhost", "api_addr")
}
