// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// lifecycleHandler is a handler that asks a Consul. options begin with a comma.
func lifecycleHandler(consul *standin.Consul, options string) string {
	return fmt.Sprintf(`{"handler": "vault_redirect", "discovery": {"source": "consul", "address": %q, "poll_interval": "10m"} %s}`, consul.Addr(), options)
}

// TestTerminationUnderLoad ends Caddy while requests are under way: it answers each that it has taken.
func TestTerminationUnderLoad(t *testing.T) {
	t.Parallel()
	const held = 8
	arrived, release := make(chan struct{}, held), make(chan struct{})
	keeper := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(keeper.Close)
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := runLifecycle(t,
		route("/held/*", `{"handler": "test_gate", "url": `+quote(keeper.URL)+`}`, lifecycleHandler(consul, "")),
		route("/v1/*", lifecycleHandler(consul, "")))

	traffic := &traffic{site: caddy.site, wanted: map[string][]string{"/v1/x": {"307 https://127.10.0.1:8200/v1/x"}}}
	stop := traffic.start(t, 6)
	var group sync.WaitGroup
	var right atomic.Int32
	for range held {
		group.Go(func() {
			if got, err := traffic.ask(&http.Transport{DisableKeepAlives: true}, "/held/x"); got == "307 https://127.10.0.1:8200/held/x" {
				right.Add(1)
			} else {
				t.Errorf("a request that was under way: %s, %v", got, err)
			}
		})
	}
	for range held {
		<-arrived
	}
	wait.Until(t, "traffic", func() bool { return traffic.count() > 1000 })

	traffic.after.Store(true)
	if err := caddy.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	caddy.await("new connections are refused", func() bool {
		conn, err := net.Dial("tcp", caddy.IP+":8001")
		if err == nil {
			conn.Close()
		}
		return isRefused(err)
	})
	close(release)
	group.Wait()
	stop()
	if code, err := caddy.Wait(timeout(t)); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	traffic.settle(t, caddy)
	t.Logf("%d requests were under way at the end of Caddy, %d were answered", held, right.Load())
}

func TestEndDuringABlockingQuery(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		end  func(*lifecycle)
	}{
		{"SIGTERM", func(l *lifecycle) { _ = l.Signal(syscall.SIGTERM) }},
		{"SIGINT", func(l *lifecycle) { _ = l.Signal(syscall.SIGINT) }},
		{"admin API", func(l *lifecycle) { l.server.admin("POST", "/stop", "", "") }},
	} {
		t.Run(row.name, func(t *testing.T) {
			consul := standin.RunConsul(t, standin.Active("vault-1"))
			caddy := runLifecycle(t, route("/*", lifecycleHandler(consul, "")))
			if err := consul.Await(timeout(t), func() bool { return consul.Queries() == 2 && consul.Open() == 1 }); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			row.end(caddy)
			code, err := caddy.Wait(timeout(t))
			if took := time.Since(began); took > promptly {
				t.Errorf("the end took %s", took)
			}
			if code != 0 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
			if err := consul.Await(timeout(t), func() bool { return consul.Connections() == 0 }); err != nil {
				t.Error(err)
			}
		})
	}
}

func quote(s string) string {
	text, _ := json.Marshal(s) // a string can always be encoded
	return string(text)
}
