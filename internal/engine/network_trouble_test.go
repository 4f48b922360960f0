// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"net/http"
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

// A step-down is followed although this machine can open no more connections: by the connections that probes have kept, and where
// there is none, by discovery alone. The log says what is wrong, once.
func TestStepDownWithoutDescriptors(t *testing.T) {
	for _, row := range []struct {
		name string
		kept bool
		mode Mode
	}{{"with kept connections", true, ProbeAuto}, {"with kept connections, strict", true, ProbeStrict}, {"without", false, ProbeAuto}} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t, probing(row.mode))
				settle(30 * time.Second)
				for _, host := range []string{"a", "b", "c"} {
					n.node(host).set(func(v *vault) { v.down = os.NewSyscallError("socket", syscall.EMFILE) })
					if !row.kept {
						n.node(host).cut()
					}
				}
				settle(time.Second)
				n.node("a").answers(http.StatusTooManyRequests)
				n.node("b").answers(http.StatusOK)
				w.say(answerOf(6, "b"))
				settle(10 * time.Second)
				w.expect(t, "b", discovery.ReasonOK)
				if warned := w.lines("probes cannot open connections: this process is at a limit of its machine, such as that of open files"); warned != 1 {
					t.Errorf("warned %d times", warned)
				}
				for _, host := range []string{"a", "b", "c"} {
					n.node(host).revive()
				}
				settle(10 * time.Second)
				w.expect(t, "b", discovery.ReasonOK)
				if told := w.lines("probes can open connections again"); told != 1 {
					t.Errorf("told of its end %d times", told)
				}
			})
		})
	}
}
