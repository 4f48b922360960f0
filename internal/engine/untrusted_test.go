// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Of a node whose certificate is not trusted, only liveness counts.
func TestAutoUntrusted(t *testing.T) {
	pair, other := newTLSPair(t, "a", "b", "c"), newTLSPair(t, "a", "b", "c")
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		for _, host := range []string{"a", "b", "c"} {
			n.node(host).set(func(v *vault) { v.tls = pair.server })
		}
		n.node("b").answers(200) // which is not trusted
		w := watch(t, p, newScripted(answerOf(5, "a")), plain(t, probing(ProbeAuto), func(c *Config) {
			c.Addressing, c.Probe.TLS = toTLS(t), other.client
		}))
		w.expect(t, "a", discovery.ReasonOK)
		settle(time.Minute)
		w.expect(t, "a", discovery.ReasonOK)
		if s := w.State(); s.By != BySource {
			t.Errorf("by %s", s.By)
		}
		n.node("a").kill() // at once, and the one that is not trusted does not take its place
		synctest.Wait()
		w.expect(t, "", discovery.ReasonUnhealthy)
		w.say(answerOf(6, "b"))
		w.expect(t, "b", discovery.ReasonOK)
		n.node("b").hangs(true)
		settle(4 * time.Second)
		w.expect(t, "", discovery.ReasonUnhealthy)
		for _, host := range []string{"a", "b", "c"} {
			if errs := n.node(host).tlsErrs; len(errs) > 0 {
				t.Errorf("%s saw %v: each would be a line in its log", host, errs)
			}
		}
	})
}

// Discovery may mark a node before it is ready. One that is not trusted cannot say that it is ready, but is waited for a
// moment while it says that it is not: no longer, since that answer is not trusted.
func TestAutoUntrustedAndNotReady(t *testing.T) {
	pair, other := newTLSPair(t, "a", "b", "c"), newTLSPair(t, "a", "b", "c")
	for name, row := range map[string]struct {
		ready, want time.Duration
	}{
		"ready at once":      {-time.Second, 0},
		"ready after 400 ms": {400 * time.Millisecond, 500 * time.Millisecond},
		"it is never ready":  {time.Hour, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := untrustedCluster(t, pair, other)
				settle(time.Minute)
				if row.ready < 0 {
					n.node("b").answers(200)
				} else {
					time.AfterFunc(row.ready, func() { n.node("b").answers(200) })
				}
				w.say(answerOf(6, "b"))
				if row.want > 0 {
					settle(row.want - 150*time.Millisecond)
					w.expect(t, "", discovery.ReasonNoActive)
					settle(150 * time.Millisecond)
				}
				w.expect(t, "b", discovery.ReasonOK)
				settle(time.Minute)
				if s := w.State(); !s.Active() || s.By != BySource {
					t.Errorf("active %v by %s in the end", s.Active(), s.By)
				}
			})
		})
	}
}

// untrustedCluster is a cluster of three nodes that serve TLS, a being active by discovery, with a view that does not
// trust them.
func untrustedCluster(t *testing.T, pair, other *tlsPair) (*network, *watched) {
	t.Helper()
	n, p := newNetwork(t)
	for _, host := range []string{"a", "b", "c"} {
		n.node(host).set(func(v *vault) { v.tls = pair.server })
	}
	w := watch(t, p, newScripted(answerOf(5, "a")), plain(t, probing(ProbeAuto), func(c *Config) {
		c.Addressing, c.Probe.TLS = toTLS(t), other.client
	}))
	w.expect(t, "a", discovery.ReasonOK)
	return n, w
}

// A node that gives up its role says so before discovery does. One that is not trusted is then waited for, once and for a
// moment: its mark may be about to go, but an impostor must not keep requests from it.
func TestAutoUntrustedThatCeases(t *testing.T) {
	pair, other := newTLSPair(t, "a", "b", "c"), newTLSPair(t, "a", "b", "c")
	for _, code := range []int{429, 503, 530} {
		synctest.Test(t, func(t *testing.T) {
			n, w := untrustedCluster(t, pair, other)
			n.node("a").answers(200)
			settle(time.Minute)
			n.node("a").answers(code)
			settle(500 * time.Millisecond)
			w.expect(t, "", discovery.ReasonNoActive)
			n.node("b").answers(200)
			w.say(answerOf(6, "b"))
			w.expect(t, "b", discovery.ReasonOK)
		})
		synctest.Test(t, func(t *testing.T) {
			n, w := untrustedCluster(t, pair, other)
			a := n.node("a")
			a.answers(200)
			settle(time.Minute)
			a.answers(code)
			settle(500 * time.Millisecond)
			w.expect(t, "", discovery.ReasonNoActive)
			settle(2 * time.Second)
			w.expect(t, "a", discovery.ReasonOK)
			for range 20 { // discovery does not give in, so neither do we, whatever is said
				a.answers(200)
				settle(500 * time.Millisecond)
				w.expect(t, "a", discovery.ReasonOK)
				a.answers(code)
				settle(500 * time.Millisecond)
				w.expect(t, "a", discovery.ReasonOK)
			}
			w.say(answerOf(7, "b"))
			settle(2 * time.Second) // b denies it
			w.expect(t, "b", discovery.ReasonOK)
			w.say(answerOf(8, "a"))
			a.answers(200)
			settle(time.Second)
			w.expect(t, "a", discovery.ReasonOK)
			a.answers(code) // a new mark, and a new wait
			settle(500 * time.Millisecond)
			w.expect(t, "", discovery.ReasonNoActive)
		})
	}
}
