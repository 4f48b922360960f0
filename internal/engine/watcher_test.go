// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

func TestWatcherFollowsChangesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.expect(t, "a", discovery.ReasonOK)
		began := time.Now()
		time.Sleep(7 * time.Second) // synthetic
		w.set(func(s *scripted) { s.answer = answerOf(6, "b") })
		synctest.Wait()
		w.expect(t, "b", discovery.ReasonOK)
		if asked := w.queries(); len(asked) != 3 || asked[0].index != 0 || asked[1].index != 5 || asked[2].index != 6 {
			t.Errorf("queries %v, want indexes 0, 5, 6", asked)
		}
		if polled := w.State().Polled; polled.Sub(began) != 7*time.Second {
			t.Errorf("polled after %s, want 7s", polled.Sub(began))
		}
		if n := w.State().Changes; n != 2 {
			t.Errorf("%d changes, want 2", n)
		}
	})
}

func TestWatcherPollsAtLeastEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		time.Sleep(5*time.Minute + time.Second)
		if n := len(w.queries()); n != 12 {
			t.Errorf("%d queries in five minutes, want 12: one at the start, and one each 30s", n)
		}
	})
}

func TestWatcherIndexRules(t *testing.T) {
	t.Run("backwards", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := watch(t, NewPool(), newScripted(answerOf(500, "a")), plain(t))
			w.set(func(s *scripted) { s.answer = answerOf(3, "b") })
			synctest.Wait()
			w.expect(t, "b", discovery.ReasonOK)
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
				w := watch(t, NewPool(), s, plain(t))
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
				w.expect(t, "c", discovery.ReasonOK)
			})
		})
	}
	t.Run("waits again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted(answerOf(5, "a"))
			s.noBlock = true
			w := watch(t, NewPool(), s, plain(t))
			w.set(func(s *scripted) { s.noBlock, s.answer = false, answerOf(6, "a") })
			time.Sleep(31 * time.Second)
			w.set(func(s *scripted) { s.answer = answerOf(7, "b") })
			synctest.Wait()
			w.expect(t, "b", discovery.ReasonOK)
		})
	})
}

func TestWatcherBoundsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(1, "a")), plain(t))
		const seconds = 10
		for i := range 200 * seconds {
			w.set(func(s *scripted) { s.answer = answerOf(uint64(i+2), string(rune('a'+i%3))) })
			time.Sleep(time.Second / 200)
		}
		if n := len(w.queries()); n > queryBurst+2*seconds+1 {
			t.Errorf("%d queries in %d s of churn, want at most a burst of %d and 2 a second", n, seconds, queryBurst)
		}
		time.Sleep(time.Second)
		w.expect(t, string(rune('a'+(200*seconds-1)%3)), discovery.ReasonOK)
	})
}

func TestWatcherQueriesHaveDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t, func(c *Config) { c.MaxStale = 10 * time.Minute }))
		w.set(func(s *scripted) { s.hang = true })
		time.Sleep(time.Minute)
		w.expect(t, "a", discovery.ReasonConsulError)
		asked := w.queries()
		if asked[1].limit != 30*time.Second+30*time.Second/16+querySlack || asked[2].limit != querySlack {
			t.Errorf("limits %s and %s", asked[1].limit, asked[2].limit)
		}
		// The time that a query hung counts as backoff: the truth is back soon after the source is.
		w.set(func(s *scripted) { s.hang, s.answer = false, answerOf(6, "b") })
		time.Sleep(querySlack + time.Second)
		w.expect(t, "b", discovery.ReasonOK)
	})
}

func TestWatcherRefusesInstancesThatAreTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.set(func(s *scripted) {
			s.answer = answerOf(6, "b")
			s.answer.Nodes = append(s.answer.Nodes, s.answer.Nodes[0])
		})
		synctest.Wait()
		w.expect(t, "a", discovery.ReasonConsulError)
	})
}

// A query that ends before its wait does did wait nevertheless: a server or a proxy may have a limit of its own.
func TestWatcherKnowsServersWithALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(answerOf(5, "a"))
		s.limit = 2 * time.Second // of the 30s that are asked for
		w := watch(t, NewPool(), s, plain(t))
		settle(5*time.Minute + time.Second)
		w.say(answerOf(6, "b")) // at once
		w.expect(t, "b", discovery.ReasonOK)
		if n := len(w.queries()); n > 155 {
			t.Errorf("%d queries in five minutes, want one each 2s", n)
		}
	})
}

// Queries that did wait are bounded by themselves: changes are seen at once, however short the interval is.
func TestWatcherAtTheShortestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shortest{newScripted(answerOf(5, "a"))}
		p := NewPool()
		v, err := p.Acquire(s, plain(t), zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		v.Start()
		settle(time.Minute + 300*time.Millisecond)
		if n := len(s.queries()); n != 62 {
			t.Errorf("%d queries in a minute, want 62: the first, and one each second, which is the least", n)
		}
		s.say(answerOf(6, "b"))
		if active := activeOf(v.State()); active != "b" {
			t.Errorf("active %q, want b at once", active)
		}
		v.Release(zap.NewNop())
	})
}

// shortest is a discovery that wants to be asked all the time.
type shortest struct{ *scripted }

func (*shortest) MaxWait() time.Duration { return 0 }

// What ends blocking queries early is no outage while others are answered: the log says it once, and no event tells of it. A
// change is noticed as soon as the source can be asked.
func TestWatcherOfBlockingQueriesThatAreCut(t *testing.T) {
	const said = "blocking queries fail while others are answered: if a proxy cuts them short, set poll_interval below its limit"
	for _, row := range []struct {
		name   string
		after  time.Duration
		reason discovery.Reason
		most   int           // queries in ten minutes
		seen   time.Duration // within which a change is noticed
	}{
		{"504 after 29s", 29 * time.Second, discovery.ReasonConsulError, 50, 100 * time.Millisecond},
		{"504 after 1s", time.Second, discovery.ReasonConsulError, 1300, time.Second},
		{"500 at once", time.Nanosecond, discovery.ReasonConsulError, 1300, 2 * time.Second},
		{"the connection breaks after 10s", 10 * time.Second, discovery.ReasonConsulUnreachable, 140, 100 * time.Millisecond},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(answerOf(5, "a"))
				s.limit, s.cutErr = row.after, &discovery.Error{Reason: row.reason, Err: errors.New("cut")}
				p := NewPool()
				down := 0
				p.Listen(func(e Event) {
					if e.Kind == DiscoveryDown {
						down++
					}
				})
				w := watch(t, p, s, plain(t))
				time.Sleep(10 * time.Minute)
				w.expect(t, "a", discovery.ReasonOK)
				if n := len(w.queries()); n > row.most {
					t.Errorf("%d queries in ten minutes", n)
				}
				if !w.Discovery().Up || down > 0 {
					t.Errorf("up %v, %d events that it is down", w.Discovery().Up, down)
				}
				w.set(func(s *scripted) { s.answer = answerOf(6, "b") })
				time.Sleep(row.seen)
				w.expect(t, "b", discovery.ReasonOK)
				if n := w.logs.FilterMessage(said).FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
					t.Errorf("logged %d times", n)
				}
				if n := w.lines("discovery failed") + w.lines("discovery recovered"); n > 0 {
					t.Errorf("%d lines on an outage", n)
				}
				w.set(func(s *scripted) { s.err = s.cutErr }) // now nothing is answered
				time.Sleep(time.Minute)
				if w.Discovery().Up || down != 1 {
					t.Errorf("in an outage: up %v, %d events", w.Discovery().Up, down)
				}
			})
		})
	}
}
