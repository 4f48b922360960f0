// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// What this machine has run out of says nothing of the nodes.
func TestErrorsOfThisMachineSayNothing(t *testing.T) {
	for _, mode := range []Mode{ProbeAuto, ProbeStrict} {
		t.Run(string(mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t, probing(mode))
				for _, host := range []string{"a", "b", "c"} {
					n.node(host).set(func(v *vault) { v.down = os.NewSyscallError("socket", syscall.EMFILE) })
				}
				settle(30 * time.Second)
				w.expect(t, "a", discovery.ReasonOK)
				if lost := w.lines("no active node"); lost != 0 {
					t.Errorf("lost %d times", lost)
				}
			})
		})
	}
}

// A route that is gone for a moment fails at once, three times within no time: that is no death.
func TestFailuresAtOnceTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		a := n.node("a")
		a.set(func(v *vault) { v.down = os.NewSyscallError("connect", syscall.ENETUNREACH) })
		settle(700 * time.Millisecond)
		a.set(func(v *vault) { v.down = nil })
		settle(time.Second)
		w.expect(t, "a", discovery.ReasonOK)
		if lost := w.lines("no active node"); lost != 0 {
			t.Errorf("lost %d times", lost)
		}
		a.set(func(v *vault) { v.down = os.NewSyscallError("connect", syscall.ENETUNREACH) })
		settle(2 * time.Second)
		w.expect(t, "", discovery.ReasonUnhealthy)
	})
}

// Where this machine has no descriptors left to find out why a node does not answer, it is not asked over and over.
func TestErrorsOfThisMachineAreNoHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		a := n.node("a")
		a.hangs(true)
		settle(1200 * time.Millisecond) // one probe has gone unanswered
		for _, host := range []string{"a", "b", "c"} {
			n.node(host).set(func(v *vault) { v.down = os.NewSyscallError("socket", syscall.EMFILE) })
		}
		before := n.tries()
		settle(10 * time.Second)
		if tried := n.tries() - before; tried > 100 {
			t.Errorf("%d connections were tried within 10s", tried)
		}
		a.set(func(v *vault) { v.down, v.hang = nil, false })
		settle(time.Second)
		w.expect(t, "a", discovery.ReasonOK)
	})
}
