// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Mode says how much the nodes' own word counts.
type Mode string

// The modes.
const (
	ProbeOff    Mode = ""       // not at all: nodes are not asked
	ProbeAuto   Mode = "auto"   // as far as they can be reached and trusted
	ProbeStrict Mode = "strict" // nothing else does
)

// Probe says how the nodes of a view are probed.
type Probe struct {
	Mode     Mode
	Interval time.Duration // between two probes of the active node
	Timeout  time.Duration // of one probe
	Fall     int           // so many probes in a row without an answer, and a node is dead
	TLS      *tls.Config   // not to be changed any more; nil: the defaults
	TLSKey   [sha256.Size]byte
}

// same reports whether two settings mean the same. That of TLS is told by its key.
func (p Probe) same(o Probe) bool {
	p.TLS, o.TLS = nil, nil
	return p == o
}

// The times of probes.
const (
	standbyFactor = 10               // intervals between two probes of a node that is not active,
	standbyMost   = 10 * time.Second // but no longer than this
	searchLeast   = 5 * time.Millisecond
	searchMost    = 100 * time.Millisecond
	searchPerNode = 2 * time.Millisecond // so that a thousand nodes are not asked all the time
	searchEager   = time.Minute          // without an active node; then its search goes on at the interval
	probesAtOnce  = 64
)

// findProbed finds what probes know of a node. What discovery newly says of it since the view did so last has it asked at once;
// its verdict stands until then, unless what marks it or its address has changed. A view that begins goes on from what another
// one knew before.
func (v *View) findProbed(m, before *member, running bool, now time.Time) {
	c, key := v.cluster, nodeKey{m.node.Identity(), m.own.URL, m.node.ServerName, v.Addressing.Leader(), v.Probe, v.selection}
	key.probe.TLS = nil
	n := c.nodes[key]
	switch {
	case n == nil:
		n = newProbedNode(key, newDialer(c.pool.dial, v.Probe.TLS, m.own.ServerName), m.marked, now)
		if !running && before != nil && before.probed != nil {
			n.goOnFrom(before.probed, now)
		}
		if v.started() {
			c.nodes[key] = n
		}
	case !running || before == nil:
	case before.marked != m.marked:
		n.setMark(m.marked, now)
	case m.health == healthCritical && before.health > healthCritical && n.verdict.kind == verdictActive:
		n.schedule.asap, n.silence.unconfirmed = true, true // its verdict stands until it has answered
	case !saysSame(&before.node, &m.node):
		n.schedule.asap = true
	}
	m.probed = n
}

// forgetNodes forgets the nodes that no view has any more.
func (c *Cluster) forgetNodes() {
	used := map[*probedNode]bool{}
	for _, v := range c.views {
		for i := range v.members {
			used[v.members[i].probed] = true
		}
	}
	for key, n := range c.nodes {
		if !used[n] {
			n.drop()
			delete(c.nodes, key)
		}
	}
}

// drop closes the connection that is kept, if there is one. To close one may take a while, and the lock of the cluster is held.
func (n *probedNode) drop() {
	if n.kept != nil {
		go n.kept.close()
		n.kept = nil
	}
}

// isActive reports whether a node is the active one of any view.
func (c *Cluster) isActive(n *probedNode) bool {
	for _, v := range c.views {
		if v.started() && v.incumbent() == n {
			return true
		}
	}
	return false
}

// incumbent returns the active node as it is probed; nil if there is none, or it is not probed.
func (v *View) incumbent() *probedNode {
	if m := v.member(v.current.Load().identity()); m != nil {
		return m.probed
	}
	return nil
}

// probed has the cluster know what a probe found, and returns the connection that is to be closed.
func (c *Cluster) probed(n *probedNode, l *probeConn, f Finding) (surplus *probeConn) {
	surplus = l
	c.update(func(now time.Time) bool {
		n.schedule.busy = false
		if c.nodes[n.key] != n { // no longer there
			return false
		}
		silent := false
		for _, v := range c.views {
			if m := v.member(n.key.id); m != nil && m.probed == n && v.counts() {
				v.Stats().probed(f)
			}
			silent = silent || v.current.Load().phase.Situation == Silent
		}
		active := c.isActive(n)
		if f.At.Before(n.schedule.notBefore) || f.Result == ResultActive && f.At.Before(n.schedule.claimsFrom) && !active {
			n.schedule.asap = true
			return silent || !now.Before(c.due)
		}
		if f.Result.answered() {
			if n.kept != nil && !n.kept.broke.Load() {
				n.silence.breaks = 0
			}
			surplus, n.kept = n.kept, l
		}
		was := n.verdict.kind
		news := n.take(f)
		if was != verdictActive && n.verdict.kind == verdictActive {
			for _, v := range c.views {
				if i := v.incumbent(); i != nil && i != n {
					i.schedule.asap = true // two cannot both be active for long
				}
			}
		}
		if n.kept == l && l.broke.Load() { // before it was kept, so that nobody saw it
			c.findBroken()
			news = true
		}
		// What fails at once, such as a look-up or a route, is given time to change; so is what fails on this machine.
		n.schedule.asap = n.schedule.asap || active && f.Result == ResultTimeout && n.reached && !n.dead()
		return news || silent || !now.Before(c.due)
	})
	return surplus
}

// findBroken looks for the kept connections that have broken, and reports whether there are any.
func (c *Cluster) findBroken() (any bool) {
	for _, n := range c.nodes {
		if n.kept == nil || !n.kept.broke.Load() {
			continue
		}
		any = true
		n.drop()
		// A node may have its reasons to close connections that are not used.
		if n.silence.breaks++; n.silence.breaks > breaksAtMost {
			continue
		}
		n.schedule.asap = true
		n.silence.unconfirmed = n.silence.unconfirmed || n.reached && n.verdict.kind != verdictOverruled && c.isActive(n)
	}
	return any
}

// plan starts the probes that are due, and sets the timer for what comes next.
func (c *Cluster) plan(now time.Time) {
	next := time.Hour
	for _, v := range c.views {
		if v.started() {
			next = v.plan(now, next)
		}
	}
	c.due = now.Add(next)
	c.timer.Reset(next)
}

// plan starts the probes that are due for one view, and returns how long it is until something else is, next at most.
func (v *View) plan(now time.Time, next time.Duration) time.Duration {
	s := v.current.Load()
	if s.phase.Situation == Stale {
		next = soonest(next, s.phase.Time.Sub(now))
	}
	every, incumbent := min(standbyFactor*v.Probe.Interval, standbyMost), v.incumbent()
	if s.identity() == (discovery.Identity{}) {
		every = v.search(now)
	}
	for i := range v.members {
		n := v.members[i].probed
		if n == nil {
			continue
		}
		interval := every
		if n == incumbent {
			interval = v.Probe.Interval
		}
		if !n.schedule.busy && (n.schedule.asap || now.Sub(n.schedule.asked) >= interval) {
			v.cluster.probe(n, now, n == incumbent)
		}
		if n.schedule.busy {
			if n == incumbent {
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

// soonest returns the sooner of two waits. What is over already has been seen to.
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

// probe probes a node. However many nodes there are, the active one is asked at once.
func (c *Cluster) probe(n *probedNode, now time.Time, first bool) {
	timeout := n.key.probe.Timeout
	n.schedule.busy, n.schedule.asap, n.schedule.asked = true, false, now
	l := n.dialer.newConn(timeout, func() { c.update(func(time.Time) bool { return c.findBroken() }) })
	c.probes.Go(func() {
		if !first {
			select {
			case c.slots <- struct{}{}:
				defer func() { <-c.slots }()
			case <-c.ctx.Done():
				return
			}
		}
		limited, cancel := context.WithTimeout(c.ctx, timeout)
		defer cancel()
		f := l.ask(limited, n.key.url, n.key.leader)
		if c.ctx.Err() != nil {
			l.close()
			return
		}
		c.probed(n, l, f).close()
	})
}

// awaitProbes waits for the probes, whose context has ended, and closes what they left, but never for long.
func (c *Cluster) awaitProbes() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.probes.Wait()
	}()
	await(done)
}
