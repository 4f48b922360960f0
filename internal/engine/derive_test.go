// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of what a state is worth: outages, stale nodes, doubtful answers.

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
		w.set(func(s *scripted) { s.answer = discovery.Answer{Index: 6, Doubt: discovery.ReasonACLFiltered} })
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
		w.set(func(s *scripted) { s.answer = answerOf(7, "b"); s.answer.Doubt = discovery.ReasonACLFiltered })
		synctest.Wait()
		w.expect(t, "b", discovery.ReasonOK)
		// and an answer without doubt is proof.
		w.set(func(s *scripted) { s.answer = discovery.Answer{Index: 8} })
		synctest.Wait()
		w.expect(t, "", discovery.ReasonNoService)
		w.set(func(s *scripted) { s.err = errors.New("no") })
		synctest.Wait()
		w.expect(t, "", discovery.ReasonConsulError)
	})
}

// What a doubtful answer does show is no matter of doubt.
func TestWatcherDropsANodeThatADoubtfulAnswerShowsAsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.set(func(s *scripted) {
			s.answer = answerOf(6, "a")
			s.answer.Doubt = discovery.ReasonACLFiltered
			s.answer.Nodes[0].Checks = []discovery.Check{{ID: "serfHealth", Status: "critical"}}
		})
		synctest.Wait()
		w.expect(t, "", discovery.ReasonACLFiltered)
		if n := w.logs.FilterMessage("discovery answer incomplete").Len(); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
	})
}
