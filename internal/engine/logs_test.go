// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Log lines go to the logger of a config that is still in use.
func TestLoggersFollowReloads(t *testing.T) {
	var l loggers
	l.latest().Info("nobody hears this")
	core1, logs1 := observer.New(zap.InfoLevel)
	core2, logs2 := observer.New(zap.InfoLevel)
	old, next := zap.New(core1), zap.New(core2)
	l.add(old)
	l.add(next)
	l.latest().Info("to the next")
	l.remove(next) // its config failed
	l.latest().Info("to the old")
	l.add(next)
	l.remove(old)
	l.latest().Info("to the next")
	if logs1.Len() != 1 || logs2.Len() != 2 {
		t.Errorf("%d and %d lines, want 1 and 2", logs1.Len(), logs2.Len())
	}
}

// A config whose requests still wait gets no line any more after its release: its log file may be closed.
func TestNoLinesToAReleasedLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		w.lose()
		go request(t.Context(), w.View, holding())
		synctest.Wait()
		w.release()
		before := w.logs.Len()
		w.fail(fmt.Errorf("no"))
		settle(4 * time.Second)
		if n := w.logs.Len() - before; n != 0 {
			t.Errorf("%d lines", n)
		}
		settle(time.Minute)
	})
}

// stuckCore is a log that blocks.
type stuckCore struct {
	zapcore.Core
	until chan struct{}
}

func (c *stuckCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, c)
}

func (c *stuckCore) Enabled(zapcore.Level) bool { return true }

func (c *stuckCore) Write(zapcore.Entry, []zapcore.Field) error {
	<-c.until
	return nil
}

// A log that blocks stops neither the watch loop nor the probes nor a release.
func TestALogThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.node("a").answers(200)
		s := newScripted(answerOf(5, "a"))
		stuck := &stuckCore{zapcore.NewNopCore(), make(chan struct{})}
		log := zap.New(stuck)
		v, err := p.Acquire(s, plain(t, probing(ProbeAuto)), log)
		if err != nil {
			t.Fatal(err)
		}
		v.Start()
		w := &watched{s, v, log, nil, nil}
		for i := range uint64(logQueueLength / 3) { // several lines each
			synctest.Wait()
			w.expect(t, "a", discovery.ReasonOK)
			s.fail(fmt.Errorf("failure %d", i))
			n.node("a").kill()
			synctest.Wait()
			if activeOf(v.State()) != "" {
				t.Fatal("still active")
			}
			n.node("a").revive()
			s.say(answerOf(6+i, "a"))
			settle(backoffMax)
		}
		if n := len(v.cluster.log.lines); n != logQueueLength {
			t.Fatalf("%d lines wait, want a full queue: %d", n, logQueueLength)
		}
		began := time.Now()
		v.Release(log)
		if took := time.Since(began); took != 0 {
			t.Errorf("the release took %s", took)
		}
		close(stuck.until)
	})
}
