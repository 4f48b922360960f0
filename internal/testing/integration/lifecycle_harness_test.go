// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func init() {
	caddy.RegisterModule(failing{})
	caddy.RegisterModule(gate{})
}

// failing is another app, which fails where its config says. Before it fails to start, it asks a URL: Caddy may serve the
// new config already.
type failing struct {
	In  string `json:"in"`
	Ask string `json:"ask,omitempty"`
}

func (failing) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "test_failing", New: func() caddy.Module { return new(failing) }}
}

func (f *failing) fail(step string) error {
	if f.In == step {
		return errors.New("as told, in " + step)
	}
	return nil
}
func (f *failing) Provision(caddy.Context) error { return f.fail("provision") }
func (f *failing) Validate() error               { return f.fail("validate") }
func (f *failing) Stop() error                   { return nil }

func (f *failing) Start() error {
	for range 4 { // some of which the old server takes
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", f.Ask, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: no answer", f.Ask)
		case err != nil: // a connection that Caddy closed
		case resp.StatusCode != http.StatusTemporaryRedirect:
			return fmt.Errorf("%s: status %d", f.Ask, resp.StatusCode)
		default:
			resp.Body.Close()
		}
	}
	return f.fail("start")
}

// gate is a handler that asks a URL, if it has one, and goes on when that answers. It may need another app. Caddy starts
// apps in the order in which they came up, beginning anywhere: one that is needed here may start between the http app and ours.
type gate struct {
	URL string `json:"url,omitempty"`
	App string `json:"app,omitempty"`
}

func (gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_gate", New: func() caddy.Module { return new(gate) }}
}

func (g *gate) Provision(ctx caddy.Context) (err error) {
	if g.App != "" {
		_, err = ctx.App(g.App)
	}
	return err
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if g.URL == "" {
		return next.ServeHTTP(w, r)
	}
	resp, err := client.Get(g.URL)
	if err != nil {
		return err
	}
	resp.Body.Close()
	return next.ServeHTTP(w, r)
}

// lifecycle is a Caddy with one server, which logs each request that it has taken.
type lifecycle struct {
	*server
	site string
}

func runLifecycle(t *testing.T, routes ...string) *lifecycle {
	t.Helper()
	c := run(t, harness.Options{JSON: lifecycleConfig("", routes...)})
	return &lifecycle{server: c, site: "http://" + c.IP + ":8001"}
}

// lifecycleConfig returns a config with routes, and other apps if any.
func lifecycleConfig(apps string, routes ...string) string {
	return fmt.Sprintf(`{
	"admin": {"config": {"persist": false}},
	"apps": {%s "http": {"servers": {"s": {"listen": ["{ip}:8001"], "automatic_https": {"disable": true}, "logs": {}, "routes": [%s]}}}}
}`, apps, strings.Join(routes, ","))
}

// route returns a route for a path with handlers.
func route(path string, handlers ...string) string {
	return fmt.Sprintf(`{"match": [{"path": [%q]}], "handle": [%s]}`, path, strings.Join(handlers, ","))
}

// logged returns how many requests Caddy has taken, without those of its own.
func (l *lifecycle) logged() (n int) {
	for line := range strings.Lines(l.Log()) {
		if strings.Contains(line, `"msg":"handled request"`) && !strings.Contains(line, ownPath) {
			n++
		}
	}
	return n
}

// ownPath is the path of requests that Caddy itself sends.
const ownPath = "/v1/d/own"

// traffic sends requests and keeps account of each.
type traffic struct {
	site   string
	wanted map[string][]string // path: answers
	after  atomic.Bool         // refused connections are the end rather than a loss

	mu       sync.Mutex
	answered int
	dropped  int // connections that ended without an answer
	wrong    map[string]int
}

// ask sends a request until there is an answer. While it replaces a server, Caddy closes some connections from which it
// has not read yet, whatever handler is behind: clients ask again.
func (f *traffic) ask(rt http.RoundTripper, path string) (what string, err error) {
	for range 10 {
		var req *http.Request
		if req, err = http.NewRequest("GET", f.site+path, nil); err != nil {
			return "", err
		}
		var resp *http.Response
		if resp, err = rt.RoundTrip(req); err == nil {
			resp.Body.Close()
			what = fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("Location"))
			f.mu.Lock()
			f.answered++
			f.mu.Unlock()
			return what, nil
		}
		if isRefused(err) && f.after.Load() {
			return "", err
		}
		f.mu.Lock()
		f.dropped++
		f.mu.Unlock()
	}
	return "", err
}

// start makes clients ask for each path in turn, half of them with a new connection for each request, until stopped or
// refused.
func (f *traffic) start(t *testing.T, clients int) (stop func()) {
	f.wrong = map[string]int{}
	var paths []string
	for path := range f.wanted {
		paths = append(paths, path)
	}
	var stopped atomic.Bool
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			rt := &http.Transport{DisableKeepAlives: i%2 == 1, ResponseHeaderTimeout: 30 * time.Second}
			defer rt.CloseIdleConnections()
			for n := i; !stopped.Load(); n++ {
				path := paths[n%len(paths)]
				what, err := f.ask(rt, path)
				if err != nil && f.after.Load() && isRefused(err) {
					return
				}
				if err != nil {
					what = err.Error()
				}
				if !slices.Contains(f.wanted[path], what) {
					f.mu.Lock()
					f.wrong[path+": "+what]++
					f.mu.Unlock()
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { stopped.Store(true); group.Wait() })
	t.Cleanup(stop)
	return stop
}

// count returns how many requests have been answered so far.
func (f *traffic) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answered
}

// settle checks that each request got a right answer, and that Caddy took none which it did not answer.
func (f *traffic) settle(t *testing.T, l *lifecycle) {
	t.Helper()
	for what, n := range f.wrong {
		t.Errorf("%d times %s", n, what)
	}
	if logged := l.logged(); logged != f.answered {
		t.Errorf("Caddy took %d requests, of which %d were answered", logged, f.answered)
	}
	t.Logf("%d requests answered, %d connections closed before Caddy read from them", f.answered, f.dropped)
}
