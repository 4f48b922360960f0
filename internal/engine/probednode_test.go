// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

var idA = discovery.Identity{Name: "a", ID: "vault"}

// Two nodes say that they are active. When one of them dies, the other is asked before it is believed.
func TestVerdictsAge(t *testing.T) {
	for name, end := range map[string]func(*network, *watched){
		"it dies":         func(n *network, _ *watched) { n.node("a").kill() },
		"it steps down":   func(n *network, _ *watched) { n.node("a").answers(429) },
		"it hangs":        func(n *network, _ *watched) { n.node("a").hangs(true) },
		"it is no longer": func(_ *network, w *watched) { w.set(func(s *scripted) { s.answer = answerOf(7, "", only("b", "c")) }) },
		"it moves": func(_ *network, w *watched) {
			w.set(func(s *scripted) {
				s.answer = answerOf(7, "", with("a", func(n *discovery.Node) { n.Port = 1 }))
			})
		},
		"maintenance": func(_ *network, w *watched) {
			w.set(func(s *scripted) {
				s.answer = answerOf(7, "a", with("a", withNodeCheck("_node_maintenance", "critical")))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t)
				b := n.node("b")
				b.answers(200)
				settle(5 * time.Second)
				w.expect(t, "a", discovery.ReasonOK)
				if c := w.State().Candidates; c != 2 {
					t.Fatalf("%d candidates, want 2", c)
				}
				b.answers(429)               // which no probe has seen yet
				time.Sleep(time.Millisecond) // the probes of this moment are over
				end(n, w)
				for range 6000 {
					synctest.Wait()
					if active := activeOf(w.State()); active == "b" {
						t.Fatal("a standby was elected by what it said before")
					}
					time.Sleep(time.Millisecond)
				}
				b.answers(200)
				settle(5 * time.Second)
				w.expect(t, "b", discovery.ReasonOK)
			})
		})
	}
}

// A new claim makes the cluster probe the node at once that was active until now.
func TestASecondClaimHasTheFirstAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t, every(time.Minute))
		n.node("a").answers(429)
		n.node("b").answers(200)
		settle(10*time.Second + 10*time.Millisecond) // the next probe of a standby; that of a is due in a minute
		w.expect(t, "b", discovery.ReasonOK)
	})
}

// News of the active node makes the cluster probe it, and changes nothing until it has answered.
func TestAFlappingCheckLosesNothing(t *testing.T) {
	for _, mode := range []Mode{ProbeAuto, ProbeStrict} {
		t.Run(string(mode), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { flap(t, mode) }) })
	}
}

func flap(t *testing.T, mode Mode) {
	t.Helper()
	n, w := probedCluster(t, probing(mode))
	n.node("a").set(func(v *vault) { v.delay = 80 * time.Millisecond })
	settle(10 * time.Second)
	began, changes := w.State().Since, w.State().Changes
	for i := range 100 {
		status := []string{"passing", "warning"}[i%2]
		w.say(answerOf(uint64(6+i), "a", with("a", withNodeCheck("disk", status))))
		for range 100 {
			if s := w.State(); s.Phase().Situation != Active {
				t.Fatalf("phase %v, %s: %s", s.Phase(), s.reason, s.Detail)
			}
			settle(7 * time.Millisecond)
		}
	}
	if s := w.State(); !s.Since.Equal(began) || s.Changes != changes {
		t.Errorf("active since %s instead of %s, %d changes", s.Since, began, s.Changes-changes)
	}
	if n := w.lines("no active node"); n != 0 {
		t.Errorf("%d warnings", n)
	}
}

// A check that has merely passed again, and so has a new index, says nothing new.
func TestNewIndexesAreNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		settle(100 * time.Millisecond)
		before := n.node("a").probes()
		for i := range 8 {
			w.say(answerOf(uint64(6+i), "a", with("b", withCheck("api", "passing", uint64(i)))))
		}
		if asked := n.node("a").probes() - before; asked != 0 {
			t.Errorf("%d probes of the active node between two that are due", asked)
		}
		w.expect(t, "a", discovery.ReasonOK)
	})
}

// What is silence depends on what the node's answers usually take.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		a := n.node("a")
		q := &Queue{Hold: time.Minute, Most: 10}
		slow := func(d time.Duration) { a.set(func(v *vault) { v.delay = d }) }
		waits := func(within time.Duration) (waited int) {
			for range within / (10 * time.Millisecond) {
				if w.State().Phase().Situation == Silent {
					waited++
				}
				settle(10 * time.Millisecond)
			}
			return waited
		}
		if n := waits(2 * time.Second); n != 0 {
			t.Errorf("silent %d times although it answers at once", n)
		}
		slow(90 * time.Millisecond)
		if n := waits(2 * time.Second); n != 0 {
			t.Errorf("silent %d times although it answers in 90ms", n)
		}
		slow(250 * time.Millisecond) // 270ms would be three times the usual
		if n := waits(5 * time.Second); n != 0 {
			t.Errorf("silent %d times although it answers within three times the usual", n)
		}
		slow(0)
		a.hangs(true)
		settle(time.Second + 50*time.Millisecond)
		if p := w.State().Phase(); p.Situation != Silent {
			t.Fatalf("phase %v, want silent", p)
		}
		w.expect(t, "a", discovery.ReasonOK) // it is redirected to where nothing listens
		if got := request(t.Context(), w.View, &Queue{}); got != (outcome{"a", 0}) {
			t.Errorf("without hold: %+v", got)
		}
		time.AfterFunc(100*time.Millisecond, func() { a.hangs(false) })
		if got := request(t.Context(), w.View, q); got != (outcome{"a", 100 * time.Millisecond}) {
			t.Errorf("%+v, want a as soon as it has answered", got)
		}
	})
}

// A request that waits for a silent node goes to the next one if the silence is death, or another one is active.
func TestSilenceEnds(t *testing.T) {
	for name, end := range map[string]func(a, b *vault){
		"it stepped down": func(a, b *vault) { b.answers(200); a.answers(429); a.hangs(false) },
		"it was killed":   func(a, b *vault) { b.answers(200); a.kill() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t)
				n.node("a").hangs(true)
				settle(time.Second)
				time.AfterFunc(100*time.Millisecond, func() { end(n.node("a"), n.node("b")) })
				got := request(t.Context(), w.View, &Queue{Hold: time.Minute, Most: 10})
				if got.active != "b" || got.after > 200*time.Millisecond {
					t.Errorf("%+v, want b soon", got)
				}
			})
		})
	}
}

// A standby whose connection broke, and which becomes the active node later, begins with a clean slate.
func TestOldBreaksOfAStandbyDoNotMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		n.node("b").cut()
		settle(time.Second)
		n.node("a").answers(429)
		n.node("b").answers(200)
		settle(time.Second)
		w.expect(t, "b", discovery.ReasonOK)
		n.node("c").cut() // a break elsewhere
		synctest.Wait()
		if p := w.State().Phase(); p.Situation != Active {
			t.Errorf("phase %v", p)
		}
		n.node("b").kill() // and its own death is seen at once
		synctest.Wait()
		w.expect(t, "", discovery.ReasonNoActive)
	})
}

// The search begins at once when discovery takes the active node away without anything new of it.
func TestTheSearchBeginsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t, every(time.Minute))
		w.say(answerOf(6, "a", with("a", withNodeCheck("_node_maintenance", "critical"))))
		w.expect(t, "", discovery.ReasonUnhealthy)
		n.node("b").answers(200)
		settle(100 * time.Millisecond)
		w.expect(t, "b", discovery.ReasonOK)
	})
}

// So many probes in a row that time out, and the node is dead; one that is answered in between begins anew.
func TestFall(t *testing.T) {
	for fall := 1; fall <= 4; fall++ {
		t.Run(fmt.Sprint(fall), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t, func(c *Config) { c.Probe.Fall = fall })
				a := n.node("a")
				settle(10 * time.Millisecond)
				a.hangs(true) // the next probe begins in 490ms
				settle(490*time.Millisecond + time.Duration(fall)*time.Second - time.Millisecond)
				w.expect(t, "a", discovery.ReasonOK)
				settle(2 * time.Millisecond)
				w.expect(t, "", discovery.ReasonUnhealthy)
				if s := w.member(idA).probed; s.silence.unanswered != fall {
					t.Errorf("%d probes unanswered, want %d", s.silence.unanswered, fall)
				}
			})
		})
	}
}

// A failure that is the same each time, but for the ports of this machine, is no news that would wake all requests that wait.
func TestFailuresThatAreTheSameAreNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		n.node("a").kill()
		settle(time.Second)
		w.expect(t, "", discovery.ReasonUnhealthy)
		first, asked := w.State(), n.tries()
		settle(5 * time.Second)
		if w.State() != first || n.tries()-asked < 50 {
			t.Errorf("another state after %d probes that found the same", n.tries()-asked)
		}
	})
}

// A node that loses its mark is not redirected to any more, before it has said what it is now.
func TestALostMarkTakesTheWordWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		for _, name := range []string{"a", "b"} {
			n.node(name).set(func(v *vault) { v.delay = 50 * time.Millisecond })
		}
		settle(10*time.Second + 200*time.Millisecond) // between two probes
		n.node("a").answers(429)
		n.node("b").answers(200)
		w.say(answerOf(6, "b"))
		w.expect(t, "", discovery.ReasonNoActive)
		settle(50 * time.Millisecond)
		w.expect(t, "b", discovery.ReasonOK)
	})
}

// Silence ends with the answer, not with the next probe.
func TestSilenceEndsWithTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t, every(time.Minute))
		n.node("a").set(func(v *vault) { v.delay = 150 * time.Millisecond })
		settle(time.Minute + 120*time.Millisecond)
		if p := w.State().Phase(); p.Situation != Silent {
			t.Fatalf("phase %v, want silent", p)
		}
		settle(40 * time.Millisecond)
		if p := w.State().Phase(); p.Situation != Active {
			t.Errorf("phase %v, want active", p)
		}
	})
}
