// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how what happens to a cluster becomes an event of Caddy's.

package vaultredirect

import (
	"context"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// eventQueue is how many events may wait for their handlers, which may block.
const eventQueue = 64

// emitter emits events by the events app of one config: only between its start and its end, since the app reads its
// subscriptions without a lock, and from a goroutine of its own, since handlers are run by who emits.
type emitter struct {
	ctx    caddy.Context
	events *caddyevents.App

	once  sync.Once
	queue chan engine.Event
	stop  func()
	done  chan struct{}
}

// newEmitter returns the emitter of a config, whose app's context is given.
func newEmitter(ctx caddy.Context) (*emitter, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	e := &emitter{ctx: ctx, events: app.(*caddyevents.App), queue: make(chan engine.Event, eventQueue), done: make(chan struct{})}
	for name, f := range map[string]func(){"started": e.begin, "stopping": e.end} {
		if err := e.events.On(name, onEvent(f)); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// onEvent is a handler of an event that needs nothing of it.
type onEvent func()

// Handle implements [caddyevents.Handler].
func (f onEvent) Handle(context.Context, caddy.Event) error {
	f()
	return nil
}

// begin begins to emit.
func (e *emitter) begin() {
	e.once.Do(func() {
		stop := pool.Listen(func(event engine.Event) {
			select {
			case e.queue <- event:
			default:
				eventsDropped.Add(1)
			}
		})
		e.stop = sync.OnceFunc(func() {
			stop()
			close(e.done)
		})
		go e.run()
	})
}

// end ends it. It does not wait for a handler that blocks.
func (e *emitter) end() {
	e.once.Do(func() {}) // never to begin any more
	if e.stop != nil {
		e.stop()
	}
}

func (e *emitter) run() {
	for {
		select {
		case event := <-e.queue:
			if e.events.ShouldEmit(string(event.Kind)) {
				e.events.Emit(e.ctx, string(event.Kind), eventData(event))
			}
		case <-e.done:
			return
		}
	}
}

// eventData returns what a handler gets to know. The values end up as arguments of commands and in URLs: they are
// numbers, words of closed sets, URLs whose host was checked, and names.
func eventData(e engine.Event) map[string]any {
	d := map[string]any{"cluster": e.Cluster, "instance": instance}
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
