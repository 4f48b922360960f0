// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds when which node is probed.

package engine

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"sync"
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

// prober probes the nodes of one view. All of it but the probes themselves happens in the goroutine of the view.
type prober struct {
	Probe
	dial    dialFunc
	leader  bool // ask for the leader's address, too
	nodes   map[discovery.Identity]*probedNode
	results chan probed
	broken  chan struct{} // has an element when a kept connection may have broken
	slots   chan struct{} // bounds the probes that are under way
	group   sync.WaitGroup

	lost   time.Time          // when the last active node was lost
	lostBy discovery.Identity // which node that is, as long as none has taken its place
}

// probed is the end of one probe.
type probed struct {
	subject *probedNode
	line    *line
	finding Finding
}

// newProber returns a prober. Its channels are nil where there are no probes: they never have anything to tell.
func newProber(p Probe, dial dialFunc, leader bool) *prober {
	pr := &prober{Probe: p, dial: dial, leader: leader, nodes: map[discovery.Identity]*probedNode{}}
	if p.Mode != ProbeOff {
		pr.results, pr.broken, pr.slots = make(chan probed), make(chan struct{}, 1), make(chan struct{}, probesAtOnce)
	}
	return pr
}

// sync takes over what discovery says of the nodes now. What is new of a node has it asked at once; its word stands until
// then, unless what marks it or its address has changed.
func (p *prober) sync(members []member, before map[discovery.Identity]*member, now time.Time) {
	if p.Mode == ProbeOff {
		return
	}
	seen := make(map[discovery.Identity]bool, len(members))
	for i := range members {
		m := &members[i]
		if m.probeURL == "" {
			continue
		}
		id := m.node.Identity()
		seen[id] = true
		s, old := p.nodes[id], before[id]
		switch {
		case s == nil || s.base != m.probeURL || s.serverName != m.node.ServerName:
			s.leave()
			p.nodes[id] = newProbedNode(m, newDialer(p.dial, p.TLS, m.probeName, m.known), now)
		case old == nil:
			s.schedule.asap = true
		case old.marked != m.marked:
			s.setMark(m.marked, now)
		case m.health == healthCritical && old.health > healthCritical && s.verdict.kind == verdictActive:
			s.question()
		case !saysSame(&old.node, &m.node):
			s.schedule.asap = true
		}
	}
	for id, s := range p.nodes {
		if !seen[id] {
			s.leave()
			delete(p.nodes, id)
		}
	}
}

// anyClaims reports whether any node says that it is active.
func (p *prober) anyClaims() bool {
	for _, s := range p.nodes {
		if s.verdict.kind == verdictActive {
			return true
		}
	}
	return false
}

// leave closes what a subject keeps, if there is one.
func (s *probedNode) leave() {
	if s != nil {
		s.kept.close()
		s.kept = nil
	}
}

// hear takes in the end of a probe and reports whether it is news.
func (p *prober) hear(r probed, incumbent discovery.Identity) (news bool) {
	s := r.subject
	s.schedule.busy = false
	if p.nodes[s.id] != s { // no longer there
		r.line.close()
		return false
	}
	outdated := r.finding.At.Before(s.schedule.notBefore) ||
		r.finding.Result == ResultActive && r.finding.At.Before(p.lost) && s.id != incumbent
	if outdated {
		s.schedule.asap = true
		r.line.close()
		return false
	}
	if r.finding.Result.answered() {
		if s.kept != nil && !s.kept.broke.Load() {
			s.silence.breaks = 0
		}
		s.kept.close()
		if s.kept = r.line; s.kept.broke.Load() { // before it was kept, so that nobody saw it
			signal(p.broken)
		}
	} else {
		r.line.close()
	}
	was := s.verdict.kind
	news = s.take(r.finding, p.Mode == ProbeStrict, p.Fall)
	if i := p.nodes[incumbent]; i != nil && i != s && was != verdictActive && s.verdict.kind == verdictActive {
		i.schedule.asap = true // two cannot both be active for long
	}
	// What fails at once, such as a look-up or a route, is given time to change; so is what fails on this machine.
	s.schedule.asap = s.schedule.asap || s.wavers() && s.id == incumbent && r.finding.Result == ResultTimeout
	return news
}

// lose is called while the active node is no longer what it was, and none has taken its place: that others said before
// that they are active counts no more. It reports whether any did.
func (p *prober) lose(incumbent discovery.Identity, now time.Time) (any bool) {
	if p.lostBy != incumbent {
		p.lost, p.lostBy = now, incumbent
	}
	for id, s := range p.nodes {
		if id != incumbent && s.verdict.kind == verdictActive && s.finding.At.Before(p.lost) {
			s.forget(now)
			any = true
		}
	}
	return any
}

// breaks looks at the kept connections, of which one may have broken.
func (p *prober) breaks(incumbent discovery.Identity) {
	for _, s := range p.nodes {
		if s.kept == nil || !s.kept.broke.Load() {
			continue
		}
		s.leave()
		// A node may have its reasons to close connections that are not used.
		if s.silence.breaks++; s.silence.breaks > breaksAtMost {
			continue
		}
		s.schedule.asap = true
		s.silence.unconfirmed = s.silence.unconfirmed || s.id == incumbent && s.reached && s.verdict.kind != verdictOverruled
	}
}

// plan starts the probes that are due and returns how long it is until something else is.
func (p *prober) plan(ctx context.Context, now time.Time, incumbent discovery.Identity, lost time.Time) (next time.Duration) {
	every := min(standbyFactor*p.Interval, standbyMost)
	if incumbent == (discovery.Identity{}) {
		every = p.search(now, lost)
	}
	next = time.Hour
	for id, s := range p.nodes {
		interval := every
		if id == incumbent {
			interval = p.Interval
		}
		if !s.schedule.busy && (s.schedule.asap || now.Sub(s.schedule.asked) >= interval) {
			p.probe(ctx, s, now, id == incumbent)
		}
		if s.schedule.busy {
			if id == incumbent {
				next = soonest(next, s.schedule.asked.Add(s.silentAfter()).Sub(now))
			}
		} else {
			next = soonest(next, s.schedule.asked.Add(interval).Sub(now))
		}
		if s.verdict.kind == verdictPending && !s.verdict.at.IsZero() {
			next = soonest(next, s.verdict.at.Sub(now))
		}
		if s.verdict.kind == verdictDead {
			next = soonest(next, s.verdict.at.Add(overruleAfter).Sub(now))
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
func (p *prober) search(now, lost time.Time) time.Duration {
	most := max(searchMost, p.Interval/10, searchPerNode*time.Duration(len(p.nodes)))
	elapsed := now.Sub(lost)
	if elapsed >= searchEager {
		return max(p.Interval, most)
	}
	return min(max(elapsed, searchLeast), most)
}

// probe probes a node. However many nodes there are, the active one is asked at once.
func (p *prober) probe(ctx context.Context, s *probedNode, now time.Time, first bool) {
	s.schedule.busy, s.schedule.asap, s.schedule.asked = true, false, now
	l := s.dialer.line(p.Timeout, func() { signal(p.broken) })
	p.group.Go(func() {
		if !first {
			select {
			case p.slots <- struct{}{}:
				defer func() { <-p.slots }()
			case <-ctx.Done():
				return
			}
		}
		limited, cancel := context.WithTimeout(ctx, p.Timeout)
		defer cancel()
		f := l.ask(limited, s.base, p.leader)
		select {
		case p.results <- probed{s, l, f}:
		case <-ctx.Done():
			l.close()
		}
	})
}

// stop waits for the probes, whose context has ended, and closes what they left.
func (p *prober) stop() {
	p.group.Wait()
	for _, s := range p.nodes {
		s.leave()
	}
}

// signal puts an element into a channel that holds one, unless it is there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
