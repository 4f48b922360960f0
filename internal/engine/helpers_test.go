// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// scripted is a discovery whose answers a test writes. It answers queries with an index as Consul does: when there is
// something newer, or when the wait is over.
type scripted struct {
	key, named string // default: that of the pointer
	selection  discovery.Selection

	mu      sync.Mutex
	answer  discovery.Answer
	err     error
	noBlock bool            // answers at once, index or not
	limit   time.Duration   // that the server puts on the wait
	cutErr  error           // what ends a query that waits, after limit; queries that do not wait are answered
	hang    bool            // answers never
	deaf    bool            // not even when its context ends
	changed chan struct{}   // closed by set
	asked   []scriptedQuery // what came
	closed  bool
}

type scriptedQuery struct {
	at    time.Time
	index uint64
	limit time.Duration // of its context
}

func newScripted(a discovery.Answer) *scripted {
	s := &scripted{answer: a, changed: make(chan struct{})}
	s.key = fmt.Sprintf("scripted:%p", s)
	s.selection = discovery.Selection{Mode: discovery.ByTag, Tag: "active", Service: "vault"}
	return s
}

// set changes the script.
func (s *scripted) set(f func(*scripted)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

// say sets the next answer, and waits until all is quiet again.
func (s *scripted) say(a discovery.Answer) {
	s.set(func(s *scripted) { s.answer, s.err, s.hang = a, nil, false })
	synctest.Wait()
}

// fail makes all queries fail from now on, and waits until all is quiet again.
func (s *scripted) fail(err error) {
	s.set(func(s *scripted) { s.err = err })
	synctest.Wait()
}

func (s *scripted) Query(ctx context.Context, index uint64, wait time.Duration) (discovery.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	deadline, _ := ctx.Deadline()
	s.asked = append(s.asked, scriptedQuery{time.Now(), index, time.Until(deadline)})
	if s.limit > 0 {
		wait = min(wait, s.limit)
	}
	over := time.After(wait)
	for s.hang || s.deaf || s.err == nil && !s.noBlock && index > 0 && s.answer.Index == index {
		changed, done, waited := s.changed, ctx.Done(), false
		if s.deaf {
			done = nil
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-over:
			waited = true
		case <-done:
		}
		s.mu.Lock()
		if ctx.Err() != nil && !s.deaf {
			return discovery.Answer{}, ctx.Err()
		}
		if waited && !s.hang && !s.deaf {
			if s.cutErr != nil {
				return discovery.Answer{}, s.cutErr
			}
			break
		}
	}
	return s.answer, s.err
}

func (s *scripted) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *scripted) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *scripted) queries() []scriptedQuery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *scripted) Key() string                     { return s.key }
func (s *scripted) Cluster() string                 { return s.named }
func (s *scripted) Selection() discovery.Selection  { return s.selection }
func (s *scripted) MaxWait() time.Duration          { return 30 * time.Second }
func (s *scripted) Endpoint() string                { return "scripted" }
func (s *scripted) Open() (discovery.Source, error) { return s, nil }

// answerOf has nodes a, b and c, of which one is active.
func answerOf(index uint64, active string, changes ...func(*discovery.Answer)) discovery.Answer {
	a := discovery.Answer{Index: index}
	for _, name := range []string{"a", "b", "c"} {
		n := discovery.Node{Name: name, ID: "vault", Port: 8200, Tags: []string{"standby"}}
		if name == active {
			n.Tags, n.Index = []string{"active"}, index
		}
		a.Nodes = append(a.Nodes, n)
	}
	for _, change := range changes {
		change(&a)
	}
	return a
}

// with changes the node with a name in an answer.
func with(name string, change func(*discovery.Node)) func(*discovery.Answer) {
	return func(a *discovery.Answer) {
		for i := range a.Nodes {
			if a.Nodes[i].Name == name {
				change(&a.Nodes[i])
			}
		}
	}
}

// only leaves the nodes with some names in an answer.
func only(names ...string) func(*discovery.Answer) {
	return func(a *discovery.Answer) {
		a.Nodes = slices.DeleteFunc(a.Nodes, func(n discovery.Node) bool { return !slices.Contains(names, n.Name) })
	}
}

func incomplete(r discovery.Reason) func(*discovery.Answer) {
	return func(a *discovery.Answer) { a.Incomplete = r }
}

// plain is a config without probes.
func plain(t testing.TB, changes ...func(*Config)) Config {
	t.Helper()
	c := Config{Name: "vault", MaxStale: time.Minute, Addressing: to(t, ToNodeName)}
	for _, change := range changes {
		change(&c)
	}
	return c
}

func to(t testing.TB, redirectTo string) Addressing {
	t.Helper()
	a, err := NewAddressing("http", redirectTo, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// watched is a view that is in use.
type watched struct {
	*scripted
	*View
	log     *zap.Logger
	logs    *observer.ObservedLogs
	release func() // gives the view back, once
}

// watch acquires a view in a pool, starts it, and gives it back at the end of the test.
func watch(t *testing.T, p *Pool, s *scripted, c Config) *watched {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	v, err := p.Acquire(s, c, log)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{s, v, log, logs, sync.OnceFunc(func() { v.Release(log) })}
	t.Cleanup(w.release)
	v.Start()
	synctest.Wait()
	return w
}

// expect checks the state as readers see it now.
func (w *watched) expect(t *testing.T, active string, reason discovery.Reason) {
	t.Helper()
	s := w.State()
	got, is := activeOf(s), s.ReasonAt(time.Now())
	if got != active || is != reason {
		t.Fatalf("active %q, reason %s (%s), want %q, %s", got, is, s.Detail, active, reason)
	}
}

func activeOf(s *State) string {
	if !s.Active() {
		return ""
	}
	return s.Node.Name
}

// lines returns how many log lines with a message there are.
func (w *watched) lines(message string) int {
	synctest.Wait()
	return w.logs.FilterMessage(message).Len()
}

// outcome is what a request got, and after how long.
type outcome struct {
	active string
	after  time.Duration
}

// request asks for the active node as a request does.
func request(ctx context.Context, v *View, q *Queue) outcome {
	began := time.Now()
	return outcome{activeOf(v.Await(ctx, q, Waiter{})), time.Since(began)}
}

// wantError fails unless the error has all parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in the error: %v", part, err)
		}
	}
}
