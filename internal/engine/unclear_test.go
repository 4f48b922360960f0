// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

const quota = "request path \"sys/health\": rate limit quota exceeded"

// exceeds makes a node answer that a quota is exceeded, or its state again.
func exceeds(v *vault, code int) {
	v.set(func(v *vault) {
		v.code, v.errors = code, quota
		if code == 200 {
			v.errors = ""
		}
	})
}

// Vault that answers without its state lives: discovery decides.
func TestUnclearAnswersLeaveItToDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		for i := range 100 { // every third answer, for as many probes
			exceeds(n.node("a"), []int{200, 200, 429}[i%3])
			settle(500 * time.Millisecond)
			w.expect(t, "a", discovery.ReasonOK)
		}
		if lines := w.logs.Len(); lines > 5 {
			t.Errorf("%d lines are logged", lines)
		}
		exceeds(n.node("a"), 429)
		settle(10 * time.Minute)
		w.expect(t, "a", discovery.ReasonOK)
		w.say(answerOf(7, "b"))
		exceeds(n.node("b"), 429)
		settle(5 * time.Second)
		w.expect(t, "b", discovery.ReasonOK)
		n.node("b").kill()
		settle(time.Second)
		w.expect(t, "", discovery.ReasonUnhealthy)
	})
}

// Where nothing but the nodes' own word counts, the active node stays what it was, for at most max_stale, unless another one says
// that it is active.
func TestUnclearAnswersWithoutDiscovery(t *testing.T) {
	for _, another := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n, w := probedCluster(t, probing(ProbeStrict), func(c *Config) { c.MaxStale = 5 * time.Minute })
			for _, host := range []string{"a", "b", "c"} { // a quota on all nodes at once
				exceeds(n.node(host), 429)
			}
			settle(4 * time.Minute)
			w.expect(t, "a", discovery.ReasonOK)
			if another {
				exceeds(n.node("b"), 200)
				settle(20 * time.Second)
				w.expect(t, "b", discovery.ReasonOK)
				return
			}
			settle(2 * time.Minute)
			w.expect(t, "", discovery.ReasonUnhealthy)
			exceeds(n.node("a"), 200)
			settle(time.Second)
			w.expect(t, "a", discovery.ReasonOK)
		})
	}
}

// An address that is a redirector's is named for as long as it is there, no request waits for it, and a node that is active goes
// before it.
func TestRedirectorTakenForANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		n.node("a").set(func(v *vault) { v.redirector = true })
		for range 60 {
			settle(time.Second)
			s := w.State()
			if s.Loop != "http://a:8200" || s.ReasonAt(time.Now()) != discovery.ReasonBadAddress || s.Active() {
				t.Fatalf("loop %q, reason %s", s.Loop, s.ReasonAt(time.Now()))
			}
			if o := request(t.Context(), w.View, holding()); o.after != 0 {
				t.Fatalf("a request waited for %s", o.after)
			}
		}
		n.node("b").answers(200)
		settle(10 * time.Second)
		w.expect(t, "b", discovery.ReasonOK)
		if loop := w.State().Loop; loop != "" {
			t.Errorf("loop %q", loop)
		}
	})
}

// Among the URLs of nodes, one that is a redirector's says nothing of where the active node is: requests wait for that.
func TestRedirectorAmongURLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.node("a").answers(200)
		s := newScripted(answerOf(5, "a"))
		s.selection = discovery.Selection{Mode: discovery.ByProbe}
		w := watch(t, p, s, plain(t, probing(ProbeStrict)))
		n.node("c").set(func(v *vault) { v.redirector = true })
		settle(20 * time.Second)
		w.expect(t, "a", discovery.ReasonOK)
		n.node("a").answers(429)
		settle(time.Second)
		if s := w.State(); s.Loop != "" || s.Active() {
			t.Errorf("loop %q", s.Loop)
		}
		for _, host := range []string{"a", "b"} {
			n.node(host).set(func(v *vault) { v.redirector = true })
		}
		settle(20 * time.Second)
		if s := w.State(); s.Loop == "" {
			t.Error("all are redirectors, and that is not said")
		}
	})
}
