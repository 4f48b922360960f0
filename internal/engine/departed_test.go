// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

const isNotRegistered = "active node is no longer registered: redirecting to it for as long as it says that it is active"

// A node whose registration is gone is the active one for as long as it says so itself, or until one that is registered does.
func TestRegistrationIsGone(t *testing.T) {
	for name, end := range map[string]struct {
		do     func(n *network, w *watched)
		active string
		reason discovery.Reason
	}{
		"it goes on":                 {func(*network, *watched) {}, "a", discovery.ReasonOK},
		"it steps down":              {func(n *network, _ *watched) { n.node("a").answers(429) }, "", discovery.ReasonNoActive},
		"it dies":                    {func(n *network, _ *watched) { n.node("a").kill() }, "", discovery.ReasonNoActive},
		"it is of another cluster":   {func(n *network, _ *watched) { n.node("a").set(func(v *vault) { v.cluster = "y" }) }, "", discovery.ReasonNoActive},
		"another one is active":      {func(n *network, _ *watched) { n.node("a").answers(429); n.node("b").answers(200) }, "b", discovery.ReasonOK},
		"another one is active, too": {func(n *network, _ *watched) { n.node("b").answers(200) }, "b", discovery.ReasonOK},
		"it comes back":              {func(_ *network, w *watched) { w.say(answerOf(8, "a")) }, "a", discovery.ReasonOK},
		"it comes back in maintenance": {func(_ *network, w *watched) {
			w.say(answerOf(8, "a", with("a", withNodeCheck("_node_maintenance", "critical"))))
		}, "", discovery.ReasonUnhealthy},
	} {
		for _, mode := range []Mode{ProbeAuto, ProbeStrict} {
			t.Run(name+"/"+string(mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, w := probedCluster(t, probing(mode))
					settle(5 * time.Second)
					w.say(answerOf(7, "", only("b", "c")))
					settle(time.Minute)
					w.expect(t, "a", discovery.ReasonOK)
					if s := w.State(); s.Nodes() != 2 || s.Detail == "" {
						t.Errorf("%d nodes, detail %q", s.Nodes(), s.Detail)
					}
					end.do(n, w)
					settle(30 * time.Second)
					w.expect(t, end.active, end.reason)
					if warned := w.lines(isNotRegistered); warned != 1 {
						t.Errorf("warned %d times", warned)
					}
				})
			})
		}
	}
}

// A Vault that stops closes its listener, removes its registration, and goes on answering on connections that it has. It is asked
// on a new one at once, rather than at the next interval.
func TestDepartedNodeIsAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		settle(5*time.Second + 10*time.Millisecond) // past a probe
		n.node("a").set(func(v *vault) { v.down = syscall.ECONNREFUSED })
		w.expect(t, "a", discovery.ReasonOK)
		w.say(answerOf(7, "", only("b", "c")))
		settle(time.Millisecond)
		w.expect(t, "", discovery.ReasonNoActive)
	})
}

// Nothing is registered any more.
func TestAllRegistrationsAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		w.say(discovery.Answer{Index: 7})
		settle(time.Minute)
		w.expect(t, "a", discovery.ReasonOK)
		n.node("a").kill()
		settle(time.Second)
		w.expect(t, "", discovery.ReasonNoService)
	})
}

// A node that is in maintenance when its registration goes stays out, as does one that does not prove that it is active.
func TestDepartedNodesThatStayOut(t *testing.T) {
	for name, begin := range map[string]func(*network, *watched){
		"maintenance": func(_ *network, w *watched) {
			w.say(answerOf(6, "a", with("a", withNodeCheck("_node_maintenance", "critical"))))
		},
		"a standby": func(n *network, _ *watched) { n.node("a").answers(429) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t)
				begin(n, w)
				settle(5 * time.Second)
				w.say(answerOf(7, "", only("b", "c")))
				settle(5 * time.Second)
				w.expect(t, "", discovery.ReasonNoActive)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // without probes, discovery alone says it
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.say(answerOf(7, "", only("b", "c")))
		w.expect(t, "", discovery.ReasonNoActive)
	})
}

// A reload changes nothing of that.
func TestDepartedNodeAfterAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.node("a").answers(200)
		s := newScripted(answerOf(5, "a"))
		w := watch(t, p, s, plain(t, probing(ProbeAuto)))
		settle(time.Second)
		w.say(answerOf(7, "", only("b", "c")))
		settle(time.Second)
		p.NextConfig()
		next := watch(t, p, s, plain(t, probing(ProbeAuto), every(time.Second)))
		w.release()
		settle(5 * time.Second)
		next.expect(t, "a", discovery.ReasonOK)
	})
}
