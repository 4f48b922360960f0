// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds a node that is probed: what its probes have found so far, and what its word is therefore worth.

package engine

import (
	"sync/atomic"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// subject is a node that is probed. It belongs to the goroutine of its view.
type subject struct {
	id         discovery.Identity
	base       string // URL that is probed: the one that redirects lead to
	serverName string // of its certificate, if that is not the host of base
	dialer     *dialer
	kept       *line // of the last probe that was answered, whose break tells of a death

	asap      bool      // probe it as soon as may be
	busy      bool      // a probe is under way
	asked     time.Time // when the last probe began
	notBefore time.Time // a probe that began earlier proves nothing

	word       Word
	finding    Finding                  // of the last probe that counted
	leader     string                   // where it said last that it is reached, if that was asked for
	latest     *atomic.Pointer[Finding] // the same, for readers of states; nil: there is none
	since      time.Time                // since when the finding has been the same
	patience   time.Time                // until when its first answer, or that it is ready, is waited for
	marked     bool                     // discovery marks it as the active one
	doubted    time.Time                // since when it is waited for, marked and not trusted, while it says that it is not active; zero: it is not
	ceased     bool                     // it has been waited for when it ceased to say that it is active: once while it is marked
	affirmed   bool                     // it is not trusted, and said last that it is active
	reached    bool                     // it has answered once
	unanswered int                      // probes in a row
	timed      bool                     // it has answered this view, so that there is
	usual      time.Duration            // what an answer takes, rather more than less
	died       time.Time                // since when it is dead; zero: it is not
	believed   bool                     // dead, but discovery has insisted for long enough that it is active
	suspect    bool                     // its connection has broken, or it has become critical, and it has not answered since
	alarms     int                      // breaks in a row after which it turned out to be alive
}

// The limits of patience with a node.
const (
	firstPatience = 250 * time.Millisecond // with the first answer of a node; after that, discovery alone decides
	readyPatience = 2 * time.Second        // with a node that is not trusted and was just marked, but denies that it is active
	silenceLeast  = 100 * time.Millisecond // an answer that takes no longer is never silence
	silenceFactor = 3                      // times the usual answer, and it is
	falseAlarms   = 3                      // so many breaks without a death, and the node is one that closes connections
	insistence    = 15 * time.Second       // of discovery on a dead node, after which it is believed
)

// newSubject returns a subject that is to be asked at once.
func newSubject(m *member, d *dialer, now time.Time) *subject {
	return &subject{
		id: m.node.Identity(), base: m.probeURL, serverName: m.node.ServerName, dialer: d,
		word: WordPending, asap: true, notBefore: now, patience: now.Add(firstPatience), marked: m.marked,
	}
}

// silentAfter is how long a probe may take before requests wait.
func (s *subject) silentAfter() time.Duration { return max(silenceLeast, silenceFactor*s.usual) }

// silent reports whether the node leaves a probe unanswered, although it once answered them.
func (s *subject) silent(now time.Time) bool {
	return s.reached && !s.believed && s.died.IsZero() &&
		(s.suspect || s.unanswered > 0 || s.busy && s.timed && now.Sub(s.asked) >= s.silentAfter())
}

// wavers reports whether the node has left its last probe unanswered, but not so many that it is dead.
func (s *subject) wavers() bool { return s.reached && s.unanswered > 0 && s.died.IsZero() }

// forget has the node asked again at once, and nothing that it said before count any more.
func (s *subject) forget(now time.Time) {
	s.notBefore, s.asap = now, true
	switch s.word {
	case WordActive, WordPassive, WordDead:
		s.word, s.died, s.believed = WordPending, time.Time{}, false
	}
}

// question has the node asked again at once, while its word stands.
func (s *subject) question() { s.asap, s.suspect = true, true }

// mark takes in that discovery has begun or ceased to mark the node as the active one. The mark may come before the node
// is ready: one that is not trusted cannot prove that it is, but is asked first.
func (s *subject) mark(marked bool, now time.Time) {
	s.forget(now)
	s.marked, s.doubted, s.ceased = marked, time.Time{}, false
	if !marked {
		return
	}
	s.doubted = now
	if s.word == WordAlive {
		s.word, s.patience = WordPending, now.Add(readyPatience)
	}
}

// unready reports whether the node, which is not trusted, is to be waited for, since it says that it is not active:
// perhaps it was marked too early, or its mark is about to go. That is so for a moment after it was marked, and once more
// when it ceases to say that it is active. So who speaks in its place can delay requests, but neither attract nor refuse them.
func (s *subject) unready(f Finding) bool {
	denies := f.Unproven.denies()
	if denies && s.affirmed && s.marked && !s.ceased {
		s.doubted, s.ceased = f.At, true
	}
	if f.Unproven != ResultNone {
		s.affirmed = !denies
	}
	return denies && !s.doubted.IsZero() && f.At.Before(s.doubted.Add(readyPatience))
}

// waits reports whether the node's answer is waited for no longer than patience.
func (s *subject) waits() bool {
	return s.word == WordPending && (!s.reached || s.finding.Result == ResultTLS)
}

// impatient gives up on the first answer of a node that may not be reachable at all from here, and on one that is not
// trusted.
func (s *subject) impatient(now time.Time) {
	switch {
	case !s.waits() || now.Before(s.patience):
	case s.reached:
		s.word = WordAlive
	default:
		s.word = WordUntold
	}
}

// hear takes a finding into account and reports whether it is news.
func (s *subject) hear(f Finding, strict bool, fall int) (news bool) {
	if f.Result == ResultNone {
		return false
	}
	was, suspected := s.word, s.suspect || s.unanswered > 0
	if f.Result.answered() {
		s.reached, s.unanswered, s.suspect, s.believed, s.died = true, 0, false, false, time.Time{}
		s.timed, s.usual = true, max(f.Took, s.usual-s.usual/8)
	}
	switch f.Result {
	case ResultActive:
		s.word, s.leader = WordActive, f.Leader
	case ResultTLS:
		s.leader = ""
		switch s.word = WordAlive; {
		case strict:
			s.word = WordPassive
		case s.unready(f):
			s.word, s.patience = WordPending, s.doubted.Add(readyPatience)
		}
	case ResultTimeout, ResultOther:
		if s.unanswered++; s.unanswered >= fall || !s.reached && !strict {
			s.die(strict)
		}
	case ResultRefused:
		s.die(strict)
	default:
		s.word = WordPassive
	}
	news = s.word != was || !s.finding.same(f) || suspected != (s.suspect || s.unanswered > 0)
	if s.finding.Result != f.Result || s.since.IsZero() {
		s.since = f.At
	}
	if s.finding = f; s.latest == nil {
		s.latest = new(atomic.Pointer[Finding])
	}
	s.latest.Store(&f)
	return news
}

// die takes the node for dead, or, if it was never reachable from here, for one of which nothing can be known.
func (s *subject) die(strict bool) {
	if !s.reached && !strict {
		s.word = WordUntold
		return
	}
	if s.word = WordDead; s.died.IsZero() {
		s.died = time.Now()
	}
	s.suspect = false
}

// believe has a node that has been dead for long be taken for alive, since discovery insists that it is: perhaps only this
// machine is cut off from it. It reports whether that begins now.
func (s *subject) believe(now time.Time) (begins bool) {
	if s.word != WordDead || s.believed || now.Sub(s.died) < insistence {
		return false
	}
	s.believed = true
	return true
}
