// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

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

// App starts the watchers and probes of all handlers of a config when the config is run. It has no options, and need not be in
// the config: handlers load it. A handler alone does not know whether its config is run or only validated, which must not use
// the network.
type App struct {
	ctx     caddy.Context
	views   []*engine.View // to be started
	emitter *events.Emitter
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appID,
		New: func() caddy.Module { return new(App) },
	}
}

// Provision subscribes to the start and the end of the config. It emits events in between.
func (a *App) Provision(ctx caddy.Context) (err error) {
	pool.NextConfig()
	a.ctx = ctx
	if a.emitter, err = events.NewEmitter(ctx); err != nil {
		return err
	}
	stopping := func() {
		a.emitter.End()
		instance.BeginShutdown(ctx)
	}
	return errors.Join(events.On(ctx, "started", a.emitter.Begin), events.On(ctx, "stopping", stopping))
}

// Start starts the watchers and probes that are not running yet.
func (a *App) Start() error {
	if app, err := a.ctx.AppIfConfigured("http"); err == nil { // else the handlers are in no server
		httpApp := app.(*caddyhttp.App)
		if err := fastlane.Check(httpApp); err != nil {
			return err
		}
		warnPassThru(httpApp)
	}
	for _, v := range a.views {
		v.Start()
	}
	a.views = nil
	registry.Run(a)
	return nil
}

// Stop does not end watchers: each ends with its last handler, which may belong to the next config.
func (a *App) Stop() error {
	a.forget()
	return nil
}

// Cleanup removes the config. Caddy may discard a config after starting it, without stopping it: for example, if the endpoint for
// remote administration fails.
func (a *App) Cleanup() error {
	if a.emitter != nil {
		a.emitter.End()
	}
	a.forget()
	return nil
}

// forget removes the config, so that metrics and status are those of another one.
func (a *App) forget() {
	if caddy.Exiting() {
		return // they are shown until the process ends
	}
	registry.Forget(a)
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
