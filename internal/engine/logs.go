// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// loggers are those of the configs that use a view or a watcher now. Log lines go to the latest one, since the files of a logger are
// closed with its config, while views and watchers go on.
type loggers struct {
	mu      sync.Mutex
	list    []*zap.Logger
	written []time.Time // when the last lines were written, at most linesPerPeriod
	held    []*logLine  // the last line of each message for which there was no room yet
}

// What changes all the time fills no log: in any period, so many lines of one view, or of one watcher, are written. Of the others,
// the last one of each message follows as soon as there is room.
const (
	logPeriod      = 10 * time.Second
	linesPerPeriod = 3
)

// logLine is a line of the log.
type logLine struct {
	level    zapcore.Level
	message  string
	fields   []zap.Field
	repeated int // how many lines of this message were not written before it
}

// hold keeps a line if there is no room for it; write then writes it later.
func (l *loggers) hold(line *logLine, write func(*logLine)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, first := time.Now(), len(l.held) == 0
	if first && l.room(now) <= 0 {
		l.count(now)
		return false
	}
	if i := slices.IndexFunc(l.held, func(o *logLine) bool { return o.message == line.message }); i >= 0 {
		line.repeated = l.held[i].repeated + 1
		l.held = slices.Delete(l.held, i, i+1)
	}
	if l.held = append(l.held, line); first {
		l.later(now, write)
	}
	return true
}

// room returns after how long there is room for a line.
func (l *loggers) room(now time.Time) time.Duration {
	if len(l.written) < linesPerPeriod {
		return 0
	}
	return l.written[0].Add(logPeriod).Sub(now)
}

// count counts a line that is written.
func (l *loggers) count(now time.Time) {
	if l.written = append(l.written, now); len(l.written) > linesPerPeriod {
		l.written = slices.Delete(l.written, 0, 1)
	}
}

// later writes the lines that are held, one by one, when there is room.
func (l *loggers) later(now time.Time, write func(*logLine)) {
	time.AfterFunc(l.room(now), func() {
		l.mu.Lock()
		line, now := l.held[0], time.Now()
		l.held = slices.Delete(l.held, 0, 1)
		l.count(now)
		if len(l.held) > 0 {
			l.later(now, write)
		}
		l.mu.Unlock()
		write(line)
	})
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

// log queues a line for the latest logger, at once or when there is room. It never blocks.
func (q *logQueue) log(to *loggers, level zapcore.Level, message string, fields ...zap.Field) {
	write := func(line *logLine) { q.put(to, line) }
	if line := (&logLine{level: level, message: message, fields: fields}); !to.hold(line, write) {
		write(line)
	}
}

// put queues a line.
func (q *logQueue) put(to *loggers, line *logLine) {
	if line.repeated > 0 {
		line.fields = append(line.fields, zap.Int("repeated", line.repeated))
	}
	write := func() {
		if c := to.latest().Check(line.level, line.message); c != nil {
			c.Write(line.fields...)
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
