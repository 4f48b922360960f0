// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package events

import (
	"context"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// recorder is a handler that keeps the events it gets.
type recorder struct{ events []caddy.Event }

// Handle implements [caddyevents.Handler].
func (r *recorder) Handle(_ context.Context, e caddy.Event) error {
	r.events = append(r.events, e)
	return nil
}

// TestEventsAtTheEndOfTheirConfig: an event that was taken when the config ends is no other config's any more.
func TestEventsAtTheEndOfTheirConfig(t *testing.T) {
	base, err := caddy.ProvisionContext(new(caddy.Config))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	defer cancel()
	e, err := NewEmitter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	heard := new(recorder)
	app, err := ctx.App("events")
	if err != nil {
		t.Fatal(err)
	}
	if err := app.(*caddyevents.App).On(string(engine.ActiveChanged), heard); err != nil {
		t.Fatal(err)
	}
	e.emit(engine.Event{Kind: engine.ActiveChanged, Cluster: "prod", Node: "vault-0"})
	cancel()
	e.End()
	e.emit(engine.Event{Kind: engine.ActiveChanged, Cluster: "prod", Node: "vault-1"})
	if n := len(heard.events); n != 2 {
		t.Errorf("%d events are heard, want 2", n)
	}
}
