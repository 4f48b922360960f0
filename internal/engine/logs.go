// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how log lines are written by what outlives a config, and without ever waiting for a log.

package engine

import (
	"context"
	"slices"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// loggers are those of the configs that use a view or a watcher now. Log lines go to the latest one: a config that is
// replaced takes its logger's files with it, while views and watchers live on.
type loggers struct {
	mu   sync.Mutex
	list []*zap.Logger
}

func (l *loggers) add(log *zap.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, log)
}

func (l *loggers) remove(log *zap.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.list, log); i >= 0 {
		l.list = slices.Delete(l.list, i, i+1)
	}
}

func (l *loggers) latest() *zap.Logger {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 {
		return zap.NewNop()
	}
	return l.list[len(l.list)-1]
}

// teller does what may block, such as writing a log line or running somebody's handler of events, apart from what must
// not: the watch loop, the probes and reloads.
type teller struct{ queue chan func() }

// tellerQueue is how much may be left to tell: what comes on top while nothing moves is dropped.
const tellerQueue = 256

func newTeller() *teller { return &teller{make(chan func(), tellerQueue)} }

// tell has f called soon, in order. It never blocks.
func (t *teller) tell(f func()) {
	select {
	case t.queue <- f:
	default:
	}
}

// log writes a line to the latest logger.
func (t *teller) log(to *loggers, level zapcore.Level, message string, fields ...zap.Field) {
	t.tell(func() {
		if c := to.latest().Check(level, message); c != nil {
			c.Write(fields...)
		}
	})
}

// run tells until the context ends, and then what is left.
func (t *teller) run(ctx context.Context) {
	for {
		select {
		case f := <-t.queue:
			f()
		case <-ctx.Done():
			for {
				select {
				case f := <-t.queue:
					f()
				default:
					return
				}
			}
		}
	}
}
