// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package instance describes this process: the version of the plugin, when it started, and whether it is shutting down.
package instance

import (
	"crypto/rand"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

const (
	// Application is the name of the program that this plugin replaces. Monitoring may look for it in the health document.
	Application = "vault-redirector"
	modulePath  = "github.com/vault-redirector/caddy-vault-redirect"
	// SourceURL is the address of the plugin's source code.
	SourceURL = "https://" + modulePath
)

// Version returns the version of the plugin in this program: a release such as 1.2.3, or dev.
var Version = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == modulePath && m.Replace == nil && m.Version != "" && m.Version != "(devel)" && !strings.HasPrefix(m.Version, "v0.0.0") {
			return strings.TrimPrefix(m.Version, "v")
		}
	}
	return "dev"
})

// ID is unique to this process; Started is when it started.
var (
	ID      = strings.ToLower(rand.Text()[:12])
	Started = time.Now()
)

var shutdownAt atomic.Pointer[time.Time]

// ShutdownAt returns when the listeners close, nil if the process is not shutting down.
func ShutdownAt() *time.Time { return shutdownAt.Load() }

// BeginShutdown is called when a config ends, before its apps stop. If the process ends, too, it notes when the listeners close:
// with a shutdown_delay, that is later, and health checks fail until then.
func BeginShutdown(ctx caddy.Context) {
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

// ShuttingDown reports whether the process or the server of a request is shutting down, and in how long the listener closes.
func ShuttingDown(r *http.Request) (draining bool, in string) {
	draining = caddy.Exiting()
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return draining, ""
	}
	down, _ := repl.Get("http.shutting_down")
	draining = draining || down == true
	left, _ := repl.Get("http.time_until_shutdown")
	if d, ok := left.(time.Duration); ok && draining {
		in = max(0, d).Round(100 * time.Millisecond).String()
	}
	return draining, in
}
