// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// newHandler provisions a handler by hand. Its context is canceled, which cleans up, by the caller.
func newHandler(t *testing.T, raw string) (*Handler, func()) {
	t.Helper()
	ctx, cancel := newContext(t)
	return load[*Handler](t, ctx, handlerID, strings.Replace(raw, `"handler": "vault_redirect",`, "", 1)), cancel
}

func TestCleanupReleasesOnce(t *testing.T) {
	if err := errors.Join(new(Handler).Cleanup(), (&Handler{}).Cleanup()); err != nil {
		t.Errorf("of a handler that was never provisioned: %v", err)
	}
	failed := &Handler{Scheme: "ftp"}
	ctx, cancel := newContext(t)
	defer cancel()
	if err := failed.Provision(ctx); err == nil {
		t.Error("a wrong scheme is taken")
	}
	if err := errors.Join(failed.Cleanup(), failed.Cleanup()); err != nil {
		t.Errorf("of a handler that failed: %v", err)
	}

	consul := standin.RunConsul(t, standin.Active("vault-1"))
	key := keyOf(t, consul.Addr())
	first, endFirst := newHandler(t, handlerJSON(consul.Addr(), ""))
	second, endSecond := newHandler(t, handlerJSON(consul.Addr(), ""))
	wantReferences(t, key, 2)
	for range 3 {
		if err := first.Cleanup(); err != nil {
			t.Error(err)
		}
		wantReferences(t, key, 1)
	}
	endFirst() // once more
	wantReferences(t, key, 1)
	if resp := ask(t, second, "GET", "/"); resp.StatusCode != http.StatusTemporaryRedirect {
		t.Errorf("the other handler: status %d", resp.StatusCode)
	}
	endSecond()
	wantReferences(t, key, 0)
	wantGoroutines(t, 0)
}

// Handlers of two configs are provisioned and cleaned up at the same time, each with a request.
func TestConcurrentProvisionAndCleanup(t *testing.T) {
	one, two := standin.RunConsul(t, standin.Active("vault-1")), standin.RunConsul(t, standin.Active("vault-2"))
	var group sync.WaitGroup
	for i := range 8 {
		base, end := newContext(t) // not to be called concurrently
		defer end()
		consul := []*standin.Consul{one, two}[i%2]
		group.Go(func() {
			for j := range 25 {
				ctx, cancel := caddy.NewContext(base)
				raw := fmt.Sprintf(`{"discovery": {"source": "consul", "address": %q, "poll_interval": "10m"}, "port": %d, "probe": {"mode": "off"}}`, consul.Addr(), 1+j%3)
				mod, err := ctx.LoadModuleByID(handlerID, json.RawMessage(raw))
				if err != nil {
					t.Error(err)
				} else if resp := ask(t, mod.(*Handler), "GET", "/"); resp.StatusCode != http.StatusTemporaryRedirect {
					t.Errorf("status %d", resp.StatusCode)
				}
				cancel()
			}
		})
	}
	group.Wait()
	for _, consul := range []*standin.Consul{one, two} {
		wantReferences(t, keyOf(t, consul.Addr()), 0)
		if err := consul.Await(t.Context(), func() bool { return consul.Open() == 0 && consul.Connections() == 0 }); err != nil {
			t.Error(err)
		}
	}
	wantGoroutines(t, 0)
}

// A config whose http app is up serves requests even if another app fails before the one that starts the watchers: the
// requests are answered rather than left to wait for a watcher that never starts.
func TestRequestsStartTheWatcher(t *testing.T) {
	h, end := newHandler(t, handlerJSON(standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1"))).Addr(), ""))
	defer end()
	answer := make(chan string, 1)
	go func() { answer <- ask(t, h, "GET", "/v1/x").Header.Get("Location") }()
	select {
	case got := <-answer:
		if got != "https://127.10.0.1:8200/v1/x" {
			t.Errorf("Location %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("no answer")
	}
}

// waitedFor starts what a watcher is to wait for: busy tells whether it does.
type waitedFor func(t *testing.T) (address string, busy func() bool)

// neverAnswers is a server that takes connections, reads, and never answers.
func neverAnswers(scheme string) waitedFor {
	return func(t *testing.T) (string, func() bool) {
		var seen atomic.Bool
		l := standin.Serve(t, func(c net.Conn) {
			for buffer := make([]byte, 4096); ; {
				if _, err := c.Read(buffer); err != nil {
					return
				}
				seen.Store(true)
			}
		})
		return scheme + l.Addr().String(), seen.Load
	}
}

// consulStandIn is a stand-in for Consul that set has set up, if it is not nil.
func consulStandIn(set func(*standin.Consul), busy func(*standin.Consul) bool) waitedFor {
	return func(t *testing.T) (string, func() bool) {
		consul := standin.RunConsul(t, standin.Active("vault-1"))
		if set != nil {
			set(consul)
		}
		return consul.Addr(), func() bool { return busy(consul) }
	}
}

// TestCleanupEndsAtOnce ends a handler while its watcher is at each of the things that it may wait for.
func TestCleanupEndsAtOnce(t *testing.T) {
	clearConsulEnv(t)
	for _, row := range []struct {
		name   string
		consul waitedFor
	}{
		{"a blocking query", consulStandIn(nil, func(c *standin.Consul) bool { return c.Queries() == 2 && c.Open() == 1 })},
		{"the rest of an answer", consulStandIn(func(c *standin.Consul) {
			c.Handle(func(w http.ResponseWriter, r *http.Request) bool {
				_, _ = w.Write([]byte("["))
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return true
			})
		}, func(c *standin.Consul) bool { return c.Open() == 1 })},
		{"the next attempt", consulStandIn(answerWith(500, "no"), func(c *standin.Consul) bool { return c.Queries() >= 4 })},
		{"the next poll", consulStandIn(func(c *standin.Consul) {
			c.Header(func(h http.Header) { h.Del("X-Consul-Index") })
		}, func(c *standin.Consul) bool { return c.Queries() >= 3 && c.Open() == 0 })},
		{"an answer", neverAnswers("http://")},
		{"a TLS handshake", neverAnswers("https://")},
	} {
		t.Run(row.name, func(t *testing.T) {
			address, busy := row.consul(t)
			h, end := newHandler(t, handlerJSON(address, ""))
			h.redirector.View.Start()
			for limit := time.Now().Add(20 * time.Second); !busy(); runtime.Gosched() {
				if time.Now().After(limit) {
					t.Fatal("the watcher does not get there")
				}
			}
			began := time.Now()
			end()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the end took %s", took)
			}
			wantReferences(t, keyOf(t, address), 0)
			wantGoroutines(t, 0)
		})
	}
}
