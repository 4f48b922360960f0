// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Waiting is counted for clients that wait for a failover to end: neither for health checks, nor for requests that wait for the first outcome.
func TestWaitsThatCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.lose()
		request(t.Context(), w.View, &Queue{Hold: time.Second, Most: 10, Uncounted: true})
		if n := w.Stats().Holds.Count(Expired); n != 0 {
			t.Errorf("%d uncounted waits are counted", n)
		}
		request(t.Context(), w.View, holding())
		if n := w.Stats().Holds.Count(Expired); n != 1 {
			t.Errorf("%d waits in vain, want 1", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(answerOf(5, "a"))
		s.hang = true
		w := watch(t, NewPool(), s, plain(t))
		request(t.Context(), w.View, holding())
		if n := w.Stats().Holds.Count(Expired); n != 0 {
			t.Errorf("%d waits at the start are counted as in vain", n)
		}
	})
}

// A request that could not be brought to its node waits for something to change, or a while, and takes a place.
func TestPause(t *testing.T) {
	for name, row := range map[string]struct {
		do   func(w *watched, q *Queue, cancel func())
		want bool
		took time.Duration
	}{
		"for a while":               {func(*watched, *Queue, func()) {}, true, 2 * time.Second},
		"until another state":       {func(w *watched, _ *Queue, _ func()) { time.AfterFunc(time.Second, w.lose) }, true, time.Second},
		"unless the client is gone": {func(_ *watched, _ *Queue, cancel func()) { time.AfterFunc(time.Second, cancel) }, false, time.Second},
		"unless the process ends":   {func(w *watched, _ *Queue, _ func()) { time.AfterFunc(time.Second, w.pool().End) }, false, time.Second},
		"unless too many wait":      {func(_ *watched, q *Queue, _ func()) { q.Most = 0 }, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, q := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t)), holding()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				row.do(w, q, cancel)
				began := time.Now()
				if goesOn := w.Pause(ctx, q, Waiter{}, w.State(), 2*time.Second); goesOn != row.want || time.Since(began) != row.took {
					t.Errorf("%t after %s, want %t after %s", goesOn, time.Since(began), row.want, row.took)
				}
				if n := q.Waiting(); n != 0 {
					t.Errorf("%d places are left taken", n)
				}
			})
		})
	}
}

// No client has more than a tenth of the places, and requests whose client could leave unnoticed have a tenth in all.
func TestPlacesAreShared(t *testing.T) {
	for _, row := range []struct {
		name   string
		most   int64
		waiter func(i int) Waiter
		want   int64
	}{
		{"of one client", 1000, func(int) Waiter { return Waiter{Client: "127.0.0.1"} }, 100},
		{"of two clients", 1000, func(i int) Waiter { return Waiter{Client: []string{"127.0.0.1", "::1"}[i%2]} }, 200},
		{"of unknown clients", 1000, func(int) Waiter { return Waiter{} }, 100},
		{"of many clients", 1000, func(i int) Waiter { return Waiter{Client: fmt.Sprint(i)} }, 1000},
		{"of many clients whose leaving is not seen", 1000, func(i int) Waiter { return Waiter{Client: fmt.Sprint(i), Unseen: true} }, 100},
		{"of few", 5, func(int) Waiter { return Waiter{Client: "127.0.0.1"} }, 1},
		{"of none", 0, func(int) Waiter { return Waiter{Client: "127.0.0.1"} }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			q := &Queue{Most: row.most}
			var in []func()
			for i := range 2000 {
				w := row.waiter(i)
				if leave := q.enter(&w); leave != nil {
					in = append(in, leave)
				}
			}
			if q.Waiting() != row.want {
				t.Errorf("%d wait, want %d", q.Waiting(), row.want)
			}
			for _, leave := range in {
				leave()
			}
			if q.Waiting() != 0 || q.unseen != 0 || len(q.clients) != 0 {
				t.Errorf("%d places are left taken, %d of them unseen, by %d clients", q.Waiting(), q.unseen, len(q.clients))
			}
		})
	}
}

// What is to be done before a request waits is done once it has a place, and not for one that has none.
func TestBeginOfAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		begun := 0
		begin := Waiter{Begin: func() { begun++ }}
		w.Await(t.Context(), holding(), begin)
		if begun != 0 {
			t.Error("begun although there is an active node")
		}
		w.lose()
		w.Await(t.Context(), &Queue{Hold: time.Second}, begin)
		if begun != 0 {
			t.Error("begun without a place")
		}
		w.Await(t.Context(), &Queue{Hold: time.Second, Most: 10}, begin)
		if begun != 1 {
			t.Errorf("begun %d times, want once", begun)
		}
	})
}

// There is one number of requests that wait: those that pause between two tries are among them, and health checks are not.
func TestOneNumberOfWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, q := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t)), holding()
		w.lose()
		go w.Await(t.Context(), q, Waiter{})
		go w.Pause(t.Context(), q, Waiter{}, w.State(), time.Second)
		go w.Await(t.Context(), &Queue{Hold: time.Second, Most: 10, Uncounted: true}, Waiter{})
		synctest.Wait()
		if n, m := w.Waiting(), q.Waiting(); n != 2 || m != 2 {
			t.Errorf("%d wait at the site, %d in the queue, want 2", n, m)
		}
		next := reload{config: func(c *Config) { c.MaxStale++ }}.run(t, w)
		next.Start()
		w.release()
		if n := next.Waiting(); n != 2 {
			t.Errorf("%d wait at the site after a reload, want 2", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n, m := next.Waiting(), q.Waiting(); n != 0 || m != 0 {
			t.Errorf("%d and %d wait in the end", n, m)
		}
	})
}

// Over IPv6, the addresses of one network are one client's, since each client has as many of them as it likes.
func TestPlacesOfAnIPv6Network(t *testing.T) {
	q := &Queue{Hold: time.Minute, Most: 20}
	var in []func()
	for i, row := range []struct {
		client string
		enters bool
	}{
		{"2001:db8::1", true},
		{"2001:db8::2", true},
		{"2001:db8::3", false},
		{"2001:db8:0:1::3", true}, // the third is of the next network
		{"192.0.2.1", true},
		{"::ffff:192.0.2.1", true},
		{"192.0.2.1", false},
		{"192.0.2.2", true},
		{"fe80::1%eth0", true},
		{"fe80::2%eth1", true},
		{"fe80::3", false},
	} {
		leave := q.enter(&Waiter{Client: row.client})
		if enters := leave != nil; enters != row.enters {
			t.Errorf("%d: %s enters: %v", i, row.client, enters)
		}
		if leave != nil {
			in = append(in, leave)
		}
	}
	for _, leave := range in {
		leave()
	}
	if q.Waiting() != 0 || len(q.clients) != 0 {
		t.Errorf("%d still wait, of %v", q.Waiting(), q.clients)
	}
}
