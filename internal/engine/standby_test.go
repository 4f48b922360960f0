// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// standbysNamed is the fit standbys of a state.
func standbysNamed(names ...string) (list []Standby) {
	for _, name := range names {
		n := discovery.Node{Name: name, ID: "vault"}
		list = append(list, Standby{Node: n, hash: maphash.Comparable(standbySeed, n.Identity())})
	}
	return list
}

// The loss of one standby moves the keys that it served, and no others; all of them come back with it.
func TestStandbyForMovesNoOtherKeys(t *testing.T) {
	all := &State{phase: Phase{Situation: Active}, standbys: standbysNamed("a", "b", "c")}
	count := map[string]int{}
	for range 3000 {
		key := rand.Uint64()
		of := all.StandbyFor(key).Node.Name
		count[of]++
		for i, lost := range all.standbys {
			rest := &State{phase: all.phase, standbys: slices.Delete(slices.Clone(all.standbys), i, i+1)}
			if now := rest.StandbyFor(key).Node.Name; now == lost.Node.Name || lost.Node.Name != of && now != of {
				t.Fatalf("the loss of %s moves a key from %s to %s", lost.Node.Name, of, now)
			}
		}
	}
	for name, n := range count {
		if n < 750 || len(count) != 3 {
			t.Errorf("%s serves %d of 3000 keys: %v", name, n, count)
		}
	}
}

// Keys of all forms spread, also those that differ in a few bits only.
func TestStandbyForSpreadsKeys(t *testing.T) {
	s := &State{phase: Phase{Situation: Active}, standbys: standbysNamed("a", "b")}
	for _, shift := range []int{0, 20, 40, 56} {
		count := map[string]int{}
		for i := range uint64(256) {
			count[s.StandbyFor(i<<shift).Node.Name]++
		}
		if count["a"] < 64 || count["b"] < 64 {
			t.Errorf("keys that differ in the bits from %d: %v", shift, count)
		}
	}
}

func TestStandbyForWithoutAny(t *testing.T) {
	past := time.Now().Add(-time.Second)
	for name, s := range map[string]*State{
		"none is fit":    {phase: Phase{Situation: Active}},
		"none is active": {phase: Phase{Situation: None, Time: past}, standbys: standbysNamed("a")},
		"starting":       {standbys: standbysNamed("a")},
		"stale expired":  {phase: Phase{Stale, past}, standbys: standbysNamed("a")},
	} {
		if got := s.StandbyFor(1); got != nil || len(s.Standbys()) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, situation := range []Situation{Active, Silent} {
		s := &State{phase: Phase{Situation: situation}, standbys: standbysNamed("a")}
		if s.StandbyFor(1) == nil || len(s.Standbys()) != 1 {
			t.Errorf("situation %d: none", situation)
		}
	}
}

func TestStandbyForAllocatesNothing(t *testing.T) {
	s := &State{phase: Phase{Situation: Active}, standbys: standbysNamed("a", "b", "c")}
	if n := testing.AllocsPerRun(100, func() { s.StandbyFor(7) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStandbyFor(b *testing.B) {
	for _, n := range []int{2, 4} {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprint("vault-", i)
		}
		s := &State{phase: Phase{Situation: Active}, standbys: standbysNamed(names...)}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			key := uint64(0)
			for b.Loop() {
				key += uint64(len(s.StandbyFor(key).Node.Name))
			}
		})
	}
}

// standbysOf returns the names of the standbys that are fit now.
func standbysOf(w *watched) string {
	synctest.Wait()
	var names []string
	for _, s := range w.State().Standbys() {
		names = append(names, s.Node.Name)
	}
	return strings.Join(names, " ")
}

// wantStandbys fails unless these standbys are fit now, and no other one.
func wantStandbys(t *testing.T, w *watched, want string) {
	t.Helper()
	if got := standbysOf(w); got != want {
		t.Fatalf("fit: %q, want %q; %s", got, want, whyNoReads(w, "b"))
	}
}

func whyNoReads(w *watched, name string) string {
	for _, s := range w.State().NodeStatuses() {
		if s.Node.Name == name {
			return fmt.Sprintf("%s: reads %v, %s", name, s.Reads, s.WhyNoReads)
		}
	}
	return name + ": not there"
}

// readingCluster is a cluster whose standbys b (429) and c (473) serve reads, with a view that wants to know.
func readingCluster(t *testing.T, changes ...func(*Config)) (*network, *watched) {
	t.Helper()
	n, p := newNetwork(t)
	n.node("a").answers(200)
	n.node("b").set(func(v *vault) { v.reads = 200 })
	n.node("c").set(func(v *vault) { v.code, v.reads = 473, 200 })
	w := watch(t, p, newScripted(answerOf(5, "a")), plain(t, append([]func(*Config){probing(ProbeAuto), forReads}, changes...)...))
	w.expect(t, "a", discovery.ReasonOK)
	wantStandbys(t, w, "b c")
	return n, w
}

func forReads(c *Config) { c.Standbys = true }

// What keeps a standby from serving reads, and that nothing else does. The standby is b; c is fit throughout.
func TestFitness(t *testing.T) {
	answers := func(code int) func(*network, *watched) {
		return func(n *network, _ *watched) { n.node("b").answers(code) }
	}
	says := func(change func(*discovery.Node)) func(*network, *watched) {
		return func(_ *network, w *watched) { w.say(answerOf(6, "a", with("b", change))) }
	}
	set := func(change func(*vault)) func(*network, *watched) {
		return func(n *network, _ *watched) { n.node("b").set(change) }
	}
	for name, row := range map[string]struct {
		change func(*network, *watched)
		why    string // empty: it is fit
	}{
		"nothing":                      {func(*network, *watched) {}, ""},
		"performance standby":          {answers(473), ""},
		"a check warns":                {says(withNodeCheck("disk", "warning")), ""},
		"secondary":                    {answers(472), "472, disaster recovery secondary"},
		"cannot reach the active node": {answers(474), "474, standby that cannot reach"},
		"sealed":                       {answers(503), "503, sealed"},
		"sealed by its document":       {set(func(v *vault) { v.sealed = true }), "429, sealed"},
		"not initialized":              {answers(501), "501, not initialized"},
		"removed":                      {answers(530), "530, removed"},
		"a standby that answers 200":   {set(func(v *vault) { v.code, v.standby = 200, true }), "200, but standby"},
		"active, too":                  {answers(200), "says that it is active"},
		"without Vault's document":     {set(func(v *vault) { v.raw = writes("HTTP/1.1 429 x\r\nContent-Length: 2\r\n\r\n{}") }), "no answer of Vault's"},
		"does not tell its state":      {set(func(v *vault) { v.errors = quota }), "does not tell its state"},
		"redirector":                   {set(func(v *vault) { v.redirector = true }), "redirector"},
		"other cluster":                {set(func(v *vault) { v.cluster = "y" }), "of another Vault cluster"},
		"no cluster":                   {set(func(v *vault) { v.cluster = "" }), "of another Vault cluster"},
		"dead":                         {func(n *network, _ *watched) { n.node("b").kill() }, "connection refused"},
		"its listener is closed":       {func(n *network, _ *watched) { n.node("b").refuses() }, "connection refused"},
		"silent":                       {func(n *network, _ *watched) { n.node("b").hangs(true) }, "no answer in time"},
		"serving unknown":              {set(func(v *vault) { v.reads = 500 }), "does not tell whether"},
		"serving, but no document":     {set(func(v *vault) { v.mounts = "{}" }), "does not tell whether"},
		"forwards":                     {set(func(v *vault) { v.reads = 307 }), "forwards reads"},
		"node in maintenance":          {says(withNodeCheck("_node_maintenance", "critical")), "in maintenance"},
		"instance in maintenance":      {says(withCheck("_service_maintenance:vault", "critical", 1)), "in maintenance"},
		"critical":                     {says(withNodeCheck("serfHealth", "critical")), `critical: "serfHealth"`},
		"bad address":                  {says(func(n *discovery.Node) { n.Port = 0 }), NoPort},
		"gone from Consul":             {func(_ *network, w *watched) { w.say(answerOf(6, "a", only("a", "c"))) }, "not there"},
		"hidden by ACLs": {func(_ *network, w *watched) {
			w.say(answerOf(6, "a", only("a", "c"), incomplete(discovery.ReasonACLFiltered)))
		}, "not in the last answer"},
		"the active node's own address": {says(func(n *discovery.Node) { n.Name = "a"; n.ID = "again" }), "not there"},
		"registered twice": {func(_ *network, w *watched) {
			w.say(answerOf(6, "a", func(a *discovery.Answer) { twin := a.Nodes[1]; twin.ID = "z"; a.Nodes = append(a.Nodes, twin) }))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := readingCluster(t)
				row.change(n, w)
				settle(12 * time.Second)
				w.expect(t, "a", discovery.ReasonOK)
				want, got := "c", whyNoReads(w, "b")
				if row.why == "" {
					want = "b c"
				}
				if !strings.Contains(got, row.why) || strings.Contains(got, "reads true") != (row.why == "") {
					t.Errorf("%s, want %q", got, row.why)
				}
				wantStandbys(t, w, want)
				for _, s := range w.State().NodeStatuses() {
					if s.Elected && (s.Reads || s.WhyNoReads != "") {
						t.Errorf("the active node: %v, %q", s.Reads, s.WhyNoReads)
					}
				}
			})
		})
	}
}

// What a standby loses in a moment: nobody waits for the next probe.
func TestStandbysAreUnfitAtOnce(t *testing.T) {
	for name, row := range map[string]struct {
		fault  func(*network, *watched)
		within time.Duration
	}{
		"it dies":                {func(n *network, _ *watched) { n.node("b").kill() }, 0},
		"it hangs":               {func(n *network, _ *watched) { n.node("b").hangs(true) }, 600 * time.Millisecond},
		"its listener is closed": {func(n *network, _ *watched) { n.node("b").refuses() }, 500 * time.Millisecond},
		"it is sealed":           {func(n *network, _ *watched) { n.node("b").answers(503) }, 500 * time.Millisecond},
		"it is put in maintenance": {func(_ *network, w *watched) {
			w.say(answerOf(6, "a", with("b", withNodeCheck("_node_maintenance", "critical"))))
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := readingCluster(t)
				settle(10*time.Second + time.Millisecond)
				row.fault(n, w)
				settle(row.within)
				wantStandbys(t, w, "c")
				w.expect(t, "a", discovery.ReasonOK)
				if p := w.State().Phase(); p.Situation != Active {
					t.Errorf("requests for the active node wait: %v", p)
				}
			})
		})
	}
}

// Under load, also what the next probe has to show is known in a tenth of a second, and silence in two.
func TestTrafficOfReads(t *testing.T) {
	for name, row := range map[string]struct {
		fault  func(*vault)
		within time.Duration
	}{
		"its listener is closed": {(*vault).refuses, 100 * time.Millisecond},
		"it hangs":               {func(v *vault) { v.hangs(true) }, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := readingCluster(t)
				before, began := n.node("b").probes(), time.Now()
				traffic(w.View, SentToStandby, 4*time.Millisecond, 10*time.Second) // 125 a second for each of the two
				if got := n.node("b").probes() - before; got < 85 || got > 101 {
					t.Errorf("%d probes of a standby in %s of traffic, want about 95", got, time.Since(began))
				}
				if a := n.node("a").probes(); a > 25 {
					t.Errorf("%d probes of the active node, which serves none of them", a)
				}
				row.fault(n.node("b"))
				traffic(w.View, SentToStandby, 4*time.Millisecond, row.within)
				wantStandbys(t, w, "c")
			})
		})
	}
}

// A standby comes back when it is what it was.
func TestStandbysComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := readingCluster(t)
		b := n.node("b")
		b.kill()
		synctest.Wait()
		wantStandbys(t, w, "c")
		b.revive()
		settle(6 * time.Second)
		wantStandbys(t, w, "b c")
		b.hangs(true)
		settle(700 * time.Millisecond)
		wantStandbys(t, w, "c")
		b.hangs(false) // its silence ends with the answer
		settle(time.Millisecond)
		wantStandbys(t, w, "b c")
		b.cut() // a break that is no death
		settle(time.Millisecond)
		wantStandbys(t, w, "b c")
	})
}

// While no node is active, no standby serves reads. The next active node is none of them, and the last one is, once it has said so.
func TestStandbysInAFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := readingCluster(t)
		n.node("a").set(func(v *vault) { v.code, v.reads = 429, 200 })
		settle(500 * time.Millisecond)
		w.expect(t, "", discovery.ReasonNoActive)
		wantStandbys(t, w, "")
		if why := whyNoReads(w, "b"); !strings.Contains(why, "no node is active") {
			t.Error(why)
		}
		n.node("b").answers(200)
		settle(200 * time.Millisecond)
		w.expect(t, "b", discovery.ReasonOK)
		wantStandbys(t, w, "a c")
		n.node("b").kill()
		synctest.Wait()
		wantStandbys(t, w, "")
	})
}

// A standby is asked what it does with reads when it becomes one and every 10 s, and only if anybody wants to know.
func TestStandbysAreAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := readingCluster(t)
		b := n.node("b")
		asked := func(d time.Duration) int {
			before := b.readings()
			settle(d)
			return b.readings() - before
		}
		if got := asked(time.Minute); got != 6 {
			t.Errorf("asked %d times in a minute", got)
		}
		b.answers(503)
		if got := asked(time.Minute); got > 1 {
			t.Errorf("asked %d times in a minute though it is sealed", got)
		}
		b.answers(429)
		if got := asked(5 * time.Second); got != 1 {
			t.Errorf("asked %d times when it becomes a standby", got)
		}
		b.set(func(v *vault) { v.reads = 307 })
		settle(10 * time.Second)
		wantStandbys(t, w, "c")
		b.set(func(v *vault) { v.reads = 500 })
		if got := asked(30 * time.Second); got < 20 || got > 30 {
			t.Errorf("asked %d times in 30 s while it is not known", got)
		}
		if got := n.node("a").readings(); got != 0 {
			t.Errorf("the active node was asked %d times", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		n, _ := probedCluster(t)
		settle(time.Minute)
		if b := n.node("b"); b.readings() != 0 {
			t.Errorf("asked %d times though nobody wants to know", b.readings())
		}
	})
}

// A standby that once does not tell what it does with reads, since a quota refuses the question or the answer is lost, keeps them.
func TestStandbyThatOnceDoesNotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := readingCluster(t)
		b := n.node("b")
		b.set(func(v *vault) { v.reads = 429 })
		for before := b.readings(); b.readings() == before; {
			settle(10 * time.Millisecond)
		}
		settle(10 * time.Millisecond)
		wantStandbys(t, w, "b c")
		b.set(func(v *vault) { v.reads = 200 })
		settle(15 * time.Second)
		wantStandbys(t, w, "b c")
		b.set(func(v *vault) { v.reads = 429 })
		settle(12 * time.Second)
		wantStandbys(t, w, "c")
	})
}

// A reload that wants to know has them asked at once, and one that changes something else goes on with what is known.
func TestStandbysAndReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, old := probedCluster(t)
		n.node("b").set(func(v *vault) { v.reads = 200 })
		settle(time.Second)
		wantStandbys(t, old, "")
		p, c := old.View.pool(), old.View.Config
		c.Standbys = true
		p.NextConfig()
		next := watch(t, p, old.scripted, c)
		wantStandbys(t, next, "b")
		wantStandbys(t, old, "")
		old.release()
		asked := n.node("b").readings()
		c.MaxStale++
		p.NextConfig()
		wantStandbys(t, watch(t, p, old.scripted, c), "b")
		if got := n.node("b").readings() - asked; got != 0 {
			t.Errorf("asked %d times by a reload", got)
		}
	})
}

// A standby whose certificate is not trusted serves no reads, nor does any where the active node's is not.
func TestUntrustedStandbys(t *testing.T) {
	trusted, other := newTLSPair(t, "a", "b", "c"), newTLSPair(t, "a", "b", "c")
	for name, row := range map[string]struct {
		of   string // who is not trusted
		want string
		why  string
	}{
		"all are":         {"", "b c", ""},
		"the standby":     {"b", "c", "certificate not trusted"},
		"the active node": {"a", "", "probes cannot tell the cluster of the active node"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				for _, host := range []string{"a", "b", "c"} {
					pair := trusted
					if host == row.of {
						pair = other
					}
					n.node(host).set(func(v *vault) { v.tls, v.reads = pair.server, 200 })
				}
				n.node("a").answers(200)
				w := watch(t, p, newScripted(answerOf(5, "a")), plain(t, probing(ProbeAuto), forReads, func(c *Config) {
					c.Addressing, c.Probe.TLS = toTLS(t), trusted.client
				}))
				settle(20 * time.Second)
				w.expect(t, "a", discovery.ReasonOK)
				wantStandbys(t, w, row.want)
				if why := whyNoReads(w, "b"); !strings.Contains(why, row.why) {
					t.Error(why)
				}
			})
		})
	}
}

// Whatever happens to nodes and their registrations: those that are fit are sorted, none of them is the active node or in
// maintenance, there are none without an active node; and once all is quiet they are those that should be.
func TestStandbysInAnyTrouble(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { trouble(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func trouble(t *testing.T, random *rand.Rand) {
	t.Helper()
	n, w := readingCluster(t)
	names, index, active := []string{"a", "b", "c"}, uint64(10), "a"
	maintained := map[string]bool{}
	for i := range 50 {
		name := names[random.IntN(3)]
		v := n.node(name)
		switch random.IntN(12) {
		case 0:
			v.kill()
		case 1:
			v.cut()
		case 2:
			v.hangs(random.IntN(3) == 0)
		case 3:
			v.set(func(v *vault) { v.reads = []int{200, 200, 200, 200, 307, 500}[random.IntN(6)] })
		case 4:
			v.set(func(v *vault) { v.cluster = []string{"x", "x", "x", "x", "y"}[random.IntN(5)] })
		case 5:
			maintained[name] = random.IntN(5) == 0
		case 6:
			if active = name; random.IntN(4) == 0 {
				active = ""
			}
		default:
			v.set(func(v *vault) { v.down, v.hang = nil, false })
			v.set(func(v *vault) { v.code = []int{429, 429, 429, 473, 473, 503, 474}[random.IntN(7)] })
		}
		for _, other := range names {
			n.node(other).set(func(v *vault) {
				if v.code == 200 && other != active {
					v.code = 429
				} else if other == active {
					v.code, v.cluster, v.down, v.hang = 200, "x", nil, v.hang && i < 49
				}
			})
		}
		index++
		maintained[active] = maintained[active] && i < 49
		w.say(answerOf(index, active, func(a *discovery.Answer) {
			for i := range a.Nodes {
				if maintained[a.Nodes[i].Name] {
					withNodeCheck("_node_maintenance", "critical")(&a.Nodes[i])
				}
			}
		}))
		checkStandbys(t, w, maintained)
		settle(time.Duration(random.IntN(3000)) * time.Millisecond)
		checkStandbys(t, w, maintained)
	}
	settle(time.Minute)
	settle(time.Minute)
	want := ""
	for _, name := range names {
		v := n.node(name)
		if s := w.State(); s.Active() && s.By == ByProbe && name != active && !maintained[name] && v.down == nil && !v.hang && v.reads == 200 && v.cluster == "x" && (v.code == 429 || v.code == 473) {
			want = strings.TrimSpace(want + " " + name)
		}
	}
	wantStandbys(t, w, want)
}

// checkStandbys checks what holds at any moment.
func checkStandbys(t *testing.T, w *watched, maintained map[string]bool) {
	t.Helper()
	s := w.State()
	fit := s.Standbys()
	if !slices.IsSortedFunc(fit, func(a, b Standby) int { return strings.Compare(a.Node.Name, b.Node.Name) }) || !s.Active() && len(fit) > 0 {
		t.Fatalf("fit: %v, active %v", fit, s.Active())
	}
	for _, f := range fit {
		if maintained[f.Node.Name] || f.Node.Name == s.Node.Name || f.Target.URL == s.Target.URL {
			t.Fatalf("%s is fit", f.Node.Name)
		}
	}
	for _, m := range s.NodeStatuses() {
		if is := slices.ContainsFunc(fit, func(f Standby) bool { return f.Node.Name == m.Node.Name }); m.Reads != is || is != (m.WhyNoReads == "" && !m.Elected) {
			t.Fatalf("%s: reads %v, %q", m.Node.Name, m.Reads, m.WhyNoReads)
		}
	}
}

// While the active node leaves a probe unanswered, standbys go on serving reads: they have answered theirs.
func TestStandbysWhileTheActiveNodeIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := readingCluster(t)
		n.node("a").hangs(true)
		settle(2 * time.Second)
		if p := w.State().Phase(); p.Situation != Silent {
			t.Fatalf("phase %v", p)
		}
		wantStandbys(t, w, "b c")
		settle(2 * time.Second)
		w.expect(t, "", discovery.ReasonUnhealthy)
		wantStandbys(t, w, "")
	})
}
