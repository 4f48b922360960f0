// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

const believed = "active node does not answer probes but Consul reports it healthy; using it again"

// A node that was never reachable from here is judged by discovery alone, from the first second, and with one warning.
func TestAutoNeverReachable(t *testing.T) {
	pair := newTLSPair(t, "a")
	for name, fault := range map[string]func(*vault){
		"refused":      func(v *vault) { v.refusesLocked() },
		"silent":       func(v *vault) { v.drops = true },
		"no answer":    func(v *vault) { v.hang = true },
		"speaks TLS":   func(v *vault) { v.tls = pair.server }, // and closes a connection without it
		"unknown name": func(v *vault) { v.down = errNoName },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				for _, host := range []string{"a", "b", "c"} {
					n.node(host).set(fault)
				}
				w := watch(t, p, newScripted(answerOf(5, "a")), plain(t, probing(ProbeAuto)))
				settle(firstWait)
				w.expect(t, "a", discovery.ReasonOK)
				settle(10 * time.Second)
				w.say(answerOf(6, "b"))
				w.expect(t, "b", discovery.ReasonOK)
				settle(2 * time.Minute)
				w.expect(t, "b", discovery.ReasonOK)
				if s := w.State(); s.By != BySource || s.Changes != 2 || s.Phase().Situation != Active {
					t.Errorf("by %s, %d changes, phase %v", s.By, s.Changes, s.Phase())
				}
				if lines := w.lines("cannot verify the active node by probing; relying on discovery alone"); lines != 2 {
					t.Errorf("%d warnings, want one for each active node", lines)
				}
			})
		})
	}
}

// A node that is dead from here, but which discovery goes on calling active and passing while no other says that it is,
// is believed to be alive after a while: perhaps only this machine is cut off. It is never a reason to go elsewhere.
func TestAutoInsistence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		n.node("a").kill()
		synctest.Wait()
		for range 149 {
			w.expect(t, "", discovery.ReasonUnhealthy)
			time.Sleep(100 * time.Millisecond)
		}
		settle(100 * time.Millisecond)
		w.expect(t, "a", discovery.ReasonOK)
		if s := w.State(); s.By != BySource || s.Phase().Situation != Active {
			t.Errorf("by %s, %v", s.By, s.Phase())
		}
		before := n.tries()
		settle(10 * time.Second)
		if asked := n.tries() - before; asked > 25 {
			t.Errorf("%d attempts in 10 s, want 20 at a, 2 at b, 2 at c", asked)
		}
		// An outage of discovery is no reason to think otherwise.
		w.fail(errNoName)
		settle(30 * time.Second)
		w.expect(t, "a", discovery.ReasonConsulError)
		w.set(func(s *scripted) { s.err = nil })
		settle(backoffMax)
		w.expect(t, "a", discovery.ReasonOK)
		if lines := w.lines(believed); lines != 1 {
			t.Errorf("%d warnings, want 1", lines)
		}
		// Another node that says that it is active ends it.
		n.node("b").answers(200)
		settle(6 * time.Second)
		w.expect(t, "b", discovery.ReasonOK)
		n.node("b").answers(429)
		n.node("a").revive()
		settle(20 * time.Second)
		w.expect(t, "a", discovery.ReasonOK)
		if s := w.State(); s.By != ByProbe {
			t.Errorf("by %s: it can be reached again", s.By)
		}
	})
}

// In an outage, discovery does not overrule probes.
func TestAutoInsistenceNeedsDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		w.fail(errNoName)
		n.node("a").kill()
		settle(2 * time.Minute)
		w.expect(t, "", discovery.ReasonConsulError)
		if lines := w.lines(believed); lines != 0 {
			t.Errorf("%d warnings", lines)
		}
	})
}

// What discovery does not insist on is not believed.
func TestAutoInsistenceNeedsPassingChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		w.say(answerOf(6, "a", with("a", withNodeCheck("disk", "warning"))))
		n.node("a").kill()
		settle(2 * time.Minute)
		w.expect(t, "", discovery.ReasonUnhealthy)
	})
}

// In mode strict nothing but a node's own word over a trusted connection makes it the active one.
func TestStrict(t *testing.T) {
	pair, other := newTLSPair(t, "a"), newTLSPair(t, "a")
	for name, row := range map[string]struct {
		do     func(*vault)
		trust  *tlsPair
		active string
		reason discovery.Reason
	}{
		"says so":     {func(v *vault) { v.code, v.tls = 200, pair.server }, pair, "a", discovery.ReasonOK},
		"not trusted": {func(v *vault) { v.code, v.tls = 200, pair.server }, other, "", discovery.ReasonUnhealthy},
		"standby":     {func(v *vault) { v.tls = pair.server }, pair, "", discovery.ReasonNoActive},
		"refused":     {func(v *vault) { v.refusesLocked() }, pair, "", discovery.ReasonUnhealthy},
		"silent":      {func(v *vault) { v.drops = true }, pair, "", discovery.ReasonUnhealthy},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				n.node("a").set(row.do)
				w := watch(t, p, newScripted(answerOf(5, "a", only("a"))), plain(t, probing(ProbeStrict), func(c *Config) {
					c.Addressing, c.Probe.TLS = toTLS(t), row.trust.client
				}))
				for range 100 {
					if got := activeOf(w.State()); got != "" && got != row.active {
						t.Fatalf("active %q", got)
					}
					settle(10 * time.Millisecond)
				}
				settle(10 * time.Second)
				w.expect(t, row.active, row.reason)
			})
		})
	}
}

// Where nothing but probes can tell which node is active, each must say so itself, whatever the mode is.
func TestSelectionByProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		s := newScripted(answerOf(0, ""))
		s.selection = discovery.Selection{Mode: discovery.ByProbe}
		_, err := p.Acquire(s, plain(t), nil)
		wantError(t, err, "must be probed")
		w := watch(t, p, s, plain(t, probing(ProbeAuto)))
		w.expect(t, "", discovery.ReasonNoActive)
		n.node("b").answers(200)
		settle(time.Second)
		w.expect(t, "b", discovery.ReasonOK)
		for _, name := range []string{"a", "b", "c"} {
			n.node(name).kill()
		}
		settle(2 * time.Minute)
		w.expect(t, "", discovery.ReasonUnhealthy)
	})
}

// A dead Consul agent is no dead Vault; maintenance is the operator's word.
func TestItsOwnWordOutranksCriticalChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, w := probedCluster(t)
		q := &Queue{Hold: time.Second, Most: 10}
		w.say(answerOf(6, "a", with("a", withNodeCheck("serfHealth", "critical"))))
		w.expect(t, "a", discovery.ReasonOK)
		if got := request(t.Context(), w.View, q); got != (outcome{"a", 0}) {
			t.Errorf("%+v", got)
		}
		settle(2 * time.Minute)
		w.expect(t, "a", discovery.ReasonOK)
		for i, id := range []string{"_node_maintenance", "_service_maintenance:vault"} {
			w.say(answerOf(uint64(7+2*i), "a", with("a", withNodeCheck(id, "critical"))))
			w.expect(t, "", discovery.ReasonUnhealthy)
			settle(time.Minute)
			w.expect(t, "", discovery.ReasonUnhealthy)
			w.say(answerOf(uint64(8+2*i), "a"))
			w.expect(t, "a", discovery.ReasonOK)
		}
	})
}

// Requests wait while a node that has become critical has yet to say that it is fine.
func TestANodeThatBecomesCriticalIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		n.node("a").set(func(v *vault) { v.delay = 50 * time.Millisecond })
		settle(5 * time.Second)
		time.Sleep(200 * time.Millisecond) // between two probes
		w.say(answerOf(6, "a", with("a", withNodeCheck("serfHealth", "critical"))))
		if p := w.State().Phase(); p.Situation != Silent {
			t.Errorf("phase %v, want silent", p)
		}
		if got := request(t.Context(), w.View, &Queue{Hold: time.Second, Most: 10}); got != (outcome{"a", 50 * time.Millisecond}) {
			t.Errorf("%+v, want a after its answer", got)
		}
	})
}

// A node may die right after its answer, before its connection is watched.
func TestDeathRightAfterAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t, every(time.Minute))
		a := n.node("a")
		a.set(func(v *vault) { v.delay = 50 * time.Millisecond })
		settle(time.Minute + 20*time.Millisecond) // a probe is under way
		a.set(func(v *vault) { v.closes = true; v.refusesLocked() })
		settle(50 * time.Millisecond)
		w.expect(t, "", discovery.ReasonUnhealthy)
	})
}
