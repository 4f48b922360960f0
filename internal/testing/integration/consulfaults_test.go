// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the faults of Consul itself, on real servers, with Vault nodes that are registered by hand.

package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// One Consul server, which keeps its state in memory and is asked, and two agents, each with a Vault that is registered
// with it by hand.
func TestFaultsOfOneConsul(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoVault: true, AgentPerNode: true, Vaults: 2})
	f := runFaults(t, c)
	consul := c.Consuls[0]
	const url, other = "http://127.10.0.1:8200", "http://127.10.0.2:8200"
	register := func(i int) {
		t.Helper()
		address := strings.TrimSuffix(strings.TrimPrefix([]string{url, other}[i], "http://"), ":8200")
		err := c.Agents[i].API().Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: address, Name: "vault", Address: address, Port: 8200, Tags: []string{[]string{"active", "standby"}[i]},
			Meta: map[string]string{"registered": time.Now().Format(time.RFC3339Nano)}, // a change, each time
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	register(0)
	register(1)
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
			register(i)
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
	const a, b = "127.10.0.1", "127.10.0.2"
	url := func(address string) string { return "http://" + address + ":8200" }
	set := func(f *faults, address, tag, status string) {
		f.Helper()
		_, err := c.Consuls[0].API().Catalog().Register(&api.CatalogRegistration{
			Node: "node-" + address, Address: address,
			Service: &api.AgentService{ID: address, Service: "vault", Address: address, Port: 8200, Tags: []string{tag}},
			Checks: api.HealthChecks{{
				Node: "node-" + address, CheckID: address + ":sealed", Name: "sealed", ServiceID: address, ServiceName: "vault", Status: status,
			}},
		}, nil)
		f.must(address+" is "+tag+" and "+status, err)
	}

	f.row("two active, both passing", func(f *faults) {
		set(f, a, "active", "passing")
		f.sees(answer{target: url(a), reason: "ok"})
		set(f, b, "active", "passing")
		f.sees(answer{target: url(b), reason: "ok", candidates: 2}) // the one marked last
		set(f, a, "standby", "passing")
		f.sees(answer{target: url(b), reason: "ok"})
		set(f, a, "active", "passing")
		f.sees(answer{target: url(a), reason: "ok", candidates: 2})
	})

	f.row("two active, one worse", func(f *faults) {
		set(f, a, "active", "warning")
		f.sees(answer{target: url(a), reason: "ok", candidates: 2}) // it is still the one marked last
		set(f, b, "active", "critical")
		f.sees(answer{target: url(a), reason: "ok"})
		set(f, a, "active", "critical")
		f.sees(answer{reason: "unhealthy"})
	})

	// Its check passes again while its tag is still the old one.
	f.row("back from the dead with its tag", func(f *faults) {
		set(f, a, "standby", "passing")
		set(f, b, "active", "passing")
		f.sees(answer{target: url(b), reason: "ok"})
		set(f, b, "active", "critical")
		f.sees(answer{reason: "unhealthy"})
		set(f, a, "active", "passing")
		f.sees(answer{target: url(a), reason: "ok"})
		f.guard.forget()
		set(f, b, "active", "passing")
		f.sees(answer{target: url(a), reason: "ok", candidates: 2})
		set(f, b, "standby", "passing")
		f.sees(answer{target: url(a), reason: "ok"})
		f.only(url(a))
	})

	f.row("deregistered", func(f *faults) {
		_, err := c.Consuls[0].API().Catalog().Deregister(&api.CatalogDeregistration{Node: "node-" + a}, nil)
		f.must("deregister "+a, err)
		f.sees(answer{reason: "no_active"})
		_, err = c.Consuls[0].API().Catalog().Deregister(&api.CatalogDeregistration{Node: "node-" + b}, nil)
		f.must("deregister "+b, err)
		f.sees(answer{reason: "no_service"})
		set(f, a, "active", "passing")
		f.sees(answer{target: url(a), reason: "ok"})
	})

	f.row("restarted with its state", func(f *faults) {
		f.must("stop", c.Consuls[0].Stop(timeout(f.T)))
		f.sees(answer{target: url(a), reason: "consul_unreachable", stale: true})
		f.must("restart", c.Consuls[0].Restart(timeout(f.T)))
		f.sees(answer{target: url(a), reason: "ok"})
		f.only(url(a)) // its state is on disk: never a moment without the service
	})

	f.row("leaderless", func(f *faults) {
		for _, s := range c.Consuls[1:] {
			f.must("kill "+s.Name, s.Kill())
		}
		f.sees(answer{target: url(a), reason: "consul_error", stale: true})
		f.seesAt(f.port("8003"), answer{reason: "stale_expired", stale: true})
		for _, s := range c.Consuls[1:] {
			f.must("restart "+s.Name, s.Restart(timeout(f.T)))
		}
		f.sees(answer{target: url(a), reason: "ok"})
		f.only(url(a))
		f.seesAt(f.port("8003"), answer{target: url(a), reason: "ok"})
		set(f, b, "active", "passing") // the watch works on
		f.sees(answer{target: url(b), reason: "ok", candidates: 2})
	})
}
