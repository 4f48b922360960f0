// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// holding is a queue with a hold of five seconds.
func holding() *Queue { return &Queue{Hold: 5 * time.Second, Most: 1024} }

// lose makes discovery name no active node.
func (w *watched) lose() { w.say(answerOf(w.answer.Index+1, "")) }

func TestHoldWaitsForTheNextNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, q := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t)), holding()
		if o := request(t.Context(), w.View, q); o != (outcome{"a", 0}) {
			t.Errorf("%+v", o)
		}
		w.lose()
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				if o := request(t.Context(), w.View, q); o != (outcome{"b", 3 * time.Second}) {
					t.Errorf("%+v, want b after 3s, as soon as it is active", o)
				}
			})
		}
		time.Sleep(time.Second)
		w.lose() // something else changes
		time.Sleep(2 * time.Second)
		if n := q.Waiting(); n != 100 {
			t.Errorf("%d requests wait, want 100", n)
		}
		w.say(answerOf(8, "b"))
		group.Wait()
		if n := q.Waiting(); n != 0 {
			t.Errorf("%d requests wait, want none", n)
		}
	})
}

var boundRows = []struct {
	name string
	do   func(*testing.T, *watched, *Queue) outcome
	want outcome
}{
	{"in time, from the loss", func(t *testing.T, w *watched, q *Queue) outcome {
		w.lose()
		time.Sleep(3 * time.Second)
		return request(t.Context(), w.View, q)
	}, outcome{"", 2 * time.Second}},
	{"not after it", func(t *testing.T, w *watched, q *Queue) outcome {
		w.lose()
		time.Sleep(5 * time.Second)
		return request(t.Context(), w.View, q)
	}, outcome{}},
	{"off", func(t *testing.T, w *watched, _ *Queue) outcome {
		w.lose()
		return request(t.Context(), w.View, &Queue{Most: 10})
	}, outcome{}},
	{"in number", func(t *testing.T, w *watched, q *Queue) outcome {
		w.lose()
		q.Most = 1
		go request(t.Context(), w.View, q)
		synctest.Wait()
		return request(t.Context(), w.View, q)
	}, outcome{}},
	{"by the client", func(t *testing.T, w *watched, q *Queue) outcome {
		w.lose()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return request(ctx, w.View, q)
	}, outcome{"", time.Second}},
	{"by the end of the process", func(t *testing.T, w *watched, q *Queue) outcome {
		w.lose()
		time.AfterFunc(time.Second, w.pool().End)
		return request(t.Context(), w.View, q)
	}, outcome{"", time.Second}},
	{"after the end of the process has begun", func(t *testing.T, w *watched, q *Queue) outcome {
		w.lose()
		w.pool().End()
		w.pool().End()
		return request(t.Context(), w.View, q)
	}, outcome{}},
	{"again after another loss", func(t *testing.T, w *watched, q *Queue) outcome {
		w.lose()
		time.Sleep(time.Minute)
		w.say(answerOf(50, "c"))
		w.lose()
		return request(t.Context(), w.View, q)
	}, outcome{"", 5 * time.Second}},
	{"from when it came, where it comes back", func(t *testing.T, w *watched, q *Queue) outcome {
		came := time.Now()
		time.Sleep(3 * time.Second) // it was given a node meanwhile, and has not reached it
		w.lose()
		began := time.Now()
		return outcome{activeOf(w.Await(t.Context(), q, Waiter{Came: came})), time.Since(began)}
	}, outcome{"", 2 * time.Second}},
	{"not at all where it comes back too late", func(t *testing.T, w *watched, q *Queue) outcome {
		came := time.Now()
		time.Sleep(6 * time.Second)
		w.lose()
		began := time.Now()
		return outcome{activeOf(w.Await(t.Context(), q, Waiter{Came: came})), time.Since(began)}
	}, outcome{}},
	{"from when the last known node is too old", func(t *testing.T, w *watched, q *Queue) outcome {
		w.fail(errors.New("no"))
		time.Sleep(62 * time.Second) // max_stale is a minute
		return request(t.Context(), w.View, q)
	}, outcome{"", 3 * time.Second}},
	{"not by a stale node", func(t *testing.T, w *watched, q *Queue) outcome {
		w.fail(errors.New("no"))
		return request(t.Context(), w.View, q)
	}, outcome{"a", 0}},
}

func TestHoldIsBounded(t *testing.T) {
	for _, row := range boundRows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
				if got := row.do(t, w, holding()); got != row.want {
					t.Errorf("%+v, want %+v", got, row.want)
				}
			})
		})
	}
}

// A request has one deadline, however often a node is active for a moment and lost again.
func TestHoldHasOneDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		a := n.node("a")
		a.hangs(true)
		settle(time.Second)
		done := make(chan outcome)
		go func() { done <- request(t.Context(), w.View, holding()) }()
		// Silence, death and silence again follow on each other; the request never sees the moments in between.
		for range 20 {
			time.Sleep(time.Second)
			select {
			case o := <-done:
				if o.after > 5*time.Second {
					t.Errorf("%+v, want at most 5s", o)
				}
				return
			default:
			}
		}
		t.Error("the request waits for more than 20 s")
	})
}

// The deadline is the request's own even if the phase that it waits in begins anew.
func TestWaitUntilIsBoundedByTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.lose()
		came := time.Now()
		time.Sleep(4 * time.Second)
		again := Phase{None, time.Now()}
		if end := again.holdUntil(came, time.Now(), 5*time.Second); !end.Equal(came.Add(5 * time.Second)) {
			t.Errorf("until %s after it came, want 5s", end.Sub(came))
		}
	})
}

func TestHoldDoesNotWaitForAClusterNeverSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "")), plain(t))
		if o := request(t.Context(), w.View, holding()); o != (outcome{}) {
			t.Errorf("%+v", o)
		}
	})
}

func TestRequestsWaitForTheFirstAnswer(t *testing.T) {
	hanging := func(t *testing.T) *watched {
		s := newScripted(answerOf(5, "a"))
		s.hang = true
		return watch(t, NewPool(), s, plain(t))
	}
	rows := map[string]struct {
		queue *Queue
		after time.Duration // of the answer
		want  outcome
	}{
		"in time":          {&Queue{Most: 10}, startGrace / 2, outcome{"a", startGrace / 2}},
		"too late":         {&Queue{Most: 10}, 2 * time.Second, outcome{"", startGrace}},
		"for hold":         {holding(), 2 * time.Second, outcome{"a", 2 * time.Second}},
		"too late, hold":   {holding(), 6 * time.Second, outcome{"", 5 * time.Second}},
		"too many do":      {new(Queue), time.Second, outcome{}},
		"a second at most": {&Queue{Hold: time.Millisecond, Most: 10}, 2 * time.Second, outcome{"", startGrace}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := hanging(t)
				time.AfterFunc(row.after, func() { w.set(func(s *scripted) { s.hang = false }) })
				if got := request(t.Context(), w.View, row.queue); got != row.want {
					t.Errorf("%+v, want %+v", got, row.want)
				}
			})
		})
	}
	t.Run("are counted, and end with the process", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, q := hanging(t), holding()
			time.AfterFunc(time.Second, w.pool().End)
			go request(t.Context(), w.View, q)
			synctest.Wait()
			if n := q.Waiting(); n != 1 {
				t.Errorf("%d requests wait, want 1", n)
			}
			if got := request(t.Context(), w.View, q); got != (outcome{"", time.Second}) {
				t.Errorf("%+v", got)
			}
		})
	})
}

// A request starts a view that does not run yet.
func TestARequestStartsTheView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p, log := newScripted(answerOf(5, "a")), NewPool(), zap.NewNop()
		v, err := p.Acquire(s, plain(t), log)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Release(log)
		if len(s.queries()) != 0 {
			t.Error("Acquire uses the network")
		}
		if got := request(t.Context(), v, holding()); got != (outcome{"a", 0}) {
			t.Errorf("%+v", got)
		}
	})
}

// BenchmarkAwait is what each request pays while a node is active.
func BenchmarkAwait(b *testing.B) {
	v := new(View)
	v.current.Store(&State{phase: Phase{Situation: Active}})
	q, ctx := holding(), b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if v.Await(ctx, q, Waiter{}) == nil {
			b.Fatal("no state")
		}
	}
}
