// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the time between the signal to end and the end, in which balancers are to look for another copy.

package vaultredirect

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// shutdownAt is when the listeners close, once the process is about to end.
var shutdownAt atomic.Pointer[time.Time]

// beginDraining is called when a config ends, before its apps stop. With the process, and with a shutdown_delay, the time
// of draining begins.
func beginDraining(ctx caddy.Context) {
	if !caddy.Exiting() {
		return
	}
	var delay time.Duration
	if app, err := ctx.AppIfConfigured("http"); err == nil {
		delay = time.Duration(app.(*caddyhttp.App).ShutdownDelay)
	}
	at := time.Now().Add(delay).UTC()
	shutdownAt.Store(&at)
	if delay > 0 {
		ctx.Logger().Info("draining: health checks fail from now on, while requests are still answered", zap.Duration("shutdown_delay", delay))
	}
}

// drainingIn reports whether the process or its server is about to end, and in what time the listener closes.
func drainingIn(r *http.Request) (draining bool, in string) {
	draining = caddy.Exiting()
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return draining, ""
	}
	if down, _ := repl.Get("http.shutting_down"); down == true {
		draining = true
	}
	if left, ok := repl.Get("http.time_until_shutdown"); ok && draining {
		if d, ok := left.(time.Duration); ok {
			in = max(0, d).Round(100 * time.Millisecond).String()
		}
	}
	return draining, in
}
