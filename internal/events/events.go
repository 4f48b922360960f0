// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package events emits the events of clusters through Caddy's events app.
package events

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// maxEvents is how many events may wait for their handlers, which may block.
const maxEvents = 64

// lateHandlers is how long handlers of an event may run after the config that emits it has ended.
const lateHandlers = 10 * time.Second

// queue has the events to be emitted. They belong to no config: events before the start of a config, or during a reload, are
// emitted by the config that runs next.
var queue = struct {
	sync.Mutex
	waiting []engine.Event
	dropped uint64
	more    chan struct{} // has an element if there may be an event to take
}{more: make(chan struct{}, 1)}

// Listen queues the events of a pool from now on.
func Listen(pool *engine.Pool) {
	pool.Listen(func(e engine.Event) {
		queue.Lock()
		defer queue.Unlock()
		if len(queue.waiting) >= maxEvents {
			queue.dropped++
			return
		}
		queue.waiting = append(queue.waiting, e)
		wakeEmitter()
	})
}

func wakeEmitter() {
	select {
	case queue.more <- struct{}{}:
	default:
	}
}

// Dropped returns how many events were dropped because the queue was full.
func Dropped() uint64 {
	queue.Lock()
	defer queue.Unlock()
	return queue.dropped
}

// Discard empties the queue.
func Discard() {
	queue.Lock()
	defer queue.Unlock()
	queue.waiting = nil
}

// Emitter emits events through the events app of one config. It takes them from the queue between the config's start and its
// end, since the app reads its subscriptions without a lock, and runs in a goroutine of its own, since Emit runs the handlers.
type Emitter struct {
	ctx    caddy.Context // of handlers
	events *caddyevents.App

	begin, end sync.Once
	ended      bool // guarded by the queue
	done       chan struct{}
}

// NewEmitter returns the emitter of a config, given the context of the module that the events are from.
func NewEmitter(ctx caddy.Context) (*Emitter, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	e := &Emitter{ctx: ctx, events: app.(*caddyevents.App), done: make(chan struct{})}
	// The config may end after an event is taken and before its handlers are called. The app calls none once its context has
	// ended, so that the event would be lost: this context ends later, so that no handler can stay for ever.
	var cancel context.CancelFunc
	e.ctx.Context, cancel = context.WithCancel(context.WithoutCancel(ctx.Context))
	context.AfterFunc(ctx.Context, func() { time.AfterFunc(lateHandlers, cancel) })
	return e, nil
}

// On subscribes a function to an event of Caddy. It must be called before the events app starts.
func (e *Emitter) On(name string, do func()) error { return e.events.On(name, onEvent{do}) }

// onEvent is a handler that ignores the data of its event.
type onEvent struct{ do func() }

// Handle implements [caddyevents.Handler].
func (o onEvent) Handle(context.Context, caddy.Event) error {
	o.do()
	return nil
}

// Begin starts emitting, unless the emitter has ended.
func (e *Emitter) Begin() { e.begin.Do(func() { go e.run() }) }

// End ends the emitter. It does not wait for a handler that blocks, and may be called more than once.
func (e *Emitter) End() {
	e.begin.Do(func() {}) // it must not start any more
	e.end.Do(func() {
		queue.Lock()
		defer queue.Unlock()
		e.ended = true
		close(e.done)
		wakeEmitter() // the emitter of the next config may have to take the events
	})
}

func (e *Emitter) run() {
	for {
		event, ok := e.take()
		switch {
		case ok:
			e.emit(event)
		default:
			select {
			case <-queue.more:
			case <-e.done:
				return
			}
		}
	}
}

// emit emits an event if a handler is subscribed to it.
func (e *Emitter) emit(event engine.Event) {
	if e.events.ShouldEmit(string(event.Kind)) {
		e.events.Emit(e.ctx, string(event.Kind), eventData(event))
	}
}

// take takes the next event, if there is one and the config has not ended.
func (e *Emitter) take() (event engine.Event, ok bool) {
	queue.Lock()
	defer queue.Unlock()
	switch {
	case e.ended:
		wakeEmitter()
		return event, false
	case len(queue.waiting) == 0:
		return event, false
	}
	event = queue.waiting[0]
	queue.waiting = append(queue.waiting[:0], queue.waiting[1:]...)
	return event, true
}

// eventData returns the data of an event. The values end up as arguments of commands and in URLs: they are numbers,
// words of closed sets, URLs whose host was checked, and names.
func eventData(e engine.Event) map[string]any {
	d := map[string]any{"cluster": e.Cluster, "instance": instance.ID}
	switch e.Kind {
	case engine.ActiveChanged:
		d["node"], d["url"], d["previous_node"], d["previous_url"] = safeName(e.Node), e.URL, safeName(e.Previous), e.PreviousURL
		d["gap_seconds"], d["changes"], d["by"] = e.Gap.Seconds(), e.Changes, e.By
	case engine.ActiveLost:
		d["previous_node"], d["previous_url"] = safeName(e.Previous), e.PreviousURL
		d["reason"], d["active_seconds"] = string(e.Reason), e.Active.Seconds()
	case engine.DiscoveryDown:
		d["reason"] = string(e.Reason)
	case engine.DiscoveryUp:
		d["outage_seconds"] = e.Outage.Seconds()
	case engine.NodeChanged:
		d["node"], d["state"], d["previous_state"] = safeName(e.Node), string(e.State), string(e.PreviousState)
	}
	return d
}

// safeName returns a name from Consul if it is a valid host name, else nothing: it may become an argument of a command.
func safeName(name string) string {
	if name, err := sanitize.Host(name); err == nil {
		return name
	}
	return ""
}
