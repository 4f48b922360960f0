// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"sync/atomic"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// verdict is what a node is by its probes: one case of a closed set, with the one time that belongs to it. Why a node is not
// active, or cannot be reached, is in the finding of its last probe.
type verdict struct {
	kind verdictKind
	at   time.Time // pending: until when its answer is waited for, zero for as long as it takes; dead, overruled: since when
}

type verdictKind int

// The verdicts. None, unreachable, alive only and overruled leave the decision to discovery.
const (
	verdictNone        verdictKind = iota // it is not probed
	verdictPending                        // its answer is waited for
	verdictUnreachable                    // it was never reachable from here
	verdictAliveOnly                      // it lives, but its connection cannot be trusted: nothing that it says decides
	verdictActive                         // it says that it is the active node
	verdictNotActive                      // it says that it is not
	verdictDead                           // it answered once, and does not any more
	verdictOverruled                      // it is dead, but discovery has insisted for long enough that it is active
)

// nodeKey is what all depends on that probes can find of a node. Views for which that is the same share it.
type nodeKey struct {
	id         discovery.Identity
	url        string // that is probed: the one that redirects lead to
	serverName string // of its certificate, if that is not the host of the URL
	leader     bool   // it is asked for the leader's address, too
	probe      Probe  // two sites may differ in how long they wait, and when they take a node for dead. Its TLS is told by the key
	selection  discovery.Selection
}

// probedNode is a node with what its probes have found so far. It belongs to a cluster.
type probedNode struct {
	key    nodeKey
	dialer *dialer
	kept   *probeConn // of the last probe that was answered, whose break tells of a death

	schedule schedule
	silence  silence
	mark     mark
	verdict  verdict
	reached  bool                     // it has answered once
	finding  Finding                  // of the last probe that counted
	latest   *atomic.Pointer[Finding] // the same, for readers of states; nil: there is none
	leader   string                   // where it said last that it is reached, if that was asked for
}

// schedule is when a node is probed, and which probe counts.
type schedule struct {
	asap       bool      // as soon as may be
	busy       bool      // a probe is under way
	asked      time.Time // when the last probe began
	notBefore  time.Time // a probe that began earlier proves nothing,
	claimsFrom time.Time // or not that the node is active
}

// silence is what is known of a node that leaves probes unanswered.
type silence struct {
	unanswered  int           // probes in a row
	usual       time.Duration // what an answer takes, rather more than less
	unconfirmed bool          // its connection has broken, or it has become critical, and it has not answered since
	breaks      int           // of its connection in a row after which it turned out to be alive
}

// mark is what discovery says of a node. One that is not trusted cannot prove that it is active, but is waited for while it
// denies it.
type mark struct {
	active     bool      // discovery marks it as the active one
	waitFrom   time.Time // readyWait is counted from here; zero: it is not waited for
	waitedLoss bool      // it has been waited for when it ceased to say that it is active: once while it is marked
	saidActive bool      // it is not trusted, and said last that it is active
}

// How long what is waited for.
const (
	firstWait     = 250 * time.Millisecond // for the first answer of a node; after that, discovery alone decides
	readyWait     = 2 * time.Second        // for a node that is not trusted and was just marked, but denies that it is active
	silenceLeast  = 100 * time.Millisecond // an answer that takes no longer is never silence
	silenceFactor = 3                      // times the usual answer, and it is
	breaksAtMost  = 3                      // so many breaks without a death, and the node is one that closes connections
	overruleAfter = 15 * time.Second       // of a dead node that discovery insists on
)

// newProbedNode returns a node that is to be asked at once.
func newProbedNode(key nodeKey, d *dialer, marked bool, now time.Time) *probedNode {
	return &probedNode{
		key: key, dialer: d, schedule: schedule{asap: true, notBefore: now}, mark: mark{active: marked},
		verdict: verdict{verdictPending, now.Add(firstWait)},
	}
}

// goOnFrom has the node be what it was at another address or by other settings, until it has answered.
func (n *probedNode) goOnFrom(o *probedNode, now time.Time) {
	if o.key.probe.TLSKey == n.key.probe.TLSKey { // else it may have been believed for want of verification
		n.leader = o.leader
	}
	reached := false
	if o.key.url == n.key.url && o.key.serverName == n.key.serverName {
		n.dialer.resolved, reached = o.dialer.resolved, o.reached
	}
	switch kind := o.verdict.kind; {
	case kind == verdictActive, kind == verdictNotActive, kind == verdictAliveOnly && n.key.probe.Mode != ProbeStrict:
		n.verdict = o.verdict
	case !reached:
		return
	case kind == verdictDead, kind == verdictOverruled:
		n.verdict = o.verdict
	case o.finding.Result != ResultTLS:
		n.verdict.at = time.Time{} // until it answers, or dies
	}
	n.reached, n.finding = reached, o.finding
	if reached {
		n.silence = silence{usual: o.silence.usual, unconfirmed: o.silent(now)}
	}
}

// silentAfter is how long a probe may take before requests wait.
func (n *probedNode) silentAfter() time.Duration {
	return max(silenceLeast, silenceFactor*n.silence.usual)
}

// dead reports whether the node answered once, and does not any more.
func (n *probedNode) dead() bool {
	return n.verdict.kind == verdictDead || n.verdict.kind == verdictOverruled
}

// silent reports whether the node leaves a probe unanswered, although it once answered them.
func (n *probedNode) silent(now time.Time) bool {
	s := &n.silence
	return n.reached && !n.dead() &&
		(s.unconfirmed || s.unanswered > 0 || n.schedule.busy && now.Sub(n.schedule.asked) >= n.silentAfter())
}

// forget asks the node again at once. Nothing that it said before counts any more.
func (n *probedNode) forget(now time.Time) {
	n.schedule.notBefore, n.schedule.asap = now, true
	switch n.verdict.kind {
	case verdictActive, verdictNotActive, verdictDead, verdictOverruled:
		n.verdict = verdict{kind: verdictPending}
		if !n.reached {
			n.verdict.at = now.Add(firstWait)
		}
	}
}

// setMark is called when discovery has begun or ceased to mark the node as the active one. The mark may come before the node
// is ready: one that is not trusted cannot prove that it is, but is asked first.
func (n *probedNode) setMark(active bool, now time.Time) {
	n.forget(now)
	n.mark = mark{active: active, saidActive: n.mark.saidActive}
	if !active {
		return
	}
	n.mark.waitFrom = now
	if n.verdict.kind == verdictAliveOnly {
		n.verdict = verdict{verdictPending, now.Add(readyWait)}
	}
}

// unready reports whether the node, which is not trusted, is to be waited for, since it says that it is not active:
// perhaps it was marked too early, or its mark is about to go. That is so for a moment after it was marked, and once more
// when it ceases to say that it is active. So what answers in its place can delay requests, but neither attract nor refuse them.
func (n *probedNode) unready(f Finding) bool {
	m, denies := &n.mark, f.Unproven.denies()
	if denies && m.saidActive && m.active && !m.waitedLoss {
		m.waitFrom, m.waitedLoss = f.At, true
	}
	if f.Unproven != ResultNone {
		m.saidActive = !denies
	}
	return denies && !m.waitFrom.IsZero() && f.At.Before(m.waitFrom.Add(readyWait))
}

// expire ends the wait for the first answer of a node that may not be reachable at all from here, and for one that is not
// trusted.
func (n *probedNode) expire(now time.Time) {
	switch v := &n.verdict; {
	case v.kind != verdictPending || v.at.IsZero() || now.Before(v.at):
	case n.reached:
		*v = verdict{kind: verdictAliveOnly}
	default:
		*v = verdict{kind: verdictUnreachable}
	}
}

// take takes a finding into account and reports whether it is news.
func (n *probedNode) take(f Finding) (news bool) {
	if f.Result == ResultNone {
		return false
	}
	s, was := &n.silence, n.verdict.kind
	strict := n.key.probe.Mode == ProbeStrict
	wasSilent := s.unconfirmed || s.unanswered > 0
	if f.Result.answered() {
		n.reached, s.unanswered, s.unconfirmed = true, 0, false
		s.usual = max(f.Took, s.usual-s.usual/8)
	}
	switch f.Result {
	case ResultActive:
		n.verdict, n.leader = verdict{kind: verdictActive}, f.Leader
	case ResultTLS:
		n.leader = ""
		switch {
		case strict:
			n.verdict = verdict{kind: verdictNotActive}
		case n.unready(f):
			n.verdict = verdict{verdictPending, n.mark.waitFrom.Add(readyWait)}
		default:
			n.verdict = verdict{kind: verdictAliveOnly}
		}
	case ResultTimeout, ResultOther:
		s.unanswered++
		if s.unanswered >= n.key.probe.Fall || !n.reached && !strict {
			n.die(strict)
		} else if n.reached && n.verdict.kind == verdictPending {
			n.verdict.at = time.Time{} // until the next answer, or death
		}
	case ResultRefused:
		n.die(strict)
	default:
		n.verdict = verdict{kind: verdictNotActive}
	}
	news = n.verdict.kind != was || !n.finding.same(f) || wasSilent != (s.unconfirmed || s.unanswered > 0)
	if n.finding = f; n.latest == nil {
		n.latest = new(atomic.Pointer[Finding])
	}
	n.latest.Store(&f)
	return news
}

// die takes the node for dead, or, if it was never reachable from here, for one of which nothing can be known.
func (n *probedNode) die(strict bool) {
	if !n.reached && !strict {
		n.verdict = verdict{kind: verdictUnreachable}
		return
	}
	if n.silence.unconfirmed = false; !n.dead() {
		n.verdict = verdict{verdictDead, time.Now()}
	}
}
