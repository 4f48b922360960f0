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
	mu   sync.Mutex
	list []*zap.Logger

	written [linesPerPeriod]time.Time // when the last lines were written; the log queue's
	count   int                       // of all that were
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
//
// What changes all the time fills no log: in any period, so many lines of one view, or of one watcher, are written. Of the others,
// the last one of each message follows as soon as there is room.
type logQueue struct {
	once  sync.Once
	lines chan *logLine
}

const (
	logQueueLength = 256 // lines may wait; more are discarded
	logPeriod      = 10 * time.Second
	linesPerPeriod = 3
)

// logLine is a line of the log.
type logLine struct {
	to       *loggers
	level    zapcore.Level
	message  string
	fields   []zap.Field
	repeated int // how many lines of this message were not written before it
}

func newLogQueue() *logQueue { return &logQueue{lines: make(chan *logLine, logQueueLength)} }

// log queues a line for the latest logger. It never blocks.
func (q *logQueue) log(to *loggers, level zapcore.Level, message string, fields ...zap.Field) {
	select {
	case q.lines <- &logLine{to: to, level: level, message: message, fields: fields}:
	default:
	}
}

// start starts the goroutine unless it runs already.
func (q *logQueue) start(ctx context.Context) { q.once.Do(func() { go q.run(ctx) }) }

// run writes until the context ends, and then what is left in the queue.
func (q *logQueue) run(ctx context.Context) {
	var held []*logLine // in the order in which they came
	for ctx.Err() == nil || len(q.lines) > 0 {
		var room <-chan time.Time
		if len(held) > 0 {
			var next time.Duration
			held, next = write(held)
			room = time.After(next)
		}
		select {
		case line := <-q.lines:
			if i := slices.IndexFunc(held, func(o *logLine) bool { return o.to == line.to && o.message == line.message }); i >= 0 {
				line.repeated = held[i].repeated + 1
				held = slices.Delete(held, i, i+1)
			}
			held = append(held, line)
		case <-room:
		case <-ctx.Done():
		}
	}
	_, _ = write(held) // the last one
}

// write writes the lines for which there is room now. It returns the others, and after what time there is room for one of them.
func write(lines []*logLine) (held []*logLine, next time.Duration) {
	next = logPeriod
	for _, line := range lines {
		to, now := line.to, time.Now()
		oldest := &to.written[to.count%linesPerPeriod]
		if room := oldest.Add(logPeriod).Sub(now); room > 0 {
			held, next = append(held, line), min(next, room)
			continue
		}
		if c := to.latest().Check(line.level, line.message); c != nil {
			if line.repeated > 0 {
				line.fields = append(line.fields, zap.Int("repeated", line.repeated))
			}
			*oldest = now
			to.count++
			c.Write(line.fields...)
		}
	}
	return held, next
}
