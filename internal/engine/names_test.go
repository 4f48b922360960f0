// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// A name is looked up for each probe. That it cannot be looked up says nothing of the node.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.change(func() { n.names["vault.example.com"] = "a" })
		n.node("a").answers(200)
		answer := discovery.Answer{Index: 5, Nodes: []discovery.Node{{Name: "vault.example.com", ID: "vault", Port: 8200, Tags: []string{"active"}}}}
		w := watch(t, p, newScripted(answer), plain(t, probing(ProbeAuto)))
		w.expect(t, "vault.example.com", discovery.ReasonOK)
		hold := func(what string) {
			t.Helper()
			for range 100 {
				if p := w.State().Phase(); p.Situation != Active || w.State().By != ByProbe {
					t.Fatalf("%s: phase %v, by %s", what, p, w.State().By)
				}
				settle(100 * time.Millisecond)
			}
		}
		n.change(func() { n.noDNS = errNoName })
		hold("no DNS")
		n.change(func() { n.noDNS = nil })

		n.change(func() { n.names["vault.example.com"] = "b" }) // a sealed node, while the old one goes on answering
		n.node("b").answers(503)
		settle(500 * time.Millisecond)
		w.expect(t, "", discovery.ReasonUnhealthy)
		n.node("b").answers(200)
		settle(time.Second)
		hold("moved")
		n.change(func() { n.noDNS = errNoName })
		n.node("a").answers(429)
		hold("no DNS after the move")
	})
}

// namedNode returns a network in which name stands for a, and a dialer that has reached it there.
func namedNode(t *testing.T) (*network, *Pool, *dialer) {
	t.Helper()
	n, p := newNetwork(t)
	n.change(func() { n.names["name"] = "a" })
	n.node("a").answers(200)
	d := newDialer(p.dial, nil, "name")
	if f := asks(t, d, "http://name:8200", func() {}); f.Result != ResultActive {
		t.Fatalf("%+v", f)
	}
	return n, p, d
}

// A DNS server that does not answer takes half of the time of a probe, not all of it.
func TestSlowNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p, d := namedNode(t)
		n.change(func() { n.slowDNS = true })
		if f := asks(t, d, "http://name:8200", func() {}); f.Result != ResultActive || f.Took != time.Second/2 {
			t.Errorf("%+v, want active after 500ms", f)
		}
		// A name that was never looked up leads nowhere.
		if f := asks(t, newDialer(p.dial, nil, "name"), "http://name:8200", func() {}); f.Result != ResultTimeout {
			t.Errorf("%+v, want a timeout", f)
		}
		n.change(func() { n.slowDNS, n.noDNS = false, errNoName })
		if f := asks(t, newDialer(p.dial, nil, "name"), "http://name:8200", func() {}); f.Result != ResultOther {
			t.Errorf("%+v, want other", f)
		}
	})
}

// A name that moves to where nothing answers leads there: the node at its previous address does not count.
func TestNamesThatMoveToADeadEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, d := namedNode(t)
		n.node("b").set(func(v *vault) { v.drops = true })
		n.change(func() { n.names["name"] = "b" })
		if f := asks(t, d, "http://name:8200", func() {}); f.Result != ResultTimeout {
			t.Errorf("%+v, want a timeout", f)
		}
	})
}

// A name of several addresses, of which one leads nowhere, is reached by another one.
func TestNamesOfSeveralAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.add(t, "127.0.0.7").answers(200)
		n.change(func() { n.names["name"] = "127.0.0.7" })
		d := newDialer(p.dial, nil, "name")
		for _, stuck := range []bool{false, true} {
			n.change(func() { n.stuck = stuck })
			if f := asks(t, d, "http://name:8200", func() {}); f.Result != ResultActive {
				t.Errorf("%+v", f)
			}
		}
	})
}

// A reload while names cannot be looked up forgets no address.
func TestReloadWithoutNames(t *testing.T) {
	for _, mode := range []Mode{ProbeAuto, ProbeStrict} {
		t.Run(string(mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				n.change(func() { n.names["vault.example.com"] = "a" })
				n.node("a").answers(200)
				s := newScripted(discovery.Answer{Index: 5, Nodes: []discovery.Node{{Name: "vault.example.com", ID: "vault", Port: 8200, Tags: []string{"active"}}}})
				s.named = "vault"
				old := watch(t, p, s, plain(t, probing(mode)))
				n.change(func() { n.noDNS = errNoName })
				for _, change := range []reload{
					{config: func(c *Config) { c.MaxStale++ }},
					{discovery: func(s *scripted) { s.key = "another token" }},
				} {
					settle(time.Second)
					next := change.run(t, old)
					next.Start()
					old.release()
					settle(20 * time.Second)
					next.expect(t, "vault.example.com", discovery.ReasonOK)
					if lost := next.lines("no active node"); lost != 0 {
						t.Errorf("lost %d times", lost)
					}
					old = next
				}
			})
		})
	}
}
