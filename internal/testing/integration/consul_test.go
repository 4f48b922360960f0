// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// register registers a Vault as its own registration would look.
func register(t *testing.T, c *cluster.Cluster, address string) {
	t.Helper()
	err := c.Consuls[0].API().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "vault:" + address + ":8200", Name: "vault", Address: address, Port: 8200, Tags: []string{"active", "initialized"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConsulWithAccessControl(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoVault: true, ACL: true})
	register(t, c, "127.10.0.1")
	const target = "https://127.10.0.1:8200"

	policy, err := os.ReadFile("../../../examples/consul-policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	token := func(rules string) string {
		t.Helper()
		secret, err := c.Token(timeout(t), rules)
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	good, next, half := token(string(policy)), token(string(policy)), token(`service "vault" { policy = "read" }`)
	file := filepath.Join(t.TempDir(), "token")
	write := func(secret string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(good)

	caddy := runCaddy(t, "", `
http://{ip}:8001 {
	vault_redirect {
		consul `+c.Consuls[0].HTTPAddr+` {
			token {env.GOOD_TOKEN}
		}
	}
}
http://{ip}:8002 {
	vault_redirect {
		consul `+c.Consuls[0].HTTPAddr+` {
			token {env.HALF_TOKEN}
		}
		hold 0
	}
}
http://{ip}:8003 {
	vault_redirect {
		consul `+c.Consuls[0].HTTPAddr+` {
			token 00000000-1111-2222-3333-444444444444
		}
		hold 0
	}
}
http://{ip}:8004 {
	vault_redirect {
		consul `+c.Consuls[0].HTTPAddr+` {
			token_file `+file+`
			poll_interval 1s
		}
		max_stale 0
	}
}`, "GOOD_TOKEN="+good, "HALF_TOKEN="+half)
	site := func(port string) string { return "http://" + caddy.IP + ":" + port }
	caddy.awaitTarget(site("8001"), target)
	caddy.awaitReason(site("8002"), "acl_filtered")
	caddy.awaitReason(site("8003"), "acl_denied")
	caddy.awaitTarget(site("8004"), target)
	for _, port := range []string{"8002", "8003"} {
		if code, location, body := get(t, site(port)+"/v1/sys/health"); code != 503 || location != "" {
			t.Errorf("port %s: status %d, Location %q: %s", port, code, location, body)
		}
	}

	// A token that is replaced in its file is used without a restart.
	if err := c.DeleteToken(timeout(t), good); err != nil {
		t.Fatal(err)
	}
	caddy.await("the deleted token is refused", func() bool { return !readHealth(t, site("8004")).Healthy })
	write(next)
	caddy.awaitTarget(site("8004"), target)
}

func TestConsulByTLSAndSocket(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoVault: true, ConsulTLS: true, ConsulSocket: true})
	register(t, c, "127.10.0.1")
	consul := c.Consuls[0]
	const target = "https://127.10.0.1:8200"

	caddy := runCaddy(t, "", `
http://{ip}:8001 {
	vault_redirect {
		consul https://`+consul.HTTPSAddr+` {
			tls {
				ca `+c.ConsulCA+`
				cert `+c.ConsulCert+`
				key `+c.ConsulKey+`
			}
		}
	}
}
http://{ip}:8002 {
	vault_redirect unix://`+consul.Socket+`
}
http://{ip}:8003 {
	vault_redirect {
		consul https://`+consul.HTTPSAddr+` {
			tls {
				ca `+c.ConsulCA+`
			}
		}
	}
}
http://{ip}:8004 {
	vault_redirect {
		consul https://`+consul.HTTPSAddr+` {
			tls {
				cert `+c.ConsulCert+`
				key `+c.ConsulKey+`
			}
		}
	}
}`)
	caddy.awaitTarget("http://"+caddy.IP+":8001", target)
	caddy.awaitTarget("http://"+caddy.IP+":8002", target)
	caddy.awaitReason("http://"+caddy.IP+":8003", "consul_unreachable") // no client certificate
	caddy.awaitReason("http://"+caddy.IP+":8004", "consul_unreachable") // Consul's CA is not the system's

	// One word is enough where the environment says the rest.
	byEnv := runCaddy(t, "", "http://{ip}:8001 {\n\tvault_redirect\n}",
		"CONSUL_HTTP_ADDR="+consul.HTTPSAddr, "CONSUL_HTTP_SSL=true",
		"CONSUL_CACERT="+c.ConsulCA, "CONSUL_CLIENT_CERT="+c.ConsulCert, "CONSUL_CLIENT_KEY="+c.ConsulKey)
	byEnv.awaitTarget("http://"+byEnv.IP+":8001", target)
}

// A blocking query is answered by another part of Consul than one that does not wait, with other headers. What either
// says counts at once.
func TestConsulAnswersCountAtOnce(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoVault: true})
	caddy := runCaddy(t, "", "http://{ip}:8001 {\n\tvault_redirect "+c.Consuls[0].HTTPAddr+"\n}")
	site := "http://" + caddy.IP + ":8001"
	for range 2 {
		caddy.awaitReason(site, "no_service")
		register(t, c, "127.10.0.1")
		caddy.awaitTarget(site, "https://127.10.0.1:8200")
		if err := c.Consuls[0].API().Agent().ServiceDeregister("vault:127.10.0.1:8200"); err != nil {
			t.Fatal(err)
		}
	}
	caddy.awaitReason(site, "no_service")
}
