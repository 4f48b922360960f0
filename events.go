// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how what happens to a cluster becomes an event of Caddy's.

package vaultredirect

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// maxEvents is how many events may wait for their handlers, which may block.
const maxEvents = 64

// lateHandlers is for how long handlers of an event may run on once the config has ended that emits it.
const lateHandlers = 10 * time.Second

// events are those that wait to be emitted. They belong to no config: what happens before a config has started, or while
// one replaces another, is emitted by the one that runs next.
var events struct {
	sync.Mutex
	waiting []engine.Event
	dropped uint64
	more    chan struct{} // has an element when there may be something to take
}

func init() {
	events.more = make(chan struct{}, 1)
	pool.Listen(func(e engine.Event) {
		events.Lock()
		defer events.Unlock()
		if len(events.waiting) >= maxEvents {
			events.dropped++
			return
		}
		events.waiting = append(events.waiting, e)
		wakeEmitter()
	})
}

func wakeEmitter() {
	select {
	case events.more <- struct{}{}:
	default:
	}
}

// droppedEvents returns how many events there was no room for.
func droppedEvents() uint64 {
	events.Lock()
	defer events.Unlock()
	return events.dropped
}

// emitter emits events by the events app of one config: those that it takes between the config's start and its end, since the
// app reads its subscriptions without a lock, and from a goroutine of its own, since handlers are run by who emits.
type emitter struct {
	ctx    caddy.Context // of handlers
	events *caddyevents.App

	once  sync.Once // it has begun, or never will
	end   func()
	ended bool // guarded by events
	done  chan struct{}
}

// newEmitter returns the emitter of a config, whose app's context is given.
func newEmitter(ctx caddy.Context) (*emitter, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	e := &emitter{ctx: ctx, events: app.(*caddyevents.App), done: make(chan struct{})}
	// The config may end between the moment in which an event is taken and that in which its handlers are called. The app calls
	// none once its context has ended: the event would be lost. But no handler may stay for ever.
	var cancel context.CancelFunc
	e.ctx.Context, cancel = context.WithCancel(context.WithoutCancel(ctx.Context))
	context.AfterFunc(ctx.Context, func() { time.AfterFunc(lateHandlers, cancel) })
	e.end = sync.OnceFunc(func() {
		e.once.Do(func() {})
		events.Lock()
		defer events.Unlock()
		e.ended = true
		close(e.done)
		wakeEmitter() // another one may have to take what this one does not any more
	})
	stopping := func() {
		e.end() // it does not wait for a handler that blocks
		instance.BeginShutdown(ctx)
	}
	for name, f := range map[string]func(){"started": e.begin, "stopping": stopping} {
		if err := e.events.On(name, onEvent{f}); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// onEvent is a handler of an event that needs nothing of it.
type onEvent struct{ do func() }

// Handle implements [caddyevents.Handler].
func (o onEvent) Handle(context.Context, caddy.Event) error {
	o.do()
	return nil
}

// begin begins to emit.
func (e *emitter) begin() { e.once.Do(func() { go e.run() }) }

func (e *emitter) run() {
	for {
		event, ok := e.take()
		switch {
		case ok:
			e.emit(event)
		default:
			select {
			case <-events.more:
			case <-e.done:
				return
			}
		}
	}
}

// emit emits an event if anybody wants to know.
func (e *emitter) emit(event engine.Event) {
	if e.events.ShouldEmit(string(event.Kind)) {
		e.events.Emit(e.ctx, string(event.Kind), eventData(event))
	}
}

// take takes an event that waits, if there is one and the config has not ended.
func (e *emitter) take() (event engine.Event, ok bool) {
	events.Lock()
	defer events.Unlock()
	switch {
	case e.ended:
		wakeEmitter()
		return event, false
	case len(events.waiting) == 0:
		return event, false
	}
	event = events.waiting[0]
	events.waiting = append(events.waiting[:0], events.waiting[1:]...)
	return event, true
}

// eventData returns what a handler gets to know. The values end up as arguments of commands and in URLs: they are
// numbers, words of closed sets, URLs whose host was checked, and names.
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

// safeName returns a name that Consul gave if it is one that a host could have, else nothing: it may become an argument of
// a command.
func safeName(name string) string {
	if name, err := sanitize.Host(name); err == nil {
		return name
	}
	return ""
}
