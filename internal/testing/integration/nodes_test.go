// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// byVaults is a site that asks the nodes of a cluster themselves.
func byVaults(c *cluster.Cluster, options string) string {
	urls := ""
	for _, v := range c.Vaults {
		urls += " " + v.URL
	}
	return "http://{ip}:8080 {\n\tvault_redirect {\n\t\tvault" + urls + "\n\t\tprobe 250ms\n" + options + "\n\t}\n}\n"
}

func TestDiscoveryWithoutConsul(t *testing.T) {
	t.Parallel()
	discoveryWithoutConsul(t, cluster.Run(t, cluster.Options{NoConsul: true}))
}

// TestOpenBao is the same with OpenBao, where there is one, and with OpenBao's own client.
func TestOpenBao(t *testing.T) {
	t.Parallel()
	cluster.Needed(t)
	bao, err := cluster.Bao()
	if err != nil {
		t.Skip(err)
	}
	c := cluster.Run(t, cluster.Options{NoConsul: true, OpenBao: true})
	mountKV(t, c)
	caddy := runCaddy(t, "", byVaults(c, "\t\tscheme http"))
	site := "http://" + caddy.IP + ":8080"
	client := vaultCLI{t, bao, []string{"BAO_ADDR=" + site, "BAO_TOKEN=" + c.RootToken, "VAULT_ADDR=" + site, "VAULT_TOKEN=" + c.RootToken, "HOME=" + t.TempDir()}}
	client.run("auth", "enable", "userpass")
	big := largeFile(t)
	for _, fault := range []func(*cluster.Vault) error{
		nil,
		func(v *cluster.Vault) error { return v.StepDown(timeout(t)) },
		(*cluster.Vault).Kill,
		func(v *cluster.Vault) error { return v.Stop(timeout(t)) },
	} {
		old, err := c.WaitActive(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if fault != nil {
			if err := fault(old); err != nil {
				t.Fatal(err)
			}
			next, err := c.WaitActive(timeout(t), old)
			if err != nil {
				t.Fatal(err)
			}
			caddy.awaitTarget(site, next.URL)
		}
		client.everything(big)
		if !old.Running() {
			if err := old.Restart(timeout(t)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WaitHealthy(timeout(t)); err != nil {
			t.Fatal(err)
		}
	}
	readsOnOpenBao(t, c)
	discoveryWithoutConsul(t, c)
}

// readsOnOpenBao has the standbys of OpenBao answer reads, which they do themselves.
func readsOnOpenBao(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	caddy := runCaddy(t, "", byVaults(c, "\t\tscheme http\n\t\tstandby method GET LIST"))
	site := "http://" + caddy.IP + ":8080"
	active, err := c.WaitActive(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	caddy.await("two nodes get reads", func() bool { reading, _ := nodesBy(caddy, ""); return reading == 2 })
	ask := func(method, url, token string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", token)
		req.Header.Set("X-Vault-No-Request-Forwarding", "true")
		resp, err := client.Do(req) // follows nothing
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	standbys := map[string]bool{}
	for i := range 20 {
		standbys[ask("GET", site+"/v1/secret/data/x", fmt.Sprint("token-", i)).Header.Get("Location")] = true
	}
	if len(standbys) != 2 || standbys[active.URL+"/v1/secret/data/x"] {
		t.Errorf("reads are redirected to %v", standbys)
	}
	for url := range standbys {
		if resp := ask("GET", url, c.RootToken); resp.StatusCode != http.StatusOK {
			t.Errorf("%s answers %d by itself", url, resp.StatusCode)
		}
	}
	for _, line := range []string{"POST /v1/secret/data/x", "GET /v1/sys/mounts"} {
		method, path, _ := strings.Cut(line, " ")
		if got := ask(method, site+path, c.RootToken).Header.Get("Location"); got != active.URL+path {
			t.Errorf("%s is redirected to %s", line, got)
		}
	}
}

// discoveryWithoutConsul takes a cluster through its failovers.
func discoveryWithoutConsul(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	caddy := runCaddy(t, "", byVaults(c, "\t\thold 0")+strings.ReplaceAll(byVaults(c, "\t\tredirect_to leader"), ":8080", ":8081"))
	site, byLeader := "http://"+caddy.IP+":8080", "http://"+caddy.IP+":8081"
	active := func(except ...*cluster.Vault) *cluster.Vault {
		t.Helper()
		v, err := c.WaitActive(timeout(t), except...)
		if err != nil {
			t.Fatal(err)
		}
		caddy.awaitTarget(site, v.URL)
		caddy.awaitTarget(byLeader, v.URL)
		return v
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v := active()
	do(v.StepDown(timeout(t)))
	active(v)
	do(c.WaitHealthy(timeout(t)))
	v = active()
	do(v.Kill())
	active(v)
	do(v.Restart(timeout(t)))
	do(c.WaitHealthy(timeout(t)))
	v = active()
	do(v.Seal(timeout(t)))
	active(v)
	do(v.Unseal(timeout(t)))
	do(c.WaitHealthy(timeout(t)))

	for _, v := range c.Vaults {
		do(v.Kill())
	}
	caddy.await("all nodes are down", func() bool { return !readHealth(t, site).Healthy })
	if h := readHealth(t, site); h.Reason != "unhealthy" || h.Detail == "" {
		t.Errorf("health %+v", h)
	}
	for _, v := range c.Vaults {
		do(v.Restart(timeout(t)))
	}
	active()
}

// Two nodes are no quorum once one is gone: there is no active node until it is back.
func TestDiscoveryOfTwoNodes(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoConsul: true, Vaults: 2})
	caddy := runCaddy(t, "", byVaults(c, "\t\thold 0"))
	site := "http://" + caddy.IP + ":8080"
	for _, end := range []func(*cluster.Vault) error{
		func(v *cluster.Vault) error { return v.Stop(timeout(t)) },
		(*cluster.Vault).Kill,
	} {
		v, err := c.WaitActive(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		caddy.awaitTarget(site, v.URL)
		if err := end(v); err != nil {
			t.Fatal(err)
		}
		caddy.await("the node is gone", func() bool {
			code, location, _ := get(t, site+"/v1/sys/health")
			return code == http.StatusServiceUnavailable || location != v.URL+"/v1/sys/health"
		})
		if err := v.Restart(timeout(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitHealthy(timeout(t)); err != nil {
			t.Fatal(err)
		}
	}
	v, err := c.WaitActive(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	caddy.awaitTarget(site, v.URL)
}
