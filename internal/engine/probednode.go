// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"sync/atomic"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// verdict is what a node is by its probes: one case of a closed set, with the one time that belongs to it. The reason is in the
// outcome of the last probe.
type verdict struct {
	kind verdictKind
	at   time.Time // pending: how long its answer is waited for, zero: without limit; dead, overruled: since when it is dead
}

type verdictKind int

// The verdicts. None, unreachable, alive only and overruled leave the decision to discovery.
const (
	verdictNone        verdictKind = iota // not probed
	verdictPending                        // asked, no answer yet
	verdictUnreachable                    // never reachable from here
	verdictAliveOnly                      // answers, but its certificate is not trusted: what it says does not decide
	verdictActive                         // says that it is the active node
	verdictNotActive                      // says that it is not
	verdictDead                           // answered once, and does not any more
	verdictOverruled                      // dead, but discovery has insisted for overruleAfter that it is active
	verdictRedirector                     // a redirector answers: its address leads back
)

// nodeKey is all that the verdict on a node depends on. Views with the same key share the node. The settings are part of it, since
// two sites may differ in how long they wait for an answer and when they take a node for dead.
type nodeKey struct {
	id         discovery.Identity
	url        string              // where it is probed
	serverName string              // of its certificate, if that is not the host of the URL
	leader     bool                // it is also asked for the address of the leader
	probe      Probe               // without TLS, for which TLSKey stands
	selection  discovery.Selection // what marks it
}

// probedNode is a node with what probes have found of it. It is guarded by the pool.
type probedNode struct {
	key    nodeKey
	dialer *dialer
	kept   *probeConn // of the last answered probe: if it breaks, the node may be dead

	schedule     schedule
	silence      silence
	mark         mark
	reached      bool      // it has answered once
	readsDue     time.Time // when it is asked next what it does with reads, if that matters; zero: not since it became a standby
	readsUnclear bool      // its last answer to that did not tell

	findings
}

// findings is what probes have found of a node. Each state has a copy.
type findings struct {
	verdict verdict
	outcome ProbeOutcome                  // of the last probe that counted
	latest  *atomic.Pointer[ProbeOutcome] // the last outcome now, which may differ in its times; nil: never probed
	unclear time.Time                     // since when Vault answers, but does not tell its state; zero: it does
	leader  string                        // the address that it named last as that of the leader
	cluster string                        // the ID of the Vault cluster that it named last
	reads   reading                       // what it does with reads, since it is a standby
}

// silence says how long and how often a node leaves probes unanswered.
type silence struct {
	unanswered  int           // probes in a row
	usual       time.Duration // how long an answer takes, with some margin
	unconfirmed bool          // no answer yet since its connection broke, its checks became critical or a probe was not answered
	breaks      int           // of its connection in a row that were no death
}

// mark says how long requests wait for a node that discovery marks as the active one and that is not trusted, while it says that it
// is not active: it may have been marked too early, or is about to lose its mark. So an impostor can delay requests, but neither
// attract nor refuse them.
type mark struct {
	until      time.Time // end of the wait
	again      bool      // there is another wait when it stops saying that it is active: one for each mark
	saidActive bool      // the last thing that it said is that it is active
}

const (
	firstWait     = 250 * time.Millisecond // for the first answer of a node; after that, discovery decides
	readyWait     = 2 * time.Second        // for a node that is marked and not trusted to say that it is active
	silenceLeast  = 100 * time.Millisecond // an answer that takes no longer is never silence
	silenceFactor = 3                      // silence is an answer that takes so many times the usual
	breaksAtMost  = 3                      // after so many breaks that were no death, the node is known to close connections
	overruleAfter = 15 * time.Second       // for so long discovery must insist on a dead node
)

// newProbedNode returns a node that is due to be probed.
func newProbedNode(key nodeKey, d *dialer, marked bool, now time.Time) *probedNode {
	return &probedNode{
		key: key, dialer: d, schedule: schedule{asap: true, notBefore: now}, mark: mark{again: marked},
		findings: findings{verdict: verdict{verdictPending, now.Add(firstWait)}},
	}
}

// carryOver starts the node with the verdict on the same node at another address or with other settings. It stands until the
// first answer.
func (n *probedNode) carryOver(o *probedNode, now time.Time) {
	if o.key.probe.TLSKey == n.key.probe.TLSKey { // else it may have been trusted for lack of verification
		n.leader, n.cluster = o.leader, o.cluster
	}
	reached := false
	if o.key.url == n.key.url && o.key.serverName == n.key.serverName {
		n.dialer.resolved, reached = o.dialer.resolved, o.reached
	}
	switch kind := o.verdict.kind; {
	case kind == verdictActive, kind == verdictNotActive, kind == verdictRedirector, kind == verdictAliveOnly && n.key.probe.Mode != ProbeStrict:
		n.verdict = o.verdict
	case !reached:
		return
	case kind == verdictDead, kind == verdictOverruled:
		n.verdict = o.verdict
	case o.outcome.Result != ResultTLS:
		n.verdict.at = time.Time{} // pending until it answers or is dead
	}
	n.reached, n.outcome, n.unclear = reached, o.outcome, o.unclear
	if reached {
		n.silence = silence{usual: o.silence.usual, unconfirmed: o.silent(now)}
	}
}

// silentAfter returns how long an answer may take before requests wait.
func (n *probedNode) silentAfter() time.Duration {
	return max(silenceLeast, silenceFactor*n.silence.usual)
}

// dead reports whether the node is dead by its probes, overruled or not.
func (n *probedNode) dead() bool {
	return n.verdict.kind == verdictDead || n.verdict.kind == verdictOverruled
}

// silent reports whether the node, which answered once, leaves a probe unanswered and is not dead yet.
func (n *probedNode) silent(now time.Time) bool {
	s := &n.silence
	return n.reached && !n.dead() &&
		(s.unconfirmed || n.schedule.busy && now.Sub(n.schedule.asked) >= n.silentAfter())
}

// forget drops what the node said so far. The next probe is due.
func (n *probedNode) forget(now time.Time) {
	n.schedule.notBefore, n.schedule.asap = now, true
	switch n.verdict.kind {
	case verdictActive, verdictNotActive, verdictDead, verdictOverruled, verdictRedirector:
		n.verdict = verdict{kind: verdictPending}
		if !n.reached {
			n.verdict.at = now.Add(firstWait)
		}
	}
}

// setMark notes that discovery has set or removed the mark of the active node. The mark may come before the node is ready. A node
// that is not trusted cannot prove that it is ready, but is asked.
func (n *probedNode) setMark(active bool, now time.Time) {
	n.forget(now)
	n.mark.again, n.mark.until = active, time.Time{}
	if !active {
		return
	}
	n.mark.until = now.Add(readyWait)
	if n.verdict.kind == verdictAliveOnly {
		n.verdict = verdict{verdictPending, n.mark.until}
	}
}

// unready reports whether requests wait for the node, which is not trusted, by what it says.
func (m *mark) unready(o ProbeOutcome) bool {
	denies := o.Unproven.denies()
	if denies && m.saidActive && m.again {
		m.until, m.again = o.At.Add(readyWait), false
	}
	if o.Unproven != ResultNone {
		m.saidActive = !denies
	}
	return denies && o.At.Before(m.until)
}

// expire ends a wait that has a limit: for the first answer, since the node may not be reachable from here, and for a node that
// is not trusted.
func (n *probedNode) expire(now time.Time) {
	switch v := &n.verdict; {
	case v.kind != verdictPending || v.at.IsZero() || now.Before(v.at):
	case n.reached:
		*v = verdict{kind: verdictAliveOnly}
	default:
		*v = verdict{kind: verdictUnreachable}
	}
}

// apply applies an outcome and reports whether it is news.
func (n *probedNode) apply(o ProbeOutcome) (news bool) {
	strict := n.key.probe.Mode == ProbeStrict
	if o.Result == ResultNone { // the fault of this machine: where discovery may decide, it does so soon
		if n.verdict == (verdict{kind: verdictPending}) && !strict {
			n.verdict.at = o.At.Add(firstWait)
		}
		return false
	}
	s, was := &n.silence, n.verdict.kind
	if o.Result.answered() {
		n.reached, s.unanswered, s.unconfirmed = true, 0, false
		s.usual = max(o.Took, s.usual-s.usual/8)
	}
	if o.Result.answered() && o.Result != ResultUnclear {
		n.unclear = time.Time{}
	}
	switch o.Result {
	case ResultUnclear: // it lives: where discovery may decide, it does; else the node is what it was
		if n.unclear.IsZero() {
			n.unclear = o.At
		}
		switch {
		case !strict:
			n.verdict = verdict{kind: verdictAliveOnly}
		case n.verdict.kind != verdictActive:
			n.verdict = verdict{kind: verdictNotActive}
		}
	case ResultRedirector:
		n.verdict = verdict{kind: verdictRedirector}
	case ResultActive:
		n.verdict, n.leader = verdict{kind: verdictActive}, o.Leader
	case ResultTLS:
		n.leader = ""
		switch {
		case strict:
			n.verdict = verdict{kind: verdictNotActive}
		case n.mark.unready(o):
			n.verdict = verdict{verdictPending, n.mark.until}
		default:
			n.verdict = verdict{kind: verdictAliveOnly}
		}
	case ResultTimeout, ResultOther:
		s.unconfirmed = true
		if s.unanswered++; s.unanswered >= n.key.probe.Fall || !n.reached && !strict {
			n.die(strict)
		} else if n.reached && n.verdict.kind == verdictPending {
			n.verdict.at = time.Time{} // pending until it answers or is dead
		}
	case ResultRefused:
		n.die(strict)
	default:
		n.verdict = verdict{kind: verdictNotActive}
	}
	news = !n.unclear.IsZero() || n.verdict.kind != was || !n.outcome.same(o)
	if o.Result != ResultStandby {
		n.reads, n.readsDue = readsUnknown, time.Time{}
	}
	n.cluster = cmp.Or(o.ClusterID, n.cluster)
	if n.outcome = o; n.latest == nil {
		n.latest = new(atomic.Pointer[ProbeOutcome])
	}
	n.latest.Store(&o)
	return news
}

// die makes the node dead, or unreachable if it has never answered.
func (n *probedNode) die(strict bool) {
	if !n.reached && !strict {
		n.verdict = verdict{kind: verdictUnreachable}
		return
	}
	if n.silence.unconfirmed = false; !n.dead() {
		n.verdict = verdict{verdictDead, time.Now()}
	}
}
