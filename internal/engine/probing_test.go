// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// probing is a config with the default probes.
func probing(mode Mode) func(*Config) {
	return func(c *Config) {
		c.Probe = Probe{Mode: mode, Interval: 500 * time.Millisecond, Timeout: time.Second, Fall: 3}
	}
}

// every sets the interval of the probes.
func every(d time.Duration) func(*Config) { return func(c *Config) { c.Probe.Interval = d } }

// probed is a cluster of three nodes, a being active, with a view that probes them.
func probedCluster(t *testing.T, changes ...func(*Config)) (*network, *watched) {
	t.Helper()
	n, p := newNetwork(t)
	n.node("a").answers(200)
	w := watch(t, p, newScripted(answerOf(5, "a")), plain(t, append([]func(*Config){probing(ProbeAuto)}, changes...)...))
	w.expect(t, "a", discovery.ReasonOK)
	if by := w.State().By; by != ByProbe {
		t.Fatalf("active by %s, want %s", by, ByProbe)
	}
	return n, w
}

// settle lets time pass.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestProbesOutrankDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		a, b := n.node("a"), n.node("b")
		// Discovery goes on saying that the first is active, and fine.
		for _, code := range []int{429, 472, 473, 474, 501, 503, 530, 500, 302} {
			a.answers(code)
			settle(500 * time.Millisecond)
			if s := w.State(); s.Active() {
				t.Fatalf("%d, but active", code)
			}
			a.answers(200)
			settle(time.Second)
			w.expect(t, "a", discovery.ReasonOK)
		}
		a.answers(429)
		b.answers(200)
		settle(time.Second)
		w.expect(t, "b", discovery.ReasonOK)
		b.kill()
		synctest.Wait()
		w.expect(t, "", discovery.ReasonNoActive)
		a.answers(200)
		settle(100 * time.Millisecond)
		w.expect(t, "a", discovery.ReasonOK)
		a.hangs(true)
		settle(5 * time.Second)
		w.expect(t, "", discovery.ReasonUnhealthy)
		a.hangs(false)
		settle(time.Second)
		w.expect(t, "a", discovery.ReasonOK)
	})
}

func TestProbesFollowWithoutDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		w.fail(&discovery.Error{Reason: discovery.ReasonConsulUnreachable, Err: fmt.Errorf("refused")})
		last := "a"
		for _, next := range []string{"b", "c", "a"} {
			n.node(last).answers(429)
			settle(500 * time.Millisecond)
			w.expect(t, "", discovery.ReasonConsulUnreachable)
			n.node(next).answers(200)
			settle(100 * time.Millisecond)
			w.expect(t, next, discovery.ReasonConsulUnreachable)
			if s := w.State(); !s.StaleSince.IsZero() {
				t.Errorf("stale since %s: a node that proves itself is not stale", s.StaleSince)
			}
			last = next
		}
		settle(5 * time.Minute)
		w.expect(t, "a", discovery.ReasonConsulUnreachable)
		w.set(func(s *scripted) { s.err = nil })
		settle(backoffMax)
		w.expect(t, "a", discovery.ReasonOK)
	})
}

// The connection of the probes breaks with the node's process: nothing waits for the next probe.
func TestProbesNoticeDeathAtOnce(t *testing.T) {
	for name, config := range map[string]*tlsPair{"http": nil, "https": newTLSPair(t, "a")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				n.node("a").answers(200)
				c := plain(t, probing(ProbeAuto), every(time.Hour))
				if config != nil {
					c.Addressing, c.Probe.TLS = toTLS(t), config.client
					n.node("a").set(func(v *vault) { v.tls = config.server })
				}
				w := watch(t, p, newScripted(answerOf(5, "a", only("a"))), c)
				w.expect(t, "a", discovery.ReasonOK)
				n.node("a").kill()
				synctest.Wait()
				w.expect(t, "", discovery.ReasonUnhealthy)
			})
		})
	}
}

// A listener that is closed is seen although the connections that there are go on being served, as in a stop of Vault.
func TestProbesSeeAClosedListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		settle(10 * time.Second)
		n.node("a").refuses()
		settle(500 * time.Millisecond)
		w.expect(t, "", discovery.ReasonUnhealthy)
	})
}

// A node that closes each connection after its answer is not probed in a hot loop, and does not make requests wait.
func TestProbesOfANodeThatClosesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		n.node("a").set(func(v *vault) { v.closes = true })
		settle(10 * time.Second)
		before := n.node("a").probes()
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			if p := w.State().Phase(); p.Situation != Active {
				t.Fatalf("phase %v", p)
			}
		}
		if asked := n.node("a").probes() - before; asked > 21 {
			t.Errorf("%d probes in 10 s, want one each 500ms", asked)
		}
	})
}

// The intervals: the active node at that of the config, others ten times as seldom but at least every ten seconds.
func TestStandbysAreProbedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		settle(10 * time.Millisecond)
		a, b := n.node("a").probes(), n.node("b").probes()
		settle(30 * time.Second)
		if a, b = n.node("a").probes()-a, n.node("b").probes()-b; a != 60 || b != 6 {
			t.Errorf("%d probes of the active node and %d of a standby in 30 s, want 60 and 6", a, b)
		}
		for _, name := range []string{"a", "b", "c"} {
			if c := n.node(name).connections(); c != 1 {
				t.Errorf("%d connections to %s, want 1", c, name)
			}
		}
		n.node("b").answers(503)
		settle(6 * time.Second)
		for _, m := range w.State().members {
			if m.node.Name == "b" && m.outcome.Result != ResultSealed {
				t.Errorf("the standby is %s, want sealed: it must be known before the failover", m.outcome.Result)
			}
		}
		// The end of the last handler is the end of the probes.
		w.release()
		synctest.Wait()
		for _, name := range []string{"a", "b", "c"} {
			if c := n.node(name).connections(); c != 0 {
				t.Errorf("%d connections to %s after the end", c, name)
			}
		}
	})
}

// While none is active, nodes are asked often for a minute, and then at the interval.
func TestTheSearchSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t, probing(ProbeStrict))
		n.node("a").answers(429)
		settle(time.Second)
		w.expect(t, "", discovery.ReasonNoActive)
		before := n.node("b").probes()
		settle(10 * time.Second)
		if asked := n.node("b").probes() - before; asked < 90 || asked > 101 {
			t.Errorf("%d probes in 10 s of the search, want about 100", asked)
		}
		settle(50 * time.Second)
		before = n.node("b").probes()
		settle(10 * time.Second)
		if asked := n.node("b").probes() - before; asked < 19 || asked > 21 {
			t.Errorf("%d probes in 10 s after a minute, want 20", asked)
		}
	})
}

// A probe that fails at once, such as one without a route or whose name is unknown, is not repeated at once for ever.
func TestFailuresAtOnceAreNoHotLoop(t *testing.T) {
	for name, mode := range map[string]Mode{"auto": ProbeAuto, "strict": ProbeStrict} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				n.change(func() { clear(n.nodes) }) // no route
				watch(t, p, newScripted(answerOf(5, "a", only("a"))), plain(t, probing(mode)))
				settle(2 * time.Minute)
				before := n.tries()
				settle(10 * time.Second)
				if n.tries()-before > 21 {
					t.Errorf("%d attempts in 10 s, want at most 20", n.tries()-before)
				}
			})
		})
	}
}

// A node that is no longer registered is not probed any more, and its connection is closed.
func TestRemovedNodesAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		b := n.node("b")
		b.set(func(v *vault) { v.delay = 200 * time.Millisecond })
		time.Sleep(5*time.Second + 100*time.Millisecond) // a probe of b is under way
		w.say(answerOf(6, "a", with("b", func(n *discovery.Node) { n.Tags = []string{"standby", "new"} })))
		w.say(answerOf(7, "a", only("a", "c")))
		settle(time.Second)
		before := b.probes()
		settle(time.Minute)
		if asked := b.probes() - before; asked != 0 || b.connections() != 0 {
			t.Errorf("%d probes, %d connections, want none", asked, b.connections())
		}
		for key := range w.View.cluster.nodes {
			if key.id.Name != "b" {
				continue
			}
			t.Error("what is known of a node does not go with it")
		}
	})
}

func TestProbesByLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		a := n.node("a")
		say := func(leader string) { a.set(func(v *vault) { v.code, v.leader = 200, leader }) }
		say(`{"is_self":true,"leader_address":"http://front.example.com:80"}`)
		w := watch(t, p, newScripted(answerOf(5, "a")), plain(t, probing(ProbeAuto), func(c *Config) { c.Addressing = to(t, ToLeader) }))
		w.expect(t, "a", discovery.ReasonOK)
		if url := w.State().Target.URL; url != "http://front.example.com:80" {
			t.Errorf("target %s", url)
		}
		for leader, reason := range map[string]discovery.Reason{
			`{"is_self":false,"leader_address":"http://b:8200"}`:  discovery.ReasonNoActive, // it has just lost
			`{"is_self":true,"leader_address":""}`:                discovery.ReasonUnhealthy,
			`{"is_self":true,"leader_address":"https://a:8200"}`:  discovery.ReasonBadAddress,
			`{"is_self":true,"leader_address":"http://evil@x:1"}`: discovery.ReasonBadAddress,
			`<html>`: discovery.ReasonUnhealthy,
		} {
			say(leader)
			settle(time.Second)
			w.expect(t, "", reason)
		}
		say(`{"is_self":true,"leader_address":"http://a:8200"}`)
		settle(time.Second)
		w.expect(t, "a", discovery.ReasonOK)
	})
}

// However many nodes hang, the active one is probed on.
func TestHangingStandbysDoNotHoldUpTheActiveNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		answer := answerOf(5, "a")
		for i := range 200 {
			name := fmt.Sprint("s", i)
			n.add(t, name).hangs(true)
			answer.Nodes = append(answer.Nodes, discovery.Node{Name: name, ID: "vault", Port: 8200, Tags: []string{"standby"}})
		}
		n.node("a").answers(200)
		w := watch(t, p, newScripted(answer), plain(t, probing(ProbeAuto)))
		settle(10 * time.Second)
		w.expect(t, "a", discovery.ReasonOK)
		n.node("a").answers(http.StatusTooManyRequests)
		settle(500 * time.Millisecond)
		w.expect(t, "", discovery.ReasonNoActive)
	})
}
