// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// traffic sends clients to the active node of a view, one after each pause, for some time.
func traffic(v *View, answer Answer, pause, long time.Duration) {
	for range long / pause {
		time.Sleep(pause)
		v.Stats().Answered(answer)
	}
	synctest.Wait()
}

// The interval of the probes follows the traffic, and falls back when it ends.
func TestProbesFollowTheTraffic(t *testing.T) {
	for name, row := range map[string]struct {
		mode     Mode
		answer   Answer
		interval time.Duration
		pause    time.Duration // between two requests
		want     int           // probes in 10 s of traffic
	}{
		"much":                        {ProbeAuto, Redirected, 500 * time.Millisecond, time.Millisecond, 100},
		"much, and strict":            {ProbeStrict, Redirected, 500 * time.Millisecond, time.Millisecond, 100},
		"much, and proxied":           {ProbeAuto, Proxied, 500 * time.Millisecond, time.Millisecond, 100},
		"much, and a long interval":   {ProbeAuto, Redirected, time.Minute, time.Millisecond, 100},
		"some":                        {ProbeAuto, Redirected, 500 * time.Millisecond, 20 * time.Millisecond, 50},
		"little":                      {ProbeAuto, Redirected, 500 * time.Millisecond, 250 * time.Millisecond, 20},
		"none that meets the node":    {ProbeAuto, Unavailable, 500 * time.Millisecond, time.Millisecond, 20},
		"an interval that is shorter": {ProbeAuto, Redirected, 60 * time.Millisecond, time.Millisecond, 166},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t, probing(row.mode), every(row.interval))
				settle(row.interval + time.Millisecond)
				traffic(w.View, row.answer, row.pause, 2*time.Second) // the first is noticed with the next probe of any node
				settle(row.interval)
				traffic(w.View, row.answer, row.pause, row.interval)
				before := n.node("a").probes()
				traffic(w.View, row.answer, row.pause, 10*time.Second)
				if got := n.node("a").probes() - before; got < row.want*9/10 || got > row.want+1 {
					t.Errorf("%d probes in 10 s of traffic, want %d", got, row.want)
				}
				settle(row.interval)
				before = n.node("a").probes()
				settle(20 * row.interval)
				if got := n.node("a").probes() - before; got < 19 || got > 20 {
					t.Errorf("%d probes in 20 intervals without traffic", got)
				}
				if w.View.cluster.flows {
					t.Error("the traffic is still looked at")
				}
			})
		})
	}
}

// Whatever the traffic is like, there is at most one probe for ten requests beyond those of the interval, none within 100 ms of
// another one, and never none for longer than the interval.
func TestProbesFollowAnyTraffic(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 0))
				n, w := probedCluster(t)
				began, requests := time.Now(), 0
				for range 200 {
					pause := time.Duration(random.ExpFloat64() * float64(random.IntN(100)) * float64(time.Millisecond))
					burst := random.IntN(20)
					for range burst {
						w.View.Stats().Answered(Redirected)
					}
					requests += burst
					settle(pause)
				}
				a := n.node("a")
				if most := requests/trafficPerProbe + int(time.Since(began)/(500*time.Millisecond)) + 1; a.probes() > most {
					t.Errorf("%d probes for %d requests in %s", a.probes(), requests, time.Since(began))
				}
				for i, at := range a.asked[1:] {
					if gap := at.Sub(a.asked[i]); gap < trafficLeast || gap > 500*time.Millisecond {
						t.Errorf("two probes %s apart", gap)
					}
				}
			})
		})
	}
}

// Under load, a listener that is closed is noticed in a tenth of a second, though the connections that there are go on.
func TestTrafficShowsAClosedListener(t *testing.T) {
	for ms := range 10 {
		synctest.Test(t, func(t *testing.T) {
			n, w := probedCluster(t)
			traffic(w.View, Redirected, time.Millisecond, 2*time.Second+time.Duration(10*ms)*time.Millisecond)
			n.node("a").refuses()
			traffic(w.View, Redirected, time.Millisecond, 100*time.Millisecond)
			w.expect(t, "", discovery.ReasonUnhealthy)
		})
	}
}

// Probes that are not answered do not follow the traffic: a node is not dead sooner.
func TestTrafficDoesNotHastenDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		traffic(w.View, Redirected, time.Millisecond, 2*time.Second)
		n.node("a").set(func(v *vault) { v.down = syscall.EHOSTUNREACH }) // which comes at once
		traffic(w.View, Redirected, time.Millisecond, time.Second)
		w.expect(t, "a", discovery.ReasonOK)
		traffic(w.View, Redirected, time.Millisecond, 200*time.Millisecond)
		w.expect(t, "", discovery.ReasonUnhealthy)
	})
}

// The traffic of several views counts together, and that of two views with the same counters once.
func TestTrafficOfSeveralViews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, w := probedCluster(t)
		p, again := w.View.pool(), w.View.Config
		again.MaxStale++
		p.NextConfig()
		next := watch(t, p, w.scripted, again) // continues the counters
		again.Name = "another"
		other := watch(t, p, w.scripted, again)
		if w.Stats() != next.Stats() || other.Stats() == next.Stats() {
			t.Fatal("whose counters are whose?")
		}
		settle(time.Second)
		probes := func(each func()) int {
			for range 100 {
				each()
				settle(20 * time.Millisecond)
			}
			before := n.node("a").probes()
			for range 500 {
				each()
				settle(20 * time.Millisecond)
			}
			return n.node("a").probes() - before
		}
		if got := probes(func() { w.Stats().Answered(Redirected) }); got < 45 || got > 51 {
			t.Errorf("%d probes for 500 requests by two views with the same counters", got)
		}
		if got := probes(func() { w.Stats().Answered(Redirected); other.Stats().Answers.Add(Redirected) }); got < 90 || got > 101 {
			t.Errorf("%d probes for 500 requests by each of two views", got)
		}
	})
}
