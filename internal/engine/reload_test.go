// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// reload is a change of the config or of the discovery.
type reload struct {
	config    func(*Config)
	discovery func(*scripted)
	url       string // of the node that was active; default: as before
}

// reloads are the changes that an operator makes in an outage.
func reloads(t *testing.T) map[string]reload {
	return map[string]reload{
		"redirect_to":    {config: func(c *Config) { c.Addressing = to(t, "{node}.example.com") }, url: "http://a.example.com:8200"},
		"tag":            {discovery: func(s *scripted) { s.selection.Tag = "other" }},
		"active_by":      {discovery: func(s *scripted) { s.selection.Mode = discovery.ByCheck }},
		"probe strict":   {config: probing(ProbeStrict)},
		"probe auto":     {config: probing(ProbeAuto)},
		"probe off":      {config: func(c *Config) { c.Probe = Probe{} }},
		"probe interval": {config: func(c *Config) { c.Probe.Interval++ }},
		"name":           {config: func(c *Config) { c.Name = "other" }},
		"token":          {discovery: func(s *scripted) { s.key = "another token" }},
		"all of them": {
			config:    func(c *Config) { c.Addressing, c.Name = to(t, "{node}.example.com"), "other" },
			discovery: func(s *scripted) { s.key, s.selection.Tag = "another token", "other" },
			url:       "http://a.example.com:8200",
		},
	}
}

// run replaces a view by another one, as a reload does.
func (r reload) run(t *testing.T, old *watched) *watched {
	t.Helper()
	s, c := newScripted(old.answer), old.Config
	s.key, s.named, s.selection, s.err, s.hang = old.key, old.named, old.selection, old.err, old.hang
	if r.config != nil {
		r.config(&c)
	}
	if r.discovery != nil {
		r.discovery(s)
	}
	log := old.log
	old.pool().NextConfig()
	v, err := old.pool().Acquire(s, c, log)
	if err != nil {
		t.Fatal(err)
	}
	next := &watched{s, v, log, old.logs, sync.OnceFunc(func() { v.Release(log) })}
	t.Cleanup(next.release)
	if s.key == old.key {
		next.scripted = old.scripted // whose source stays in use
	}
	return next
}

// After a reload in an outage of discovery the last known node is used on, and is not younger than it was.
func TestReloadInAnOutage(t *testing.T) {
	for name, r := range reloads(t) {
		t.Run(name, func(t *testing.T) {
			if name == "probe strict" {
				t.Skip("nothing but the node's own word counts, see TestReloadOfProbes")
			}
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				n.change(func() { clear(n.nodes) })
				s := newScripted(answerOf(5, "a"))
				s.named = "vault"
				old := watch(t, p, s, plain(t))
				old.fail(errors.New("no"))
				since := old.State().StaleSince
				settle(30 * time.Second)
				next := r.run(t, old)
				next.Start()
				old.release()
				for range 29 {
					st, want := next.State(), r.url
					if want == "" {
						want = "http://a:8200"
					}
					if !st.Active() || st.Target.URL != want || !st.StaleSince.Equal(since) || st.Nodes() != 3 {
						t.Fatalf("active %v, url %q, stale since %s instead of %s, %d nodes", st.Active(), st.Target.URL, st.StaleSince, since, st.Nodes())
					}
					settle(time.Second)
				}
				settle(time.Second)
				next.expect(t, "", discovery.ReasonStaleExpired)
				settle(time.Minute)
				next.expect(t, "", discovery.ReasonStaleExpired)

				// And once more: what has expired does not come back by a reload.
				again := reload{discovery: func(s *scripted) { s.key += "'" }}.run(t, next)
				again.Start()
				settle(time.Minute)
				again.expect(t, "", discovery.ReasonStaleExpired)
			})
		})
	}
}

// Whatever is changed while no node is active, a request is held no longer than hold, and no longer than since the loss.
func TestReloadInAFailover(t *testing.T) {
	for name, r := range reloads(t) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t, every(499*time.Millisecond))
				w.named = "vault"
				n.node("a").answers(429)
				w.say(answerOf(6, ""))
				settle(2 * time.Second)
				left := 5*time.Second - time.Since(w.State().Phase().Time)
				next := r.run(t, w)
				next.Start()
				if got := request(t.Context(), next.View, holding()); got != (outcome{"", left}) {
					t.Errorf("%+v, want none after the %s that are left", got, left)
				}
			})
		})
	}
}

// A reload while all is well rejects no request, and delays none, however slow the node is.
func TestReloadLosesNothing(t *testing.T) {
	for name, r := range reloads(t) {
		if name == "tag" || name == "active_by" || name == "all of them" {
			continue // changed for good
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t, func(c *Config) { c.Probe.Timeout = 5 * time.Second })
				w.named = "vault"
				n.change(func() { n.nodes["a.example.com:8200"] = n.nodes["a:8200"] })
				n.node("a").set(func(v *vault) { v.delay = 80 * time.Millisecond })
				settle(2 * time.Second)
				n.node("a").set(func(v *vault) { v.delay = 200 * time.Millisecond })
				settle(5 * time.Second)
				next := r.run(t, w)
				next.set(func(s *scripted) { s.hang = s.key != w.key }) // a new discovery takes a while to answer
				next.Start()
				w.release()
				for range 200 {
					if got := request(t.Context(), next.View, holding()); got != (outcome{"a", 0}) {
						t.Fatalf("%+v, want a at once (%v)", got, next.State().Phase())
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		})
	}
}

// What probes found is taken over as far as the new config probes, and at the same address.
func TestReloadOfProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		w.named = "vault"
		w.fail(errors.New("no"))
		settle(time.Second)
		w.expect(t, "a", discovery.ReasonConsulError)

		off := reload{config: func(c *Config) { c.Probe = Probe{} }, discovery: func(s *scripted) { s.key = "two" }}.run(t, w)
		off.Start()
		settle(50 * time.Second)
		if s := off.State(); s.By != BySource || s.Phase().Situation != Stale {
			t.Errorf("by %s, %v: nothing proves the node any more", s.By, s.Phase())
		}

		strict := reload{config: probing(ProbeStrict)}.run(t, w)
		strict.Start()
		settle(50 * time.Second)
		strict.expect(t, "a", discovery.ReasonConsulError)

		// An address that cannot be reached from here leaves the decision to discovery.
		w.set(func(s *scripted) { s.err = nil })
		settle(backoffMax)
		away := reload{config: func(c *Config) { c.Addressing = to(t, "{node}.away.example.com") }}.run(t, w)
		away.Start()
		for range 100 {
			away.expect(t, "a", discovery.ReasonOK)
			settle(100 * time.Millisecond)
		}
		if s := away.State(); s.By != BySource {
			t.Errorf("by %s", s.By)
		}

		n.node("a").kill()
		settle(time.Second)
		dead := reload{config: func(c *Config) { c.Probe.Interval++ }}.run(t, w)
		dead.Start()
		for range 100 {
			if active := activeOf(dead.State()); active != "" {
				t.Fatalf("active %q: that it is dead was known", active)
			}
			settle(10 * time.Millisecond)
		}
	})
}

// Before it has asked anything, a view that is new in an outage says no other reason than the one that holds.
func TestReloadThenLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		w.named = "vault"
		next := reload{discovery: func(s *scripted) { s.key, s.hang = "two", true }}.run(t, w)
		next.Start()
		settle(time.Second)
		next.expect(t, "a", discovery.ReasonOK)
		n.node("a").answers(429)
		settle(time.Second)
		next.expect(t, "", discovery.ReasonNoActive)
		n.node("b").answers(200)
		settle(time.Second)
		next.expect(t, "b", discovery.ReasonOK)
	})
}

// The first state of a view that replaces none knows nothing, and says so.
func TestTheFirstStateKnowsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.node("a").hangs(true)
		s := newScripted(answerOf(5, "a"))
		s.hang = true
		w := watch(t, p, s, plain(t, probing(ProbeStrict)))
		for range 2 {
			st := w.State()
			if st.Phase() != (Phase{}) || !st.Since.IsZero() || st.Active() {
				t.Errorf("%v since %s", st.Phase(), st.Since)
			}
			w.expect(t, "", discovery.ReasonStarting)
			w.set(func(s *scripted) { s.hang = false }) // and the node has yet to answer
			settle(time.Second)
		}
		settle(time.Minute)
		w.expect(t, "", discovery.ReasonUnhealthy)
		if st := w.State(); st.Since.IsZero() || !st.Phase().Time.IsZero() {
			t.Errorf("%v since %s: there never was one", st.Phase(), st.Since)
		}
	})
}

// A node that was silent when its config was replaced is no longer waited for than it has to be.
func TestReloadWhileSilent(t *testing.T) {
	pair := newTLSPair(t, "a")
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.node("a").set(func(v *vault) { v.tls = pair.server }) // not trusted, so that only discovery elects it
		s := newScripted(answerOf(5, "a"))
		s.named = "vault"
		old := watch(t, p, s, plain(t, probing(ProbeAuto), func(c *Config) { c.Addressing = toTLS(t) }))
		old.expect(t, "a", discovery.ReasonOK)
		n.node("a").hangs(true)
		settle(time.Second)
		next := reload{discovery: func(s *scripted) { s.key, s.hang = "two", true }}.run(t, old)
		next.Start()
		n.node("a").hangs(false)
		settle(time.Second)
		if p := next.State().Phase(); p.Situation != Active {
			t.Errorf("phase %v", p)
		}
	})
}

// A config that has no address for the node that is stale holds requests no longer than hold.
func TestReloadToAConfigWithoutAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		old.fail(errors.New("no"))
		settle(time.Second)
		next := reload{config: func(c *Config) { c.Addressing = to(t, "tagged:wan") }}.run(t, old)
		for range 2 { // before and after it runs
			if got := request(t.Context(), next.View, holding()); got.active != "" || got.after > 5*time.Second {
				t.Errorf("%+v", got)
			}
		}
	})
}

// A config that has no address for the active node is the end of an active node as any other: it is told, counted and
// remembered, and so is that it is over.
func TestReloadToAConfigWithoutAnAddressIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		settle(time.Second)
		wrong := reload{config: func(c *Config) { c.Addressing = to(t, "tagged:wan") }}.run(t, old)
		wrong.Start()
		old.release()
		settle(time.Second)
		if n := wrong.lines("no active node"); n != 1 {
			t.Errorf("%d lines, want one", n)
		}
		if h := wrong.History(); len(h) != 2 || h[0].Kind != ActiveLost || h[0].Reason != discovery.ReasonBadAddress || h[0].Previous != "a" {
			t.Errorf("the history, the newest first: %+v", h)
		}
		right := reload{config: func(c *Config) { c.Addressing = to(t, ToNodeName) }}.run(t, wrong)
		right.Start()
		wrong.release()
		settle(time.Second)
		if h := right.History(); len(h) != 3 || h[0].Kind != ActiveChanged || h[0].Gap != time.Second {
			t.Errorf("the history, the newest first: %+v", h)
		}
		if n, without := right.Stats().Losses.Count(discovery.ReasonBadAddress), right.WithoutActive(time.Now()); n != 1 || without != time.Second {
			t.Errorf("%d losses, %s without", n, without)
		}
	})
}

// A reload does not have a node that hangs taken for one that answers, nor for one of which nothing can be known.
func TestReloadWhileTheActiveNodeHangs(t *testing.T) {
	pair, other := newTLSPair(t, "a", "b", "c"), newTLSPair(t, "a", "b", "c")
	for name, cluster := range map[string]func(t *testing.T) (*network, *watched){
		"trusted":     func(t *testing.T) (*network, *watched) { return probedCluster(t) },
		"not trusted": func(t *testing.T) (*network, *watched) { return untrustedCluster(t, pair, other) },
	} {
		for change, r := range map[string]reload{
			"of the config":    {config: func(c *Config) { c.MaxStale++ }},
			"of the discovery": {discovery: func(s *scripted) { s.key = "another token" }},
		} {
			t.Run(name+", "+change, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, old := cluster(t)
					old.named = "vault"
					settle(2 * time.Second)
					n.node("a").hangs(true)
					settle(time.Second)
					if p := old.State().Phase(); p.Situation != Silent {
						t.Fatalf("phase %v", p)
					}
					next := r.run(t, old)
					next.Start()
					old.release()
					for range 50 {
						settle(100 * time.Millisecond)
						if p := next.State().Phase(); p.Situation == Active {
							t.Fatalf("phase %v", p)
						}
					}
					next.expect(t, "", discovery.ReasonUnhealthy)
					n.node("a").hangs(false)
					settle(time.Second)
					next.expect(t, "a", discovery.ReasonOK)
				})
			})
		}
	}
}

// A node that was believed although it is dead, since discovery insists, is believed on after a reload.
func TestReloadOfABelievedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, old := probedCluster(t)
		for _, host := range []string{"a", "b", "c"} {
			n.node(host).hangs(true)
		}
		settle(30 * time.Second)
		old.expect(t, "a", discovery.ReasonOK)
		next := reload{config: func(c *Config) { c.MaxStale++ }}.run(t, old)
		next.Start()
		old.release()
		for range 100 {
			settle(100 * time.Millisecond)
			if p := next.State().Phase(); p.Situation != Active {
				t.Fatalf("phase %v", p)
			}
		}
	})
}

// A view that is never started probes nothing, and logs nothing: its config may never run.
func TestAConfigThatComesToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, old := probedCluster(t)
		n.node("b").answers(200)
		settle(10 * time.Second)
		var events []Event
		old.pool().Listen(func(e Event) { events = append(events, e) })
		state, lines, history, tries := old.State(), old.logs.Len(), len(old.History()), n.tries()
		next := reload{config: func(c *Config) { c.Addressing = to(t, "tagged:wan") }}.run(t, old)
		if s := next.State(); s.Active() || s.ReasonAt(time.Now()) != discovery.ReasonBadAddress {
			t.Errorf("active %v, reason %s", s.Active(), s.reason)
		}
		synctest.Wait()
		if got := n.tries() - tries; got != 0 {
			t.Errorf("%d probes", got)
		}
		settle(10 * time.Second) // no query ends meanwhile
		next.release()
		synctest.Wait()
		if old.State() != state || old.logs.Len() != lines || len(old.History()) != history || len(events) != 0 {
			t.Errorf("another state: %t, %d lines, %d transitions, %d events", old.State() != state, old.logs.Len()-lines, len(old.History())-history, len(events))
		}
		if old.Stats() != next.Stats() || !old.records() {
			t.Error("the config before does not count on")
		}
	})
}

// Views for which a node is the same share its probes; what they found goes on through a reload.
func TestViewsShareProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, old := probedCluster(t)
		second := watch(t, old.pool(), old.scripted, plain(t, probing(ProbeAuto), func(c *Config) { c.MaxStale++ }))
		settle(10 * time.Millisecond)
		before := n.node("a").probes()
		settle(10 * time.Second)
		if asked := n.node("a").probes() - before; asked != 20 {
			t.Errorf("%d probes in 10 s, want one each 500ms", asked)
		}
		before = n.node("b").probes()
		next := reload{config: func(c *Config) { c.MaxStale += 2 }}.run(t, old)
		next.Start()
		old.release()
		second.release()
		synctest.Wait()
		if asked := n.node("b").probes() - before; asked != 0 || next.State().By != ByProbe {
			t.Errorf("%d probes for a reload, active by %s", asked, next.State().By)
		}
		settle(10 * time.Second)
		if c := n.node("a").connections(); c != 1 || len(next.View.cluster.nodes) != 3 {
			t.Errorf("%d connections, %d nodes are probed", c, len(next.View.cluster.nodes))
		}
	})
}
