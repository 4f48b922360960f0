// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"errors"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/fastlane"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/events"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
)

func init() {
	caddy.RegisterModule(App{})
	events.Listen(pool)
}

const appID = "vault_redirect"

// App starts the watchers and probes of all handlers in a config when that config is run. There is nothing to configure, and no
// need to name it: handlers load it by themselves. Handlers alone could not tell a config that is run from one that is
// merely validated, which must not use the network.
type App struct {
	views   []*engine.View
	emitter *events.Emitter
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appID,
		New: func() caddy.Module { return new(App) },
	}
}

// Provision subscribes to the start and the end of the config, between which it emits events.
func (a *App) Provision(ctx caddy.Context) (err error) {
	pool.NextConfig()
	if a.emitter, err = events.NewEmitter(ctx); err != nil {
		return err
	}
	stopping := func() {
		a.emitter.End()
		instance.BeginShutdown(ctx)
	}
	return errors.Join(a.emitter.On("started", a.emitter.Begin), a.emitter.On("stopping", stopping))
}

// use has the view started with the config. Caddy provisions modules one after another.
func (a *App) use(v *engine.View) { a.views = append(a.views, v) }

// Start starts the watchers and probes that do not run yet.
func (a *App) Start() error {
	if err := fastlane.Check(a); err != nil {
		return err
	}
	for _, v := range a.views {
		v.Start()
	}
	a.views = nil
	registry.Run(a)
	return nil
}

// Stop ends no watcher: each ends with its last handler, which may be one of the next config.
func (a *App) Stop() error {
	a.forget()
	return nil
}

// Cleanup forgets the config. Caddy may give one up after it has started, without stopping it: if an admin endpoint for
// remote access cannot be had, for example.
func (a *App) Cleanup() error {
	if a.emitter != nil {
		a.emitter.End()
	}
	a.forget()
	return nil
}

// forget has metrics and status be those of the config before this one, or after it.
func (a *App) forget() {
	if caddy.Exiting() {
		return // while it drains, they are shown
	}
	registry.Forget(a)
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
