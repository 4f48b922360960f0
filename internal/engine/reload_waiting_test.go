// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// waits makes a request wait on a view, and returns the channel of its outcome.
func waits(t *testing.T, v *View) <-chan outcome {
	t.Helper()
	done := make(chan outcome, 1)
	go func() { done <- request(t.Context(), v, holding()) }()
	synctest.Wait()
	if v.Waiting() != 1 {
		t.Errorf("%d requests wait, want one", v.Waiting())
	}
	return done
}

// A request that waits gets the node that a new config finds, though the old one cannot.
func TestWaitersFollowTheConfig(t *testing.T) {
	nowhere := reload{config: func(c *Config) { c.Addressing = to(t, "tagged:wan") }}
	for name, row := range map[string]struct {
		first reload // until then all is well; then requests come
		mend  reload
		twice bool // by a config that changes nothing of it, and then another
	}{
		"a token that is refused, replaced": {mend: reload{discovery: func(s *scripted) { s.key, s.err = "another token", nil }}},
		"an address that there is not":      {first: nowhere, mend: reload{config: func(c *Config) { c.Addressing = to(t, ToNodeName) }}},
		"at the second try":                 {first: nowhere, mend: reload{config: func(c *Config) { c.Addressing = to(t, ToNodeName) }}, twice: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(answerOf(5, "a"))
				s.named = "vault"
				old := watch(t, NewPool(), s, plain(t))
				if row.first.config != nil {
					next := row.first.run(t, old)
					next.Start()
					old.release()
					old = next
				} else {
					old.lose()
					old.fail(errors.New("token revoked"))
				}
				synctest.Wait()
				done := waits(t, old.View)
				time.Sleep(time.Second)
				if row.twice {
					next := reload{config: func(c *Config) { c.Addressing = to(t, "tagged:lan") }}.run(t, old)
					next.Start()
					old.release()
					time.Sleep(time.Second)
					old = next
				}
				next := row.mend.run(t, old)
				next.scripted.set(func(s *scripted) { s.answer = answerOf(20, "b") })
				synctest.Wait() // where the watcher runs already, it is known before the view is started
				next.Start()
				synctest.Wait()
				old.release()
				want := outcome{"b", time.Second}
				if row.twice {
					want.after *= 2
				}
				if got := <-done; got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
				synctest.Wait()
				if running := old.pool().running(); running != 1 {
					t.Errorf("%d views run, want that of the new config", running)
				}
			})
		})
	}
}

// A request that waits is not rejected because a new config cannot do what the old one can, nor held any longer.
func TestWaitersKeepTheirConfig(t *testing.T) {
	for name, row := range map[string]struct {
		found bool
		want  outcome
	}{
		"a node is found": {true, outcome{"b", 3 * time.Second}},
		"none is":         {false, outcome{"", 5 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
				old.lose()
				done := waits(t, old.View)
				time.Sleep(2 * time.Second)
				next := reload{config: func(c *Config) { c.Addressing = to(t, "tagged:wan") }}.run(t, old)
				next.Start()
				old.release()
				time.Sleep(time.Second)
				if row.found {
					old.say(answerOf(20, "b"))
				}
				if got := <-done; got != row.want {
					t.Errorf("%+v, want %+v", got, row.want)
				}
				synctest.Wait()
				if running := old.pool().running(); running != 1 {
					t.Errorf("%d views run, want that of the new config", running)
				}
			})
		})
	}
}

// A request that waits goes on with a config that follows one without this cluster.
func TestWaitersOutliveAConfigWithout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(answerOf(5, "a"))
		s.named = "vault"
		old := watch(t, NewPool(), s, plain(t))
		old.lose()
		old.fail(errors.New("token revoked"))
		done := waits(t, old.View)
		old.pool().NextConfig()
		old.release()
		time.Sleep(time.Second)
		next := reload{discovery: func(s *scripted) { s.key, s.err = "another token", nil }}.run(t, old)
		next.scripted.set(func(s *scripted) { s.answer = answerOf(20, "b") })
		next.Start()
		if got, want := <-done, (outcome{"b", time.Second}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		synctest.Wait()
		if running := old.pool().running(); running != 1 {
			t.Errorf("%d views run, want that of the new config", running)
		}
	})
}

// A config that is taken back while requests wait leaves nothing behind: no waiter that is counted, no view that runs.
func TestWaitersOfAConfigThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		first.lose()
		done := waits(t, first.View)
		second := reload{config: func(c *Config) { c.MaxStale++ }}.run(t, first)
		second.Start()
		first.release()
		synctest.Wait()
		third := reload{config: func(c *Config) { c.MaxStale-- }}.run(t, second)
		third.Start()
		second.release()
		synctest.Wait()
		if third.View != first.View {
			t.Error("the view that still runs is not used again")
		}
		third.say(answerOf(20, "b"))
		if got := <-done; got.active != "b" {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		if n := third.Waiting(); n != 0 {
			t.Errorf("%d requests wait", n)
		}
		third.release()
		synctest.Wait()
		if running := first.pool().running(); running != 0 {
			t.Errorf("%d views run", running)
		}
	})
}

// A request that waits goes on at once with the view that serves its site now, even if the discovery of the one before does not end.
func TestWaitersDoNotWaitForADeafSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(answerOf(5, "a"))
		s.named = "vault"
		first := watch(t, NewPool(), s, plain(t))
		first.lose()
		done := waits(t, first.View)
		second := reload{discovery: func(s *scripted) { s.key = "another token" }}.run(t, first)
		second.Start()
		first.release()
		synctest.Wait()
		second.set(func(s *scripted) { s.deaf = true })
		third := reload{discovery: func(s *scripted) {
			s.key, s.selection.Tag = "a third one", "other"
			s.answer = answerOf(20, "", with("b", func(n *discovery.Node) { n.Tags = []string{"other"} }))
		}}.run(t, second)
		third.Start()
		synctest.Wait()
		second.release()
		if got, want := <-done, (outcome{"b", 0}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		second.set(func(s *scripted) { s.deaf = false })
	})
}

// A request that waits at one of several sites of a cluster is not redirected as at another site.
func TestWaitersKeepTheirSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := NewPool(), newScripted(answerOf(5, "a"))
		p.NextConfig()
		outside := watch(t, p, s, plain(t, func(c *Config) { c.Addressing = to(t, "{node}.example.com") }))
		inside := watch(t, p, s, plain(t))
		outside.lose()
		done := make(chan string, 1)
		go func() { done <- outside.Await(t.Context(), holding(), Waiter{}).Target.URL }()
		synctest.Wait()
		next := reload{config: func(c *Config) { c.MaxStale++ }}.run(t, inside)
		next.Start()
		outside.release()
		inside.release()
		synctest.Wait()
		outside.say(answerOf(20, "b"))
		if url := <-done; url != "http://b.example.com:8200" {
			t.Errorf("to %q", url)
		}
	})
}
