// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// Three Vault nodes that register with one Consul server, which is also the one that is asked.
func TestFaultsOfVault(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{ReconcileTimeout: 3 * time.Second})
	f := runFaults(t, c)
	f.nodesThatDie()
	f.nodesThatAreSealed()
	f.wordsOfConsul()
	f.consulThatDies()
}

func (f *faults) nodesThatDie() {
	// Redirects lead to the dead node until another is active: the dead one keeps its tag, and its check runs out later.
	// When it is back it is a standby, and changes nothing.
	f.vaultRow("active killed, and back from the dead", func(f *faults, active *cluster.Vault) {
		f.must("kill "+active.Name, active.Kill())
		next := f.next(active)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.status(active.ServiceID, api.HealthCritical)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.must("restart "+active.Name, active.Restart(timeout(f.T)))
		f.status(active.ServiceID, api.HealthPassing)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only(active.URL, next.URL, "503")
	})

	// As if killed. When it goes on it still believes that it is active; Consul has the newer tag on the other node.
	f.vaultRow("active paused, and continued", func(f *faults, active *cluster.Vault) {
		f.must("pause "+active.Name, active.Pause(timeout(f.T)))
		next := f.next(active)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.status(active.ServiceID, api.HealthCritical)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.guard.forget()
		f.must("continue "+active.Name, active.Continue())
		f.status(active.ServiceID, api.HealthPassing)
		f.must("settle", f.c.WaitSettled(timeout(f.T)))
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only(next.URL)
	})
}

func (f *faults) nodesThatAreSealed() {
	// The sealed node says so to Consul itself: it is out at once, and there is no redirect to it.
	f.vaultRow("active sealed, and unsealed", func(f *faults, active *cluster.Vault) {
		f.must("seal "+active.Name, active.Seal(timeout(f.T)))
		next := f.next(active)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.status(active.ServiceID, api.HealthCritical)
		f.must("unseal "+active.Name, active.Unseal(timeout(f.T)))
		f.status(active.ServiceID, api.HealthPassing)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only(active.URL, next.URL, "503")
	})

	// Without a quorum there is no active node, sealed or not. One of three unsealed again is not enough; two are.
	f.vaultRow("all sealed, one after another", func(f *faults, active *cluster.Vault) {
		f.must("seal "+active.Name, active.Seal(timeout(f.T)))
		second := f.next(active)
		f.must("seal "+second.Name, second.Seal(timeout(f.T)))
		f.sees(answer{reason: "no_active"})
		for _, v := range f.c.Vaults {
			f.must("seal "+v.Name, v.Seal(timeout(f.T)))
			f.status(v.ServiceID, api.HealthCritical)
		}
		f.sees(answer{reason: "no_active"})
		f.guard.forget()
		f.must("unseal "+active.Name, active.Unseal(timeout(f.T)))
		f.status(active.ServiceID, api.HealthPassing)
		f.only("503")
		f.must("unseal "+second.Name, second.Unseal(timeout(f.T)))
		next := f.next()
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only("503", next.URL)
		for _, v := range f.c.Vaults {
			f.must("unseal "+v.Name, v.Unseal(timeout(f.T)))
		}
	})
}

func (f *faults) wordsOfConsul() {
	agent := f.c.Consuls[0].API().Agent()

	// Vault does not notice. It registers again when it next looks.
	f.vaultRow("active deregistered", func(f *faults, active *cluster.Vault) {
		before := f.turns("no_active")
		// Repeated: if Vault happens to check just then, it registers again before any query of Consul sees it.
		f.caddy.await("no node is active", func() bool {
			_ = agent.ServiceDeregister(active.ServiceID) // fails while it is not registered
			return f.turns("no_active") > before
		})
		// On a machine that is busy, Vault may have elected another meanwhile.
		next := f.next()
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only(active.URL, next.URL, "503")
	})

	// Consul's word counts, though Vault works on: the standbys cannot stand in while it is active.
	f.vaultRow("active in maintenance of the service", func(f *faults, active *cluster.Vault) {
		f.must("maintenance", agent.EnableServiceMaintenance(active.ServiceID, "by the test"))
		f.sees(answer{reason: "unhealthy"})
		f.status(active.ServiceID, api.HealthMaint)
		f.guard.forget()
		f.must("step down", active.StepDown(timeout(f.T)))
		next := f.next(active)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.must("end of maintenance", agent.DisableServiceMaintenance(active.ServiceID))
		f.status(active.ServiceID, api.HealthPassing)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only("503", next.URL)
	})
}

func (f *faults) consulThatDies() {
	// Clients are sent to the node that was active last: Vault works on without Consul.
	f.vaultRow("Consul killed, and back empty", func(f *faults, active *cluster.Vault) {
		f.must("kill consul", f.c.Consuls[0].Kill())
		f.sees(answer{target: active.URL, reason: "consul_unreachable", stale: true})
		f.seesAt(f.port("8002"), answer{reason: "stale_expired", stale: true})
		f.seesAt(f.port("8003"), answer{reason: "stale_expired", stale: true})
		f.only(active.URL)
		f.must("restart consul", f.c.Consuls[0].Restart(timeout(f.T)))
		f.sees(answer{target: active.URL, reason: "ok"})
		f.seesAt(f.port("8002"), answer{target: active.URL, reason: "ok"})
		f.seesAt(f.port("8003"), answer{target: active.URL, reason: "ok"})
		f.only(active.URL, "503")
	})

	// Nobody can know: clients are sent to the dead node for as long as max_stale allows, or until Consul is back.
	f.vaultRow("active killed while Consul is away", func(f *faults, active *cluster.Vault) {
		f.must("kill consul", f.c.Consuls[0].Kill())
		f.must("kill "+active.Name, active.Kill())
		next := f.next(active)
		f.sees(answer{target: active.URL, reason: "consul_unreachable", stale: true})
		f.seesAt(f.port("8002"), answer{reason: "stale_expired", stale: true})
		f.only(active.URL)
		f.must("restart consul", f.c.Consuls[0].Restart(timeout(f.T)))
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only(active.URL, next.URL, "503")
	})
}

// Three Vault nodes with a Consul agent each, which can be cut off, and a Consul server that is asked.
func TestFaultsBetweenVaultAndConsul(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{AgentPerNode: true})
	f := runFaults(t, c)

	f.vaultRow("active in maintenance of the node", func(f *faults, active *cluster.Vault) {
		agent := active.Agent.API().Agent()
		f.must("maintenance", agent.EnableNodeMaintenance("by the test"))
		f.sees(answer{reason: "unhealthy"})
		f.status(active.ServiceID, api.HealthMaint)
		f.must("end of maintenance", agent.DisableNodeMaintenance())
		f.sees(answer{target: active.URL, reason: "ok"})
		f.only(active.URL, "503")
	})

	// Vault works on, but Consul's servers call its node critical: no node is elected. When another node becomes active
	// meanwhile, the tag of the first one is stale, and does not matter; nor does it when its agent is back.
	f.vaultRow("active cut off from Consul, and stepped down", func(f *faults, active *cluster.Vault) {
		f.must("pause the agent of "+active.Name, active.Agent.Pause(timeout(f.T)))
		f.sees(answer{reason: "unhealthy"})
		f.status(active.ServiceID, api.HealthCritical)
		f.only(active.URL, "503")
		f.guard.forget()
		f.must("step down", active.StepDown(timeout(f.T)))
		next := f.next(active)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.guard.forget()
		f.must("continue the agent of "+active.Name, active.Agent.Continue())
		f.status(active.ServiceID, api.HealthPassing)
		f.must("settle", c.WaitSettled(timeout(f.T)))
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only(next.URL)
	})

	// Its tag stays where it is until Consul calls the node critical, and both are passing until then.
	f.vaultRow("stepped down just after it was cut off", func(f *faults, active *cluster.Vault) {
		f.must("kill the agent of "+active.Name, active.Agent.Kill())
		f.must("step down", active.StepDown(timeout(f.T)))
		next := f.next(active)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.status(active.ServiceID, api.HealthCritical)
		f.sees(answer{target: next.URL, reason: "ok"})
		f.guard.forget()
		f.must("restart the agent of "+active.Name, active.Agent.Restart(timeout(f.T)))
		f.status(active.ServiceID, api.HealthPassing)
		f.must("settle", c.WaitSettled(timeout(f.T)))
		f.sees(answer{target: next.URL, reason: "ok"})
		f.only(next.URL)
	})
}
