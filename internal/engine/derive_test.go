// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

func TestWatcherOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		began := time.Now()
		w.set(func(s *scripted) {
			s.err = &discovery.Error{Reason: discovery.ReasonConsulUnreachable, Err: errors.New("refused")}
		})
		synctest.Wait()
		w.expect(t, "a", discovery.ReasonConsulUnreachable)
		if s := w.State(); !s.StaleSince.Equal(began) {
			t.Errorf("stale since %s, want %s", s.StaleSince, began)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		w.expect(t, "a", discovery.ReasonConsulUnreachable)
		time.Sleep(time.Nanosecond)
		w.expect(t, "", discovery.ReasonStaleExpired)
		time.Sleep(time.Hour)
		w.expect(t, "", discovery.ReasonStaleExpired)

		asked := w.queries()
		for i := 2; i < len(asked); i++ {
			if gap := asked[i].at.Sub(asked[i-1].at); gap > backoffMax+time.Millisecond {
				t.Errorf("%s between two queries: never give up, and try every %s", gap, backoffMax)
			}
			if asked[i].index != 0 {
				t.Errorf("index %d after a failure, want none", asked[i].index)
			}
		}
		w.set(func(s *scripted) { s.err = nil })
		time.Sleep(backoffMax + time.Millisecond)
		w.expect(t, "a", discovery.ReasonOK)

		for message, level := range map[string]zapcore.Level{
			"discovery failed": zap.WarnLevel, "discovery recovered": zap.InfoLevel, "no active node": zap.WarnLevel,
		} {
			if n := w.logs.FilterMessage(message).FilterLevelExact(level).Len(); n != 1 {
				t.Errorf("%d lines %q at %s, want 1", n, message, level)
			}
		}
		if n := w.logs.FilterMessage("active node").Len(); n != 2 {
			t.Errorf("%d lines %q, want 2", n, "active node")
		}
	})
}

func TestWatcherMaxStaleZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t, func(c *Config) { c.MaxStale = 0 }))
		w.set(func(s *scripted) { s.err = errors.New("no") })
		synctest.Wait()
		w.expect(t, "", discovery.ReasonStaleExpired)
	})
}

func TestWatcherUnprovenAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		// What is missing may merely be hidden,
		w.set(func(s *scripted) { s.answer = discovery.Answer{Index: 6, Incomplete: discovery.ReasonACLFiltered} })
		synctest.Wait()
		w.expect(t, "a", discovery.ReasonACLFiltered)
		// through a failure, too.
		w.set(func(s *scripted) { s.err = errors.New("no") })
		synctest.Wait()
		w.expect(t, "a", discovery.ReasonConsulError)
		w.set(func(s *scripted) { s.err = nil })
		time.Sleep(59 * time.Second)
		w.expect(t, "a", discovery.ReasonACLFiltered)
		time.Sleep(time.Second)
		w.expect(t, "", discovery.ReasonStaleExpired)
		// What is there is good,
		w.set(func(s *scripted) { s.answer = answerOf(7, "b"); s.answer.Incomplete = discovery.ReasonACLFiltered })
		synctest.Wait()
		w.expect(t, "b", discovery.ReasonOK)
		// and a complete answer is proof.
		w.set(func(s *scripted) { s.answer = discovery.Answer{Index: 8} })
		synctest.Wait()
		w.expect(t, "", discovery.ReasonNoService)
		w.set(func(s *scripted) { s.err = errors.New("no") })
		synctest.Wait()
		w.expect(t, "", discovery.ReasonConsulError)
	})
}

// Nodes may be missing from an incomplete answer, but those that it has are right.
func TestWatcherDropsANodeThatAnIncompleteAnswerShowsAsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.set(func(s *scripted) {
			s.answer = answerOf(6, "a")
			s.answer.Incomplete = discovery.ReasonACLFiltered
			s.answer.Nodes[0].Checks = []discovery.Check{{ID: "serfHealth", Status: "critical"}}
		})
		synctest.Wait()
		w.expect(t, "", discovery.ReasonACLFiltered)
		if n := w.logs.FilterMessage("discovery answer incomplete").Len(); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
	})
}

// An answer of a server without a leader is the last one before an outage, whatever it shows, and whatever follows.
func TestAnswersWithoutLeaderExpire(t *testing.T) {
	noLeader := incomplete(discovery.ReasonConsulError)
	for name, answer := range map[string]discovery.Answer{
		"frozen":  answerOf(5, "a", noLeader),
		"hiding":  answerOf(5, "a", noLeader, only("b")),
		"emptied": {Index: 5, Incomplete: discovery.ReasonConsulError},
		"no mark": answerOf(5, "", noLeader),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t, NewPool(), newScripted(answerOf(4, "a")), plain(t))
				began := time.Now()
				w.say(answer)
				for range 59 {
					w.expect(t, "a", discovery.ReasonConsulError)
					if s := w.State(); !s.StaleSince.Equal(began) || s.Phase() != (Phase{Stale, began.Add(time.Minute)}) {
						t.Fatalf("stale since %s, phase %v", s.StaleSince, s.Phase())
					}
					settle(time.Second)
				}
				settle(time.Second)
				w.expect(t, "", discovery.ReasonStaleExpired)
				settle(time.Hour)
				w.expect(t, "", discovery.ReasonStaleExpired)
				w.say(answerOf(9, "b"))
				settle(backoffMax)
				w.expect(t, "b", discovery.ReasonOK)
				if s := w.State(); !s.StaleSince.IsZero() {
					t.Errorf("stale since %s", s.StaleSince)
				}
			})
		})
	}
}

// Incomplete answers take no node from the probes: one that says that it is active proves it, seen or hidden.
func TestIncompleteAnswersWithProbes(t *testing.T) {
	for name, reason := range map[string]discovery.Reason{"filtered": discovery.ReasonACLFiltered, "no leader": discovery.ReasonConsulError} {
		for shown, only := range map[string]func(*discovery.Answer){
			"nothing": only(), "a standby": only("b"), "all": only("a", "b", "c"),
		} {
			t.Run(name+", shows "+shown, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, w := probedCluster(t)
					w.set(func(s *scripted) { s.answer = answerOf(6, "a", only, incomplete(reason)) })
					active := func(want string) {
						t.Helper()
						s := w.State()
						if activeOf(s) != want || want != "" && (s.Phase().Situation != Active || s.By != ByProbe || !s.StaleSince.IsZero()) {
							t.Fatalf("active %q (%v) by %s, stale since %s, want %q", activeOf(s), s.Phase(), s.By, s.StaleSince, want)
						}
					}
					for range 120 { // twice max_stale
						active("a")
						settle(time.Second)
					}
					n.node("a").answers(429)
					settle(500 * time.Millisecond)
					active("")
					n.node("c").answers(200)
					settle(time.Second)
					active("c")
				})
			})
		}
	}
}

// What has expired is a state of its own, with a line in the log and a place in the history.
func TestExpiryIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t, func(c *Config) { c.MaxStale = 5 * time.Second }))
		w.say(discovery.Answer{Index: 6, Incomplete: discovery.ReasonACLFiltered})
		settle(5 * time.Second) // and no query ends at this moment
		if n := w.lines("no active node"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
		last := w.History()[0]
		if last.Kind != ActiveLost || last.Reason != discovery.ReasonStaleExpired || last.Previous != "a" || time.Since(last.At) != 0 {
			t.Errorf("%+v", last)
		}
		if s := w.State(); s.phase != (Phase{None, time.Now()}) || !s.Since.Equal(time.Now()) {
			t.Errorf("phase %v since %s", s.phase, s.Since)
		}
	})
}
