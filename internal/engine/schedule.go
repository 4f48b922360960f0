// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// When nodes are probed. A node that requests are sent to is probed at the interval, or more often, see trafficPerProbe.
const (
	standbyFactor   = 10               // a node that is not active is probed once in so many intervals,
	standbyMost     = 10 * time.Second // and at least this often
	searchLeast     = 5 * time.Millisecond
	searchMost      = 100 * time.Millisecond
	searchPerNode   = 2 * time.Millisecond   // so that a thousand nodes are not probed all the time
	searchEager     = time.Minute            // after so long without an active node, all are probed at the interval
	readsEvery      = 10 * time.Second       // a standby is asked so often what it does with reads,
	readsAgain      = time.Second            // and if that is not known, so often
	trafficPerProbe = 10                     // a node that requests are sent to is probed once for so many of them,
	trafficLeast    = 100 * time.Millisecond // but no sooner than after this, and never less often than at the interval
)

// schedule says when a node is probed, and which of its probes count.
type schedule struct {
	asap      bool      // the next probe is due
	busy      bool      // a probe is under way
	asked     time.Time // when the last probe began
	sent      float64   // requests that clients have been sent to it with since, as far as is known
	notBefore time.Time // a probe that began earlier does not count
}

// plan starts the probes that are due, and sets the timer for what is due next.
func (c *Cluster) plan(now time.Time) {
	next := time.Hour
	c.lookAtTraffic(now)
	for _, v := range c.views {
		if v.started() {
			next = v.plan(now, next)
		}
	}
	c.due = now.Add(next)
	if c.flows {
		next = soonest(next, c.looked.Add(trafficLeast).Sub(now))
	}
	c.timer.Reset(next)
}

// lookAtTraffic counts the requests that were sent to each node since it was probed. It is here that they are counted by node,
// so that a request has no more to do than it had anyway. As long as there are any, the next look follows after trafficLeast;
// else with whatever is planned.
func (c *Cluster) lookAtTraffic(now time.Time) {
	if now.Sub(c.looked) < trafficLeast {
		return
	}
	c.looked, c.flows = now, false
	for _, v := range c.views {
		if !v.started() {
			continue
		}
		stats, incumbent, fit := v.Stats(), v.incumbent(), float64(len(v.current.Load().standbys))
		sent, reads := stats.since(Redirected)+stats.since(Proxied), stats.since(SentToStandby)
		c.flows = c.flows || sent+reads > 0
		for i := range v.members {
			switch m := &v.members[i]; {
			case m.probed == nil:
			case m.probed == incumbent:
				m.probed.schedule.sent += sent
			case m.fit: // reads are spread evenly, more or less
				m.probed.schedule.sent += reads / fit
			}
		}
	}
}

// interval returns the time between two probes of a node that requests are sent to: probes follow the traffic, as long as they are
// answered.
func (n *probedNode) interval() time.Duration {
	if n.schedule.sent >= trafficPerProbe && n.outcome.Result.answered() {
		return min(trafficLeast, n.key.probe.Interval)
	}
	return n.key.probe.Interval
}

// plan starts the probes that are due for a view. It returns the time until something else is due, at most next.
func (v *View) plan(now time.Time, next time.Duration) time.Duration {
	s := v.current.Load()
	if s.phase.Situation == Stale {
		next = soonest(next, s.phase.Time.Sub(now))
	}
	every := min(standbyFactor*v.Probe.Interval, standbyMost)
	if s.identity() == (discovery.Identity{}) {
		every = v.search(now)
	}
	for i := range v.members {
		n := v.members[i].probed
		if n == nil {
			continue
		}
		interval, serves := every, v.sendsTo(&v.members[i])
		if serves {
			interval = n.interval()
		}
		if !n.schedule.busy && (n.schedule.asap || now.Sub(n.schedule.asked) >= interval) {
			v.cluster.probe(n, now, serves)
		}
		if v.Standbys && n.outcome.Result == ResultStandby {
			if !now.Before(n.readsDue) {
				v.cluster.askReading(n, now)
			}
			next = soonest(next, n.readsDue.Sub(now))
		}
		if n.schedule.busy {
			if serves {
				next = soonest(next, n.schedule.asked.Add(n.silentAfter()).Sub(now))
			}
		} else {
			next = soonest(next, n.schedule.asked.Add(interval).Sub(now))
		}
		switch n.verdict.kind {
		case verdictPending:
			if !n.verdict.at.IsZero() {
				next = soonest(next, n.verdict.at.Sub(now))
			}
		case verdictDead:
			next = soonest(next, n.verdict.at.Add(overruleAfter).Sub(now))
		}
	}
	return next
}

// soonest returns the shorter of two waits, unless the second is over.
func soonest(a, b time.Duration) time.Duration {
	if b <= 0 {
		return a
	}
	return min(a, b)
}

// search returns the time between two probes of each node while none is active: the longer the search, the longer.
func (v *View) search(now time.Time) time.Duration {
	since := v.began
	if p := v.current.Load().PhaseAt(now); p.Situation == None && p.Time.After(since) {
		since = p.Time
	}
	most := max(searchMost, v.Probe.Interval/10, searchPerNode*time.Duration(len(v.members)))
	elapsed := now.Sub(since)
	if elapsed >= searchEager {
		return max(v.Probe.Interval, most)
	}
	return min(max(elapsed, searchLeast), most)
}
