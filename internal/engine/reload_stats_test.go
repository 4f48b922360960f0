// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// acquire acquires a view that is given back at the end of the test.
func acquire(t *testing.T, p *Pool, s *scripted, c Config) *View {
	t.Helper()
	v, err := p.Acquire(s, c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Release(zap.NewNop()) })
	return v
}

// What was counted goes on with the view that lives on, or with one that takes its place: never with two.
func TestCountersGoOnWithOne(t *testing.T) {
	moved := func(c Config) Config { c.Addressing = to(t, "{node}.example.com"); return c }
	other := func(c Config) Config { c.MaxStale++; return c }
	for name, row := range map[string]struct {
		next  []func(Config) Config // in the order in which they are acquired
		heirs int                   // how many of them have the counters
		heir  int                   // who
	}{
		"it lives on":                 {[]func(Config) Config{func(c Config) Config { return c }}, 1, 0},
		"it is changed":               {[]func(Config) Config{other}, 1, 0},
		"another one after it":        {[]func(Config) Config{func(c Config) Config { return c }, moved}, 1, 0},
		"another one before it":       {[]func(Config) Config{moved, func(c Config) Config { return c }}, 1, 1},
		"two take its place":          {[]func(Config) Config{other, moved}, 1, 0},
		"two before it, and it lives": {[]func(Config) Config{moved, other, func(c Config) Config { return c }}, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			p, s, c := NewPool(), newScripted(answerOf(5, "a")), plain(t)
			p.NextConfig()
			old := acquire(t, p, s, c)
			counters := old.Stats()
			p.NextConfig()
			heirs, heir := 0, -1
			var views []*View
			for _, change := range row.next {
				views = append(views, acquire(t, p, s, change(c)))
			}
			for i, v := range views {
				if v.Stats() == counters {
					heirs, heir = heirs+1, i
				}
			}
			if heirs != row.heirs || heir != row.heir {
				t.Errorf("%d views count on, the last of them is %d; want %d, and %d", heirs, heir, row.heirs, row.heir)
			}
		})
	}
}

// A view begins with what the one knew whose place it takes, not with what one beside it does.
func TestViewsBeginWithTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s, c := NewPool(), newScripted(answerOf(5, "a")), plain(t)
		s.named = "one"
		moved := c
		moved.Addressing = to(t, "{node}.example.com")
		green := newScripted(answerOf(5, "a"))
		green.key, green.named, green.selection.Tag = s.key, "one", "green"
		p.NextConfig()
		first, second, third := acquire(t, p, s, c), acquire(t, p, s, moved), acquire(t, p, green, c)
		for _, v := range []*View{first, second, third} {
			v.Start()
		}
		synctest.Wait()
		p.NextConfig()
		token := newScripted(answerOf(5, "a"))
		token.key, token.named = "another token", "one"
		newFirst := acquire(t, p, token, c)
		for name, row := range map[string]struct {
			config Config
			want   *View
		}{
			"the first":      {first.Config, first},
			"moved":          {second.Config, second},
			"by another tag": {third.Config, third},
		} {
			if got := (&View{Config: row.config, cluster: newFirst.cluster, watcher: newFirst.watcher}).closestRunning(); got != row.want {
				t.Errorf("%s begins with another", name)
			}
		}
	})
}

// The node that was active before an outage is known after a reload in its midst: when it comes back, nothing has changed.
func TestReloadInAnOutageRemembersWhoWasActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		changes := old.State().Changes
		old.lose()
		time.Sleep(time.Second)
		next := reload{config: func(c *Config) { c.MaxStale++ }}.run(t, old)
		next.Start()
		next.say(answerOf(20, "a"))
		if got := next.State().Changes; got != changes || !next.State().Active() {
			t.Errorf("%d changes, want %d", got, changes)
		}
		if h := next.History(); len(h) == 0 || h[0].Previous != "a" || h[0].Kind != ActiveChanged || h[0].Gap != time.Second {
			t.Errorf("the history, the newest first: %+v", h)
		}
	})
}

// What a source has asked for beside its answer is paid for later, and never with more than there is.
func TestAnswersThatCostMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := answerOf(5, "a")
		a.ExtraQueries = 1000
		w := watch(t, NewPool(), newScripted(a), plain(t))
		w.say(answerOf(6, "b"))
		time.Sleep(10 * time.Second)
		w.expect(t, "b", discovery.ReasonOK)
	})
}
