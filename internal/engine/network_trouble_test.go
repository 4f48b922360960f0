// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of trouble on this machine, which is none of the nodes'.

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
