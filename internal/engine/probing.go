// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"slices"
	"time"

	"go.uber.org/zap"
)

// Mode says how much the nodes' own answers count.
type Mode string

// The modes.
const (
	ProbeOff    Mode = ""       // not at all: there are no probes
	ProbeAuto   Mode = "auto"   // as far as nodes can be reached and trusted
	ProbeStrict Mode = "strict" // nothing else counts
)

// Probe says how the nodes of a view are probed.
type Probe struct {
	Mode     Mode
	Interval time.Duration // between two probes of the active node
	Timeout  time.Duration // of one probe
	Fall     int           // a node is dead after so many probes in a row without an answer
	TLS      *tls.Config   // not to be changed any more; nil: the defaults
	TLSKey   [sha256.Size]byte
}

// Verifies reports whether the probes verify the certificates of nodes.
func (p Probe) Verifies() bool { return p.TLS == nil || !p.TLS.InsecureSkipVerify }

// probesAtOnce is how many probes of nodes that no requests are sent to are under way at once.
const probesAtOnce = 64

// findProbed finds the probed node of a member. If discovery says anything new of it, the next probe is due; the verdict stands
// until the answer, unless the mark or the address has changed. The first time, before is the member of another view, from which
// the verdict is carried over.
func (v *View) findProbed(m, before *member, running bool, now time.Time) {
	c, key := v.cluster, nodeKey{m.node.Identity(), m.direct.URL, m.node.ServerName, v.Addressing.Leader(), v.Config.key().Probe, v.selection}
	n := c.nodes[key]
	switch {
	case n == nil:
		n = newProbedNode(key, newDialer(c.pool.dial, v.Probe.TLS, m.direct.ServerName), m.marked, now)
		if !running && before != nil && before.probed != nil {
			n.carryOver(before.probed, now)
		}
		if v.started() {
			c.nodes[key] = n
		}
	case !running || before == nil:
	case before.marked != m.marked:
		n.setMark(m.marked, now)
	case m.health == healthCritical && before.health > healthCritical && n.verdict.kind == verdictActive:
		n.schedule.asap, n.silence.unconfirmed = true, true
	case !saysSame(&before.node, &m.node):
		n.schedule.asap = true
	}
	m.probed = n
}

// forgetNodes removes the nodes that are in no view any more.
func (c *Cluster) forgetNodes() {
	needed := map[*probedNode]bool{}
	for _, v := range c.views {
		for i := range v.members {
			needed[v.members[i].probed] = true
		}
	}
	for key, n := range c.nodes {
		if !needed[n] {
			n.drop()
			delete(c.nodes, key)
		}
	}
}

// drop closes the kept connection, if there is one. It does not wait for that, since the pool is locked.
func (n *probedNode) drop() {
	if n.kept != nil {
		go n.kept.close()
		n.kept = nil
	}
}

// serves reports whether requests are sent to a node by any view.
func (c *Cluster) serves(n *probedNode) bool {
	return slices.ContainsFunc(c.views, func(v *View) bool {
		m := v.probing(n)
		return v.started() && m != nil && v.sendsTo(m)
	})
}

// probing returns the member that a node is probed for, nil if there is none.
func (v *View) probing(n *probedNode) *member {
	if m := v.member(n.key.id); m != nil && m.probed == n {
		return m
	}
	return nil
}

// sendsTo reports whether requests are sent to a member: it is the active node, or a standby that is fit to serve reads.
func (v *View) sendsTo(m *member) bool {
	return m.fit || m.node.Identity() == v.current.Load().identity()
}

// incumbent returns the active node as it is probed, nil if there is none or it is not probed.
func (v *View) incumbent() *probedNode {
	if m := v.member(v.current.Load().identity()); m != nil {
		return m.probed
	}
	return nil
}

// probed takes in what a probe found, and why this machine could not open a connection for it, if so. It returns the connection
// that is not needed any more, which the caller closes.
func (c *Cluster) probed(n *probedNode, conn *probeConn, o ProbeOutcome, unable string) (surplus *probeConn) {
	surplus = conn
	c.update(func(now time.Time) (news bool) {
		wasSilent := n.silent(now)
		n.schedule.busy = false
		if c.nodes[n.key] != n { // no longer there
			return false
		}
		c.noteUnable(n, unable)
		for _, v := range c.views {
			if v.probing(n) != nil && v.records() {
				v.Stats().probed(o)
			}
		}
		if o.At.Before(n.schedule.notBefore) {
			n.schedule.asap = true
			return wasSilent
		}
		if o.Result.answered() {
			if n.kept != nil && !n.kept.broke.Load() {
				n.silence.breaks = 0
			}
			if surplus, n.kept = n.kept, conn; surplus == conn {
				surplus = nil
			}
		}
		was := n.verdict.kind
		news = n.apply(o) || n.silent(now) != wasSilent
		if was != verdictActive && n.verdict.kind == verdictActive {
			for _, v := range c.views {
				if i := v.incumbent(); i != nil && i != n {
					i.schedule.asap = true // two cannot both be active for long
				}
			}
		}
		if n.kept == conn && conn.broke.Load() { // before it was kept, so that findBroken missed it
			c.findBroken()
			news = true
		}
		// Failures that come at once, such as those of a look-up or a route, get time until the next interval.
		n.schedule.asap = n.schedule.asap || c.serves(n) && o.Result == ResultTimeout && n.reached && !n.dead()
		return news
	})
	return surplus
}

// noteUnable logs when this machine begins to be unable to open connections for probes, and when it no longer is.
func (c *Cluster) noteUnable(n *probedNode, why string) {
	if c.unable == (why != "") {
		return
	}
	for _, v := range c.views {
		if v.probing(n) == nil || !v.started() {
			continue
		}
		if c.unable = why != ""; c.unable {
			c.log.log(&v.logs, zap.WarnLevel, "probes cannot open connections: this process is at a limit of its machine, such as that of open files",
				zap.String("error", why))
		} else {
			c.log.log(&v.logs, zap.InfoLevel, "probes can open connections again")
		}
		return
	}
}

// findBroken finds the kept connections that have broken, makes their nodes due, and reports whether there are any.
func (c *Cluster) findBroken() (any bool) {
	for _, n := range c.nodes {
		if n.kept == nil || !n.kept.broke.Load() {
			continue
		}
		any = true
		n.drop()
		// Some nodes close connections that are idle.
		if n.silence.breaks++; n.silence.breaks > breaksAtMost {
			continue
		}
		n.schedule.asap = true
		n.silence.unconfirmed = n.silence.unconfirmed || n.reached && n.verdict.kind != verdictOverruled && c.serves(n)
	}
	return any
}

// background runs a question to a node, with its timeout. It waits for a slot, unless it comes first.
func (c *Cluster) background(n *probedNode, first bool, ask func(context.Context)) {
	c.probes.Go(func() {
		if !first {
			select {
			case c.slots <- struct{}{}:
				defer func() { <-c.slots }()
			case <-c.ctx.Done():
				return
			}
		}
		limited, cancel := context.WithTimeout(c.ctx, n.key.probe.Timeout)
		defer cancel()
		ask(limited)
	})
}

// askReading asks a standby what it does with reads.
func (c *Cluster) askReading(n *probedNode, now time.Time) {
	due := now.Add(n.key.probe.Timeout + readsAgain) // not while this question is under way
	n.readsDue = due
	conn := n.dialer.newConn(n.key.probe.Timeout, func() {})
	c.background(n, false, func(ctx context.Context) {
		defer conn.close()
		reads := conn.reading(ctx, n.key.url)
		c.update(func(now time.Time) (news bool) {
			if n.readsDue != due { // it is no standby any more, or another time
				return false
			}
			unclear := n.readsUnclear
			n.readsUnclear = reads == readsUnknown
			if n.readsDue = now.Add(readsEvery); n.readsUnclear {
				n.readsDue = now.Add(readsAgain)
			}
			if n.readsUnclear && !unclear { // one answer may be lost, or refused by a quota: reads would move to another node, and back
				return false
			}
			news, n.reads = n.reads != reads, reads
			return news
		})
	})
}

// probe probes a node. One that requests are sent to does not wait for a slot.
func (c *Cluster) probe(n *probedNode, now time.Time, first bool) {
	n.schedule.busy, n.schedule.asap, n.schedule.asked, n.schedule.sent = true, false, now, 0
	kept := n.kept
	conn := n.dialer.newConn(n.key.probe.Timeout, func() { c.update(func(time.Time) bool { return c.findBroken() }) })
	c.background(n, first, func(limited context.Context) {
		o, unable := conn.ask(limited, n.key.url, n.key.leader), ""
		if o.Result == ResultNone && c.ctx.Err() == nil { // this machine cannot open a connection: the last one may still serve
			unable = o.Detail
			if again := kept.askAgain(limited, n.key.url, n.key.leader); again.Result.answered() {
				conn.close()
				conn, o = kept, again
			}
		}
		if c.ctx.Err() != nil {
			conn.close()
			return
		}
		c.probed(n, conn, o, unable).close()
	})
}
