// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the watch loop, in synthetic time and against a scripted source.

package vaultredirect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// scripted is a source whose answers a test writes. It answers queries with an index as Consul does: when there is
// something newer, or when the wait is over.
type scripted struct {
	mu      sync.Mutex
	answer  Answer
	err     error
	noBlock bool            // answers at once, index or not
	hang    bool            // answers never
	changed chan struct{}   // closed by set
	asked   []scriptedQuery // what came
	closed  bool
}

type scriptedQuery struct {
	at    time.Time
	index uint64
	limit time.Duration // of its context
}

func newScripted(a Answer) *scripted { return &scripted{answer: a, changed: make(chan struct{})} }

func (s *scripted) set(f func(*scripted)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *scripted) Query(ctx context.Context, index uint64, wait time.Duration) (Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	deadline, _ := ctx.Deadline()
	s.asked = append(s.asked, scriptedQuery{time.Now(), index, time.Until(deadline)})
	over := time.After(wait)
	for s.hang || s.err == nil && !s.noBlock && index > 0 && s.answer.Index == index {
		changed := s.changed
		s.mu.Unlock()
		waited := false
		select {
		case <-changed:
		case <-over:
			waited = true
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return Answer{}, ctx.Err()
		}
		if waited && !s.hang {
			break
		}
	}
	return s.answer, s.err
}

func (s *scripted) Close() { s.closed = true }

func (s *scripted) queries() []scriptedQuery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]scriptedQuery(nil), s.asked...)
}

// Discovery, so that a scripted source can be acquired from the pool.

func (s *scripted) Key() string { return fmt.Sprintf("scripted:%p", s) }

func (s *scripted) Selection() Selection {
	return Selection{Mode: selectTag, Tag: "active", Service: "vault"}
}
func (s *scripted) MaxWait() time.Duration { return 30 * time.Second }
func (s *scripted) Endpoint() string       { return "scripted" }
func (s *scripted) Open() (Source, error)  { return s, nil }

// answerOf has nodes a, b and c, of which one is active.
func answerOf(index uint64, active string) Answer {
	a := Answer{Index: index}
	for _, name := range []string{"a", "b", "c"} {
		n := Node{Name: name, ID: "vault", Port: 8200, Tags: []string{"standby"}}
		if name == active {
			n.Tags, n.Index = []string{"active"}, index
		}
		a.Nodes = append(a.Nodes, n)
	}
	return a
}

// watched is a started watcher with one view.
type watched struct {
	*scripted
	view *view
	logs *observer.ObservedLogs
}

func watch(t *testing.T, s *scripted, maxStale time.Duration) watched {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	v, err := acquire(s, viewConfig{policy: policy{selection: s.Selection(), addressing: addressing{"https", toNodeName, 0}}, maxStale: maxStale}, log)
	if err != nil {
		t.Fatal(err)
	}
	v.start()
	t.Cleanup(func() {
		if err := v.release(log); err != nil {
			t.Error(err)
		}
		if !s.closed {
			t.Error("the source was not closed")
		}
	})
	synctest.Wait()
	return watched{s, v, logs}
}

// expect checks the state as readers see it now.
func (w watched) expect(t *testing.T, active string, reason Reason) {
	t.Helper()
	s, got := w.view.current.Load(), ""
	if s.active() {
		got = s.node.Name
	}
	if got != active || s.reasonAt(time.Now()) != reason {
		t.Fatalf("active %q, reason %s, want %q, %s (%s)", got, s.reasonAt(time.Now()), active, reason, s.detail)
	}
}

func TestWatcherFollowsChangesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		w.expect(t, "a", ReasonOK)
		began := time.Now()
		time.Sleep(7 * time.Second) // synthetic
		w.set(func(s *scripted) { s.answer = answerOf(6, "b") })
		synctest.Wait()
		w.expect(t, "b", ReasonOK)
		if asked := w.queries(); len(asked) != 3 || asked[0].index != 0 || asked[1].index != 5 || asked[2].index != 6 {
			t.Errorf("queries %v, want indexes 0, 5, 6", asked)
		}
		if polled := w.view.current.Load().polled; polled.Sub(began) != 7*time.Second {
			t.Errorf("polled after %s, want 7s", polled.Sub(began))
		}
		if n := w.view.current.Load().changes; n != 2 {
			t.Errorf("%d changes, want 2", n)
		}
	})
}

func TestWatcherPollsAtLeastEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		time.Sleep(5*time.Minute + time.Second)
		if n := len(w.queries()); n != 12 {
			t.Errorf("%d queries in five minutes, want 12: one at the start, and one each 30s", n)
		}
	})
}

func TestWatcherIndexRules(t *testing.T) {
	t.Run("backwards", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := watch(t, newScripted(answerOf(500, "a")), time.Minute)
			w.set(func(s *scripted) { s.answer = answerOf(3, "b") })
			synctest.Wait()
			w.expect(t, "b", ReasonOK)
			if asked := w.queries(); len(asked) != 4 || asked[2].index != 0 || asked[3].index != 3 {
				t.Errorf("queries %v, want the last two with indexes 0 and 3", asked)
			}
		})
	})
	polls := map[string]func(*scripted){
		"no index":               func(s *scripted) { s.answer.Index = 0 },
		"answers without a wait": func(s *scripted) { s.noBlock = true },
	}
	for name, fault := range polls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(answerOf(5, "a"))
				fault(s)
				w := watch(t, s, time.Minute)
				began := len(w.queries())
				if began > 4 {
					t.Errorf("%d queries at once", began)
				}
				time.Sleep(5*time.Minute + time.Second)
				if n := len(w.queries()) - began; n != 10 {
					t.Errorf("%d queries in five minutes, want 10: one each 30s", n)
				}
				// Changes are still seen, at the next query.
				w.set(func(s *scripted) { s.answer.Nodes = answerOf(9, "c").Nodes })
				time.Sleep(30 * time.Second)
				synctest.Wait()
				w.expect(t, "c", ReasonOK)
			})
		})
	}
	t.Run("waits again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted(answerOf(5, "a"))
			s.noBlock = true
			w := watch(t, s, time.Minute)
			w.set(func(s *scripted) { s.noBlock, s.answer = false, answerOf(6, "a") })
			time.Sleep(31 * time.Second)
			w.set(func(s *scripted) { s.answer = answerOf(7, "b") })
			synctest.Wait()
			w.expect(t, "b", ReasonOK)
		})
	})
}

func TestWatcherBoundsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(1, "a")), time.Minute)
		const seconds = 10
		for i := range 200 * seconds {
			w.set(func(s *scripted) { s.answer = answerOf(uint64(i+2), string(rune('a'+i%3))) })
			time.Sleep(time.Second / 200)
		}
		if n := len(w.queries()); n > queryBurst+2*seconds+1 {
			t.Errorf("%d queries in %d s of churn, want at most a burst of %d and 2 a second", n, seconds, queryBurst)
		}
		time.Sleep(time.Second)
		w.expect(t, string(rune('a'+(200*seconds-1)%3)), ReasonOK)
	})
}

func TestWatcherOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		began := time.Now()
		w.set(func(s *scripted) { s.err = &QueryError{ReasonConsulUnreachable, errors.New("refused")} })
		synctest.Wait()
		w.expect(t, "a", ReasonConsulUnreachable)
		if s := w.view.current.Load(); !s.stale.Equal(began) {
			t.Errorf("stale since %s, want %s", s.stale, began)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		w.expect(t, "a", ReasonConsulUnreachable)
		time.Sleep(time.Nanosecond)
		w.expect(t, "", ReasonStaleExpired)
		time.Sleep(time.Hour)
		w.expect(t, "", ReasonStaleExpired)

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
		w.expect(t, "a", ReasonOK)

		for message, level := range map[string]zapcore.Level{
			"discovery failed": zap.WarnLevel, "discovery answers again": zap.InfoLevel, "no active node": zap.WarnLevel,
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
		w := watch(t, newScripted(answerOf(5, "a")), 0)
		w.set(func(s *scripted) { s.err = errors.New("no") })
		synctest.Wait()
		w.expect(t, "", ReasonStaleExpired)
	})
}

func TestWatcherUnprovenAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		// What is missing may merely be hidden,
		w.set(func(s *scripted) { s.answer = Answer{Index: 6, Doubt: ReasonACLFiltered} })
		synctest.Wait()
		w.expect(t, "a", ReasonACLFiltered)
		// through a failure, too.
		w.set(func(s *scripted) { s.err = errors.New("no") })
		synctest.Wait()
		w.expect(t, "a", ReasonConsulError)
		w.set(func(s *scripted) { s.err = nil })
		time.Sleep(59 * time.Second)
		w.expect(t, "a", ReasonACLFiltered)
		time.Sleep(time.Second)
		w.expect(t, "", ReasonStaleExpired)
		// What is there is good,
		w.set(func(s *scripted) { s.answer = answerOf(7, "b"); s.answer.Doubt = ReasonACLFiltered })
		synctest.Wait()
		w.expect(t, "b", ReasonOK)
		// and an answer without doubt is proof.
		w.set(func(s *scripted) { s.answer = Answer{Index: 8} })
		synctest.Wait()
		w.expect(t, "", ReasonNoService)
		w.set(func(s *scripted) { s.err = errors.New("no") })
		synctest.Wait()
		w.expect(t, "", ReasonConsulError)
	})
}

// What a doubtful answer does show is no matter of doubt.
func TestWatcherDropsANodeThatADoubtfulAnswerShowsAsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		w.set(func(s *scripted) {
			s.answer = answerOf(6, "a")
			s.answer.Doubt = ReasonACLFiltered
			s.answer.Nodes[0].Checks = []Check{{ID: "serfHealth", Status: "critical"}}
		})
		synctest.Wait()
		w.expect(t, "", ReasonACLFiltered)
		if n := w.logs.FilterMessage("discovery may not tell all").Len(); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
	})
}

func TestWatcherQueriesHaveDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), 10*time.Minute)
		w.set(func(s *scripted) { s.hang = true })
		time.Sleep(time.Minute)
		w.expect(t, "a", ReasonConsulError)
		asked := w.queries()
		if asked[1].limit != 30*time.Second+30*time.Second/16+querySlack || asked[2].limit != querySlack {
			t.Errorf("limits %s and %s", asked[1].limit, asked[2].limit)
		}
		// The time that a query hung counts as backoff: the truth is back soon after the source is.
		w.set(func(s *scripted) { s.hang, s.answer = false, answerOf(6, "b") })
		time.Sleep(querySlack + time.Second)
		w.expect(t, "b", ReasonOK)
	})
}

func TestRequestsWaitForTheFirstAnswer(t *testing.T) {
	t.Run("answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted(answerOf(5, "a"))
			s.hang = true
			w := watch(t, s, time.Minute)
			time.AfterFunc(startGrace/2, func() { w.set(func(s *scripted) { s.hang = false }) })
			if st := w.view.load(t.Context()); !st.active() {
				t.Errorf("reason %s, want a node", st.reason)
			}
		})
	})
	t.Run("no answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted(answerOf(5, "a"))
			s.hang = true
			w := watch(t, s, time.Minute)
			began := time.Now()
			if st := w.view.load(t.Context()); st.active() || st.reason != ReasonStarting || time.Since(began) != startGrace {
				t.Errorf("reason %s after %s, want %s after %s", st.reason, time.Since(began), ReasonStarting, startGrace)
			}
			// The grace is the watcher's, not each request's.
			began = time.Now()
			if w.view.load(t.Context()); time.Since(began) != 0 {
				t.Errorf("the second request waited %s", time.Since(began))
			}
		})
	})
}

func TestWatcherEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(answerOf(5, "a"))
		log := zap.NewNop()
		v, err := acquire(s, viewConfig{maxStale: time.Minute}, log)
		if err != nil {
			t.Fatal(err)
		}
		v.start()
		synctest.Wait()
		began := time.Now()
		if err := v.release(log); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) != 0 {
			t.Errorf("the end took %s", time.Since(began))
		}
	})
}

func TestHandlersShareWatchersAndViews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(answerOf(5, "a"))
		w := watch(t, s, time.Minute)
		references := func(want int) {
			t.Helper()
			if n, _ := watchers.References(s.Key()); n != want {
				t.Errorf("%d references to the watcher, want %d", n, want)
			}
		}
		references(1)

		same, other := zap.NewNop(), zap.New(zapcore.NewNopCore())
		v, err := acquire(s, w.view.viewConfig, same)
		if err != nil {
			t.Fatal(err)
		}
		if v != w.view {
			t.Error("handlers with one config have two views")
		}
		references(2)

		// A handler with another config, as after a reload in the midst of an outage: it starts where the others are.
		s.set(func(s *scripted) { s.err = errors.New("no") })
		synctest.Wait()
		time.Sleep(30 * time.Second)
		config := w.view.viewConfig
		config.addressing.scheme = "http"
		asked := len(s.queries())
		v2, err := acquire(s, config, other)
		if err != nil {
			t.Fatal(err)
		}
		v2.start()
		st := v2.current.Load()
		if !st.active() || st.target.url != "http://a:8200" || !st.stale.Equal(w.view.current.Load().stale) {
			t.Errorf("active %v, url %q, stale since %s", st.active(), st.target.url, st.stale)
		}
		if n := len(s.queries()); n != asked {
			t.Errorf("%d queries, want no new one", n-asked)
		}
		references(3)
		if err := errors.Join(v.release(same), v2.release(other)); err != nil {
			t.Error(err)
		}
		references(1)
		if n := len(w.view.watcher.views); n != 1 {
			t.Errorf("%d views, want 1", n)
		}
	})
}

func TestWatcherThatNeverStartedEnds(t *testing.T) {
	s, log := newScripted(Answer{}), zap.NewNop()
	v, err := acquire(s, viewConfig{}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.release(log); err != nil {
		t.Fatal(err)
	}
	if len(s.queries()) != 0 || !s.closed {
		t.Errorf("%d queries, closed %v", len(s.queries()), s.closed)
	}
}

// Log lines go to the logger of a config that is still in use.
func TestLoggersFollowReloads(t *testing.T) {
	var l loggers
	l.latest().Info("nobody hears this")
	core1, logs1 := observer.New(zap.InfoLevel)
	core2, logs2 := observer.New(zap.InfoLevel)
	old, next := zap.New(core1), zap.New(core2)
	l.add(old)
	l.add(next)
	l.latest().Info("to the next")
	l.remove(next) // its config failed
	l.latest().Info("to the old")
	l.add(next)
	l.remove(old)
	l.latest().Info("to the next")
	if logs1.Len() != 1 || logs2.Len() != 2 {
		t.Errorf("%d and %d lines, want 1 and 2", logs1.Len(), logs2.Len())
	}
}

func TestWatcherRefusesInstancesThatAreTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		w.set(func(s *scripted) {
			s.answer = answerOf(6, "b")
			s.answer.Nodes = append(s.answer.Nodes, s.answer.Nodes[0])
		})
		synctest.Wait()
		w.expect(t, "a", ReasonConsulError)
	})
}

// In an outage, a view that selects otherwise does not start from what another one has elected.
func TestViewsThatSelectOtherwiseStartAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		w.set(func(s *scripted) { s.answer = Answer{Index: 6, Doubt: ReasonACLFiltered} })
		synctest.Wait()
		w.expect(t, "a", ReasonACLFiltered)
		config, log := w.view.viewConfig, zap.NewNop()
		config.selection.Tag = "other"
		v, err := acquire(w.scripted, config, log)
		if err != nil {
			t.Fatal(err)
		}
		if s := v.current.Load(); s.active() {
			t.Errorf("active at %s", s.target.url)
		}
		if err := v.release(log); err != nil {
			t.Error(err)
		}
	})
}
