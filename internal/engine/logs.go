// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"slices"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// loggers are those of the configs that use a view or a watcher now. Log lines go to the latest one, since the files of a logger are
// closed with its config, while views and watchers go on.
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

// logQueue writes log lines in a goroutine of its own, so that a slow log blocks neither the watch loop nor probes nor reloads.
type logQueue struct {
	once  sync.Once
	lines chan func()
}

// logQueueLength is how many lines may wait; more are discarded.
const logQueueLength = 256

func newLogQueue() *logQueue { return &logQueue{lines: make(chan func(), logQueueLength)} }

// log queues a line for the latest logger. It never blocks.
func (q *logQueue) log(to *loggers, level zapcore.Level, message string, fields ...zap.Field) {
	write := func() {
		if c := to.latest().Check(level, message); c != nil {
			c.Write(fields...)
		}
	}
	select {
	case q.lines <- write:
	default:
	}
}

// start starts the goroutine unless it runs already.
func (q *logQueue) start(ctx context.Context) { q.once.Do(func() { go q.run(ctx) }) }

// run writes until the context ends, and then what is left in the queue.
func (q *logQueue) run(ctx context.Context) {
	for ctx.Err() == nil || len(q.lines) > 0 {
		select {
		case write := <-q.lines:
			write()
		case <-ctx.Done():
		}
	}
}
