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

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
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

const (
	standbyFactor = 10               // a node that is not active is probed once in so many intervals,
	standbyMost   = 10 * time.Second // and at least this often
	searchLeast   = 5 * time.Millisecond
	searchMost    = 100 * time.Millisecond
	searchPerNode = 2 * time.Millisecond // so that a thousand nodes are not probed all the time
	searchEager   = time.Minute          // after so long without an active node, all are probed at the interval
	readsEvery    = 10 * time.Second     // a standby is asked so often what it does with reads,
	readsAgain    = time.Second          // and if that is not known, so often
	probesAtOnce  = 64

	trafficPerProbe = 10                     // a node that requests are sent to is probed once for so many of them,
	trafficLeast    = 100 * time.Millisecond // but no sooner than after this, and never less often than at the interval
)

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

// drop closes the kept connection, if there is one. It does not wait for that, since the cluster is locked.
func (n *probedNode) drop() {
	if n.kept != nil {
		go n.kept.close()
		n.kept = nil
	}
}

// serves reports whether requests are sent to a node by any view.
func (c *Cluster) serves(n *probedNode) bool {
	return slices.ContainsFunc(c.views, func(v *View) bool {
		m := v.member(n.key.id)
		return v.started() && m != nil && m.probed == n && v.sendsTo(m)
	})
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
			if m := v.member(n.key.id); m != nil && m.probed == n && v.records() {
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
		if m := v.member(n.key.id); m == nil || m.probed != n || !v.started() {
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
			if n.readsDue = now.Add(readsEvery); reads == readsUnknown {
				n.readsDue = now.Add(readsAgain)
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

// awaitProbes waits for the probes to end, whose context has ended, but never for long.
func (c *Cluster) awaitProbes() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.probes.Wait()
	}()
	await(done)
}
