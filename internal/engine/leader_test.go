// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"testing"
	"testing/synctest"
	"time"
)

// Where it is is not believed any more of a node whose certificate is not trusted, be it after a reload.
func TestLeaderIsForgotten(t *testing.T) {
	pair, other := newTLSPair(t, "a", "b", "c"), newTLSPair(t, "a", "b", "c")
	for name, distrust := range map[string]func(t *testing.T, n *network, w *watched) *watched{
		"another certificate": func(_ *testing.T, n *network, w *watched) *watched {
			n.node("a").set(func(v *vault) { v.tls = other.server })
			return w
		},
		"other authorities": func(t *testing.T, _ *network, w *watched) *watched {
			w = reload{config: func(c *Config) { c.Probe.TLS, c.Probe.TLSKey = other.client, [32]byte{1} }}.run(t, w)
			if url := w.State().Target.URL; url != "https://a:8200" {
				t.Errorf("at once to %s", url)
			}
			return w
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				n.node("a").set(func(v *vault) {
					v.code, v.leader, v.tls = 200, `{"is_self":true,"leader_address":"https://front.example.com:443"}`, pair.server
				})
				w := watch(t, p, newScripted(answerOf(5, "a")), plain(t, probing(ProbeAuto), func(c *Config) {
					c.Probe.TLS = pair.client
					c.Addressing, _ = NewAddressing("https", ToLeader, 0)
				}))
				if url := w.State().Target.URL; url != "https://front.example.com:443" {
					t.Fatalf("to %s", url)
				}
				w = distrust(t, n, w)
				w.Start()
				settle(time.Minute)
				if s := w.State(); !s.Active() || s.Target.URL != "https://a:8200" {
					t.Errorf("phase %v, to %s", s.Phase(), s.Target.URL)
				}
			})
		})
	}
}

// While the active node is asked again, or leaves a probe unanswered, redirects lead to where it said that it is.
func TestLeaderIsRemembered(t *testing.T) {
	for name, happen := range map[string]func(n *network, w *watched){
		"it leaves a probe unanswered": func(n *network, _ *watched) { n.node("a").hangs(true) },
		"it is marked at last": func(_ *network, w *watched) {
			w.say(answerOf(6, ""))
			settle(500 * time.Millisecond)
			w.say(answerOf(7, "a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				const front = "http://front.example.com:80"
				n.node("a").set(func(v *vault) {
					v.code, v.leader, v.delay = 200, `{"is_self":true,"leader_address":"`+front+`"}`, 50*time.Millisecond
				})
				old := watch(t, p, newScripted(answerOf(5, "a")), plain(t, probing(ProbeAuto), func(c *Config) { c.Addressing = to(t, ToLeader) }))
				for _, reloaded := range []bool{false, true} {
					w := old
					if reloaded {
						w = reload{config: func(c *Config) { c.MaxStale++ }}.run(t, old)
						w.Start()
						synctest.Wait()
					} else {
						settle(time.Second)
						happen(n, w)
					}
					for range 120 {
						if s := w.State(); s.Active() && s.Target.URL != front {
							t.Fatalf("reloaded %t: target %s", reloaded, s.Target.URL)
						}
						settle(10 * time.Millisecond)
					}
				}
				if changes := old.State().Changes; changes != 1 {
					t.Errorf("%d changes", changes)
				}
			})
		})
	}
}
