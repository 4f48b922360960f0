// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// registerWithAgent registers the i-th Vault with its agent, as changed each time: the first one is active.
func registerWithAgent(t *testing.T, c *cluster.Cluster, i int) {
	t.Helper()
	address := []string{"127.10.0.1", "127.10.0.2"}[i]
	err := c.Agents[i].API().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: address, Name: "vault", Address: address, Port: 8200, Tags: []string{[]string{"active", "standby"}[i]},
		Meta: map[string]string{"registered": time.Now().Format(time.RFC3339Nano)}, // a change, each time
	})
	if err != nil {
		t.Fatal(err)
	}
}

// One Consul server, which keeps its state in memory and is asked, and two agents, each with a Vault that is registered
// with it by hand.
func TestFaultsOfOneConsul(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoVault: true, AgentPerNode: true, Vaults: 2})
	f := runFaults(t, c)
	consul := c.Consuls[0]
	const url, other = "http://127.10.0.1:8200", "http://127.10.0.2:8200"
	registerWithAgent(t, c, 0)
	registerWithAgent(t, c, 1)
	f.sees(answer{target: url, reason: "ok"})

	// A Consul that hangs is found out when a query is overdue: after poll_interval and a sixteenth, and 10 seconds. Its
	// client agent notices by itself, and says so in words when it is asked whether there is anything new.
	f.row("paused and continued", func(f *faults) {
		f.must("pause", consul.Pause(timeout(f.T)))
		f.sees(answer{target: url, reason: "ok"})
		f.sees(answer{target: url, reason: "consul_unreachable", stale: true})
		f.seesAt(f.port("8002"), answer{reason: "stale_expired", stale: true})
		f.seesAt(f.port("8003"), answer{reason: "stale_expired", stale: true})
		f.seesAt(f.port("8004"), answer{target: url, reason: "consul_error", stale: true})
		f.must("continue", consul.Continue())
		f.sees(answer{target: url, reason: "ok"})
		f.seesAt(f.port("8004"), answer{target: url, reason: "ok"})
		f.only(url)
		f.seesAt(f.port("8002"), answer{target: url, reason: "ok"})
		f.seesAt(f.port("8003"), answer{target: url, reason: "ok"})
	})

	// The client agent, which has lost its only server, says so in words.
	f.row("stopped, and back empty until anti-entropy has filled it", func(f *faults) {
		f.must("stop", consul.Stop(timeout(f.T)))
		f.sees(answer{target: url, reason: "consul_unreachable", stale: true})
		f.seesAt(f.port("8003"), answer{reason: "stale_expired", stale: true})
		f.seesAt(f.port("8004"), answer{target: url, reason: "consul_error", stale: true})
		f.only(url)
		f.must("restart", consul.Restart(timeout(f.T)))
		// Agents tell a server what they have once a minute, when it joins, and when something changes. Until then nothing
		// is registered, unless they were faster than the next query.
		for i, a := range c.Agents {
			f.must("join "+a.Name, a.API().Agent().Join(consul.IP, false))
			registerWithAgent(f.T, c, i)
		}
		f.sees(answer{target: url, reason: "ok"})
		f.only(url, "503")
	})

	f.row("active's agent gone for good", func(f *faults) {
		f.must("kill "+c.Agents[0].Name, c.Agents[0].Kill())
		f.sees(answer{reason: "unhealthy"})
		f.must("tag the other one", c.Agents[1].API().Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: "127.10.0.2", Name: "vault", Address: "127.10.0.2", Port: 8200, Tags: []string{"active"},
		}))
		f.sees(answer{target: other, reason: "ok"})
		f.guard.forget()
		f.must("restart "+c.Agents[0].Name, c.Agents[0].Restart(timeout(f.T))) // tagged active as before
		f.sees(answer{target: other, reason: "ok", candidates: 2})
		f.only(other)
	})
}

// Three Consul servers with their data on disk, the first of them asked, and Vault nodes in the catalog that no agent
// looks after.
func TestFaultsOfThreeConsuls(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoVault: true, Consuls: 3})
	f := runFaults(t, c)
	f.contradictions()
	f.serversThatGo()
}

// The addresses of two Vault nodes in the catalog, and where redirects to them lead.
const (
	nodeA, urlA = "127.10.0.1", "http://127.10.0.1:8200"
	nodeB, urlB = "127.10.0.2", "http://127.10.0.2:8200"
)

// set registers a Vault node in the catalog.
func (f *faults) set(address, tag, status string) {
	f.Helper()
	_, err := f.c.Consuls[0].API().Catalog().Register(&api.CatalogRegistration{
		Node: "node-" + address, Address: address,
		Service: &api.AgentService{ID: address, Service: "vault", Address: address, Port: 8200, Tags: []string{tag}},
		Checks: api.HealthChecks{{
			Node: "node-" + address, CheckID: address + ":sealed", Name: "sealed", ServiceID: address, ServiceName: "vault", Status: status,
		}},
	}, nil)
	f.must(address+" is "+tag+" and "+status, err)
}

// unset takes a Vault node out of the catalog.
func (f *faults) unset(address string) {
	f.Helper()
	_, err := f.c.Consuls[0].API().Catalog().Deregister(&api.CatalogDeregistration{Node: "node-" + address}, nil)
	f.must("deregister "+address, err)
}

// contradictions are nodes of which the catalog says what cannot be, or nothing.
func (f *faults) contradictions() {
	f.row("two active, both passing", func(f *faults) {
		f.set(nodeA, "active", "passing")
		f.sees(answer{target: urlA, reason: "ok"})
		f.set(nodeB, "active", "passing")
		f.sees(answer{target: urlB, reason: "ok", candidates: 2}) // the one marked last
		f.set(nodeA, "standby", "passing")
		f.sees(answer{target: urlB, reason: "ok"})
		f.set(nodeA, "active", "passing")
		f.sees(answer{target: urlA, reason: "ok", candidates: 2})
	})

	f.row("two active, one worse", func(f *faults) {
		f.set(nodeA, "active", "warning")
		f.sees(answer{target: urlB, reason: "ok", candidates: 2}) // whose checks are better, though the other was marked last
		f.set(nodeB, "active", "critical")
		f.sees(answer{target: urlA, reason: "ok"})
		f.set(nodeA, "active", "critical")
		f.sees(answer{reason: "unhealthy"})
	})

	// Its check passes again while its tag is still the old one.
	f.row("back from the dead with its tag", func(f *faults) {
		f.set(nodeA, "standby", "passing")
		f.set(nodeB, "active", "passing")
		f.sees(answer{target: urlB, reason: "ok"})
		f.set(nodeB, "active", "critical")
		f.sees(answer{reason: "unhealthy"})
		f.set(nodeA, "active", "passing")
		f.sees(answer{target: urlA, reason: "ok"})
		f.guard.forget()
		f.set(nodeB, "active", "passing")
		f.sees(answer{target: urlA, reason: "ok", candidates: 2})
		f.set(nodeB, "standby", "passing")
		f.sees(answer{target: urlA, reason: "ok"})
		f.only(urlA)
	})

	f.row("deregistered", func(f *faults) {
		f.unset(nodeA)
		f.sees(answer{reason: "no_active"})
		f.unset(nodeB)
		f.sees(answer{reason: "no_service"})
		f.set(nodeA, "active", "passing")
		f.sees(answer{target: urlA, reason: "ok"})
	})
}

// serversThatGo are Consul's, which come back.
func (f *faults) serversThatGo() {
	f.row("restarted with its state", func(f *faults) {
		f.must("stop", f.c.Consuls[0].Stop(timeout(f.T)))
		f.sees(answer{target: urlA, reason: "consul_unreachable", stale: true})
		f.must("restart", f.c.Consuls[0].Restart(timeout(f.T)))
		f.sees(answer{target: urlA, reason: "ok"})
		f.only(urlA) // its state is on disk: never a moment without the service
	})

	f.row("leaderless", func(f *faults) {
		for _, s := range f.c.Consuls[1:] {
			f.must("kill "+s.Name, s.Kill())
		}
		f.sees(answer{target: urlA, reason: "consul_error", stale: true})
		f.seesAt(f.port("8003"), answer{reason: "stale_expired", stale: true})
		for _, s := range f.c.Consuls[1:] {
			f.must("restart "+s.Name, s.Restart(timeout(f.T)))
		}
		f.sees(answer{target: urlA, reason: "ok"})
		f.only(urlA)
		f.seesAt(f.port("8003"), answer{target: urlA, reason: "ok"})
		f.set(nodeB, "active", "passing") // the watch works on
		f.sees(answer{target: urlB, reason: "ok", candidates: 2})
	})
}
