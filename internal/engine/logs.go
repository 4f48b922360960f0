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
	began   time.Time  // of the present period
	written int        // lines in it
	held    []*logLine // the last line of each message that the period has no room for
}

// What changes all the time fills no log: of the lines of one view, or of one watcher, so many are written at once in each period.
// At its end, the last line of each other message follows.
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

// hold keeps a line until the end of the period, if that has no room for it; write then writes the lines that are kept.
func (l *loggers) hold(line *logLine, write func(*logLine)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, first := time.Now(), len(l.held) == 0
	if first && now.Sub(l.began) >= logPeriod {
		l.began, l.written = now, 0
	}
	if l.written < linesPerPeriod {
		l.written++
		return false
	}
	if i := slices.IndexFunc(l.held, func(o *logLine) bool { return o.message == line.message }); i >= 0 {
		line.repeated = l.held[i].repeated + 1
		l.held = slices.Delete(l.held, i, i+1)
	}
	if l.held = append(l.held, line); first {
		time.AfterFunc(l.began.Add(logPeriod).Sub(now), func() {
			for _, line := range l.next() {
				write(line)
			}
		})
	}
	return true
}

// next begins a period with the lines that were kept, and returns them.
func (l *loggers) next() []*logLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.held
	l.began, l.written, l.held = time.Now(), len(lines), nil
	return lines
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

// log queues a line for the latest logger, at once or at the end of the period. It never blocks.
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
