// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package events emits the events of clusters through Caddy's events app.
package events

import (
	"context"
	"sync/atomic"
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
var queue = make(chan engine.Event, maxEvents)

var dropped atomic.Uint64

// Dropped returns how many events were dropped because the queue was full.
func Dropped() uint64 { return dropped.Load() }

// Listen queues the events of a pool from now on.
func Listen(pool *engine.Pool) {
	pool.Listen(func(e engine.Event) {
		select {
		case queue <- e:
		default:
			dropped.Add(1)
		}
	})
}

// Discard empties the queue.
func Discard() {
	for {
		select {
		case <-queue:
		default:
			return
		}
	}
}

// Emitter emits events through the events app of one config. It takes them from the queue between the config's start and its
// end, since the app reads its subscriptions without a lock, and runs in a goroutine of its own, since Emit runs the handlers.
type Emitter struct {
	ctx    caddy.Context // of handlers
	events *caddyevents.App
	ended  context.Context
	End    func() // ends the emitter. It does not wait for a handler that blocks, and may be called more than once.
}

// NewEmitter returns the emitter of a config, given the context of the module that the events are from.
func NewEmitter(ctx caddy.Context) (*Emitter, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	e := &Emitter{ctx: ctx, events: app.(*caddyevents.App)}
	e.ended, e.End = context.WithCancel(context.Background())
	// The config may end after an event is taken and before its handlers are called. The app calls none once its context has
	// ended, so that the event would be lost: this context ends later, so that no handler can stay for ever.
	var cancel context.CancelFunc
	e.ctx.Context, cancel = context.WithCancel(context.WithoutCancel(ctx.Context))
	context.AfterFunc(ctx.Context, func() { time.AfterFunc(lateHandlers, cancel) })
	return e, nil
}

// On subscribes a function to an event of Caddy. It must be called while a config is provisioned.
func On(ctx caddy.Context, name string, do func()) error {
	app, err := ctx.App("events")
	if err != nil {
		return err
	}
	return app.(*caddyevents.App).On(name, onEvent(do))
}

// onEvent is a handler that ignores the data of its event.
type onEvent func()

func (do onEvent) Handle(context.Context, caddy.Event) error {
	do()
	return nil
}

// Begin starts emitting, unless the emitter has ended.
func (e *Emitter) Begin() {
	go func() {
		for e.ended.Err() == nil {
			select {
			case event := <-queue:
				e.emit(event)
			case <-e.ended.Done():
			}
		}
	}()
}

// emit emits an event if a handler is subscribed to it.
func (e *Emitter) emit(event engine.Event) {
	if e.events.ShouldEmit(string(event.Kind)) {
		e.events.Emit(e.ctx, string(event.Kind), eventData(event))
	}
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
