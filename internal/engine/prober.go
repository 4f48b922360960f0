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
	leader   bool // ask for the leader's address, too
	subjects map[discovery.Identity]*subject
	results  chan probed
	broken   chan struct{} // has an element when a kept connection may have broken
	timer    *time.Timer
	slots    chan struct{} // bounds the probes that are under way
	group    sync.WaitGroup
	lost     time.Time // when the last active node was lost
}

// probed is the end of one probe.
type probed struct {
	subject *subject
	line    *line
	finding Finding
}

// newProber returns a prober. Its channels are nil where there are no probes: they never have anything to tell.
func newProber(p Probe, leader bool) *prober {
	pr := &prober{Probe: p, leader: leader, subjects: map[discovery.Identity]*subject{}}
	if p.Mode != ProbeOff {
		pr.results, pr.broken, pr.slots = make(chan probed), make(chan struct{}, 1), make(chan struct{}, probesAtOnce)
	}
	return pr
}

// wakeups is when something is due.
func (p *prober) wakeups() <-chan time.Time {
	if p.timer == nil {
		return nil
	}
	return p.timer.C
}

// sync takes over what discovery says of the nodes now. What is new of a node has it asked at once; its word stands until
// then, unless what marks it or its address has changed.
func (p *prober) sync(members []member, before map[discovery.Identity]*member, incumbent discovery.Identity, now time.Time) {
	if p.Mode == ProbeOff {
		return
	}
	stood := p.word(incumbent) == WordActive
	seen := make(map[discovery.Identity]bool, len(members))
	for i := range members {
		m := &members[i]
		if m.probeURL == "" {
			continue
		}
		id := m.node.Identity()
		seen[id] = true
		s, old := p.subjects[id], before[id]
		switch {
		case s == nil || s.base != m.probeURL || s.serverName != m.node.ServerName:
			s.leave()
			p.subjects[id] = &subject{
				id: id, base: m.probeURL, serverName: m.node.ServerName, dialer: newDialer(p.TLS, m.serverName()),
				word: WordPending, asap: true, notBefore: now, patience: now.Add(firstPatience),
			}
		case old == nil:
			s.asap = true
		case old.marked != m.marked:
			s.forget(now)
		case m.health == healthCritical && old.health > healthCritical && s.word == WordActive:
			s.question()
		case !saysSame(&old.node, &m.node):
			s.asap = true
		}
	}
	for id, s := range p.subjects {
		if !seen[id] {
			s.leave()
			delete(p.subjects, id)
		}
	}
	if stood && p.word(incumbent) != WordActive {
		p.lose(incumbent)
	}
}

// word returns the word of a node.
func (p *prober) word(id discovery.Identity) Word {
	if s := p.subjects[id]; s != nil {
		return s.word
	}
	return WordUntold
}

// anyClaims reports whether any node says that it is active.
func (p *prober) anyClaims() bool {
	for _, s := range p.subjects {
		if s.word == WordActive {
			return true
		}
	}
	return false
}

// leave closes what a subject keeps, if there is one.
func (s *subject) leave() {
	if s != nil {
		s.kept.close()
		s.kept = nil
	}
}

// hear takes in the end of a probe and reports whether it is news.
func (p *prober) hear(r probed, incumbent discovery.Identity) (news bool) {
	s := r.subject
	s.busy = false
	if p.subjects[s.id] != s { // no longer there
		r.line.close()
		return false
	}
	outdated := r.finding.At.Before(s.notBefore) ||
		r.finding.Result == ResultActive && r.finding.At.Before(p.lost) && s.id != incumbent
	if outdated {
		s.asap = true
		r.line.close()
		return false
	}
	if r.finding.Result.answered() {
		if s.kept != nil {
			s.alarms = 0
		}
		s.kept.close()
		s.kept = r.line
	} else {
		r.line.close()
	}
	was := s.word
	news = s.hear(r.finding, p.Mode == ProbeStrict, p.Fall)
	switch {
	case s.id == incumbent && was == WordActive && s.word != WordActive:
		p.lose(incumbent)
	case s.id != incumbent && was != WordActive && s.word == WordActive:
		if i := p.subjects[incumbent]; i != nil { // two cannot both be active for long
			i.asap = true
		}
	}
	s.asap = s.asap || s.unanswered > 0 && s.id == incumbent
	return news
}

// lose is called when the active node is no longer what it was: what others said before counts no more.
func (p *prober) lose(incumbent discovery.Identity) {
	p.lost = time.Now()
	for id, s := range p.subjects {
		if id != incumbent && s.word == WordActive {
			s.forget(p.lost)
		}
	}
}

// breaks looks at the kept connections, of which one may have broken, and reports whether that of the active node has.
func (p *prober) breaks(incumbent discovery.Identity) (news bool) {
	for _, s := range p.subjects {
		if s.kept == nil || !s.kept.broke.Load() {
			continue
		}
		s.leave()
		// A node may have its reasons to close connections that are not used.
		if s.alarms++; s.alarms > falseAlarms {
			continue
		}
		s.asap = true
		if s.id == incumbent && s.reached && !s.believed {
			s.suspect, news = true, true
		}
	}
	return news
}

// plan starts the probes that are due and sets the timer for what comes next.
func (p *prober) plan(ctx context.Context, incumbent discovery.Identity, lost time.Time) {
	if p.Mode == ProbeOff {
		return
	}
	now := time.Now()
	every := min(standbyFactor*p.Interval, standbyMost)
	if incumbent == (discovery.Identity{}) {
		every = p.search(now, lost)
	}
	next := time.Hour
	for id, s := range p.subjects {
		interval := every
		if id == incumbent {
			interval = p.Interval
		}
		if !s.busy && (s.asap || now.Sub(s.asked) >= interval) {
			p.probe(ctx, s, now, id == incumbent)
		}
		if s.busy {
			if id == incumbent {
				next = soonest(next, s.asked.Add(s.silentAfter()).Sub(now))
			}
		} else {
			next = soonest(next, s.asked.Add(interval).Sub(now))
		}
		if s.word == WordPending && !s.reached {
			next = soonest(next, s.patience.Sub(now))
		}
		if !s.died.IsZero() && !s.believed {
			next = soonest(next, s.died.Add(insistence).Sub(now))
		}
	}
	if p.timer == nil {
		p.timer = time.NewTimer(next)
	} else {
		p.timer.Reset(next)
	}
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
	most := max(searchMost, p.Interval/10, searchPerNode*time.Duration(len(p.subjects)))
	elapsed := now.Sub(lost)
	if elapsed >= searchEager {
		return max(p.Interval, most)
	}
	return min(max(elapsed, searchLeast), most)
}

// probe probes a node. However many nodes there are, the active one is asked at once.
func (p *prober) probe(ctx context.Context, s *subject, now time.Time, first bool) {
	s.busy, s.asap, s.asked = true, false, now
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
	if p.timer != nil {
		p.timer.Stop()
	}
	for _, s := range p.subjects {
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
