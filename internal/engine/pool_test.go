// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"bytes"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

func TestViewsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newScripted(answerOf(5, "a")), NewPool()
		w := watch(t, p, s, plain(t))
		users := func(want int) {
			t.Helper()
			if n := p.Users(s.Key()); n != want {
				t.Errorf("%d users of the watcher, want %d", n, want)
			}
		}
		users(1)
		same := watch(t, p, s, plain(t))
		if same.View != w.View {
			t.Error("two configs that are the same have two views")
		}
		users(2)
		asked := len(s.queries())
		other := watch(t, p, s, plain(t, func(c *Config) { c.MaxStale = time.Hour }))
		if other.View == w.View || other.watcher != w.watcher || len(s.queries()) != asked {
			t.Errorf("views shared: %v, watchers shared: %v, %d new queries", other.View == w.View, other.watcher == w.watcher, len(s.queries())-asked)
		}
		other.expect(t, "a", discovery.ReasonOK)
		users(3)
		if n := len(p.Views()); n != 2 {
			t.Errorf("%d views, want 2", n)
		}
		same.release()
		other.release()
		users(1)
		if n := len(p.Views()); n != 1 || len(p.all()) != 1 || s.isClosed() {
			t.Errorf("%d views, %d at the watcher, source closed: %v", n, len(p.all()), s.isClosed())
		}
		w.release()
		users(0)
		if n := len(p.Views()); n != 0 || !s.isClosed() {
			t.Errorf("%d views, source closed: %v", n, s.isClosed())
		}
	})
}

func TestAViewThatNeverStartedEnds(t *testing.T) {
	s, p, log := newScripted(discovery.Answer{}), NewPool(), zap.NewNop()
	v, err := p.Acquire(s, plain(t, probing(ProbeAuto)), log)
	if err != nil {
		t.Fatal(err)
	}
	v.Release(log)
	v.Start() // too late
	if len(s.queries()) != 0 || !s.isClosed() {
		t.Errorf("%d queries, closed %v", len(s.queries()), s.isClosed())
	}
}

// Whatever a node or a discovery does, the end of a config does not wait for it for long: Caddy calls it under the lock
// of its configs.
func TestReleaseNeverHangs(t *testing.T) {
	endless := func(w writer) {
		for { // until the other end is closed
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}
	for name, fault := range map[string]func(*vault, *scripted){
		"101": func(v *vault, _ *scripted) {
			v.raw = writes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		},
		"half an answer": func(v *vault, _ *scripted) { v.raw = writes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{") },
		"endless body": func(v *vault, _ *scripted) {
			v.raw = func(w writer) { writes("HTTP/1.1 200 OK\r\n\r\n")(w); endless(w) }
		},
		"endless headers": func(v *vault, _ *scripted) {
			v.raw = func(w writer) { writes("HTTP/1.1 200 OK\r\nX: ")(w); endless(w) }
		},
		"endless 103s": func(v *vault, _ *scripted) {
			v.raw = func(w writer) {
				for err := error(nil); err == nil; {
					_, err = w.Write([]byte("HTTP/1.1 103 Early Hints\r\n\r\n"))
				}
			}
		},
		"silence":            func(v *vault, _ *scripted) { v.hang = true },
		"no connection":      func(v *vault, _ *scripted) { v.drops = true },
		"no TLS":             func(v *vault, _ *scripted) { v.raw = func(writer) {} },
		"discovery, hanging": func(_ *vault, s *scripted) { s.hang = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t)
				n.node("a").set(func(v *vault) { w.set(func(s *scripted) { fault(v, s) }) })
				before := n.node("a").probes()
				settle(5 * time.Second)
				if asked := n.node("a").probes() - before; asked < 4 && !n.node("a").drops {
					t.Errorf("%d probes in 5 s: it is not probed on", asked)
				}
				settle(200 * time.Millisecond)
				began := time.Now()
				w.release()
				if took := time.Since(began); took != 0 {
					t.Errorf("the end took %s", took)
				}
				synctest.Wait()
				if c := n.node("a").connections(); c != 0 {
					t.Errorf("%d connections are left", c)
				}
			})
		})
	}
}

// A source that does not end its query is left behind, and closed when it does.
func TestReleaseLeavesADeafSourceBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.set(func(s *scripted) { s.deaf = true })
		began := time.Now()
		w.release()
		if took := time.Since(began); took > 2*endGrace || w.isClosed() {
			t.Errorf("the end took %s, closed with a query under way: %v", took, w.isClosed())
		}
		w.set(func(s *scripted) { s.deaf = false })
		synctest.Wait()
		if !w.isClosed() {
			t.Error("the source was not closed")
		}
	})
}

// After the last release nothing of the engine runs any more.
func TestReleaseLeavesNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.node("a").answers(200)
		s := newScripted(answerOf(5, "a"))
		w := watch(t, p, s, plain(t, probing(ProbeAuto)))
		for i := range 20 { // reloads
			settle(777 * time.Millisecond)
			next := watch(t, p, s, plain(t, probing(ProbeAuto), func(c *Config) { c.MaxStale = time.Duration(i) * time.Hour }))
			w.release()
			w = next
			synctest.Wait()
			if running := p.running(); running != 1 {
				t.Fatalf("%d views run", running)
			}
		}
		w.release()
		synctest.Wait()
		for _, what := range []string{"engine.(*View)", "engine.(*Cluster)", "engine.(*watcher)", "engine.(*logQueue)", "engine.(*probeConn)", "http.(*persistConn)"} {
			if running := goroutines(what); running != 0 {
				t.Errorf("%d goroutines in %s", running, what)
			}
		}
	})
}

// goroutines returns how many goroutines are in a function.
func goroutines(function string) (n int) {
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	for stack := range bytes.SplitSeq(all, []byte("\n\n")) {
		if bytes.Contains(stack, []byte(function)) {
			n++
		}
	}
	return n
}

// Requests that wait when their config is replaced, by one that shares no view with it, still get the next node.
func TestHoldOutlivesItsConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newScripted(answerOf(5, "a")), NewPool()
		old := watch(t, p, s, plain(t))
		old.lose()
		done := make(chan outcome)
		go func() { done <- request(t.Context(), old.View, holding()) }()
		synctest.Wait()
		next := watch(t, p, s, plain(t, func(c *Config) { c.MaxStale = time.Hour }))
		old.release()
		if n := len(p.Views()); n != 1 || p.Users(s.Key()) != 1 {
			t.Errorf("%d views with %d users, want the new one with one", n, p.Users(s.Key()))
		}
		time.Sleep(2 * time.Second)
		next.say(answerOf(7, "b"))
		if o := <-done; o != (outcome{"b", 2 * time.Second}) {
			t.Errorf("%+v, want b after 2s", o)
		}
		synctest.Wait()
		if running := p.running(); running != 1 {
			t.Errorf("%d views run, want that of the new config", running)
		}
	})
}

// A request that comes to a config after its end goes on with what has taken its place, whether it waits or not.
func TestRequestsAfterTheEndOfTheirConfig(t *testing.T) {
	for name, key := range map[string]string{"same discovery": "one", "another": "two"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, s2, p := newScripted(answerOf(5, "a")), newScripted(answerOf(5, "a")), NewPool()
				s.key, s.named, s2.key, s2.named = "one", "vault", key, "vault"
				old := watch(t, p, s, plain(t))
				next := watch(t, p, s2, plain(t, func(c *Config) { c.MaxStale = time.Hour }))
				old.release()
				say := func(a discovery.Answer) { s.say(a); s2.say(a) }
				say(answerOf(6, "b"))
				if o := request(t.Context(), old.View, holding()); o != (outcome{"b", 0}) {
					t.Errorf("%+v, want b at once", o)
				}
				if active := activeOf(old.State()); active != "b" {
					t.Errorf("active %q, want b", active)
				}
				say(answerOf(7, ""))
				time.AfterFunc(time.Second, func() { say(answerOf(8, "c")) })
				if o := request(t.Context(), old.View, holding()); o != (outcome{"c", time.Second}) {
					t.Errorf("%+v, want c after 1s", o)
				}
				next.release() // and there is nothing more to know
				if o := request(t.Context(), old.View, holding()); o.after != 0 {
					t.Errorf("%+v, want an answer at once", o)
				}
				if o := request(t.Context(), next.View, holding()); o != (outcome{"c", 0}) {
					t.Errorf("%+v, want the last known node", o)
				}
			})
		})
	}
}
