// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of reloads under load, and of the end.

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// lifecycleHandler is a handler that asks a Consul. options begin with a comma.
func lifecycleHandler(consul *standin.Consul, options string) string {
	return fmt.Sprintf(`{"handler": "vault_redirect", "discovery": {"source": "consul", "address": %q, "poll_interval": "10m"} %s}`, consul.Addr(), options)
}

// slowAtFirst has a Consul take its time for answers to queries that do not wait, as over a long way.
func slowAtFirst(consul *standin.Consul) {
	consul.Handle(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("index") == "" {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		return false
	})
}

// TestReloadsUnderLoad goes through 200 reloads: with the same discovery and another, and failing ones.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	steady := standinConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	others := []*standin.Consul{
		standinConsul(t, standin.Active("vault-2", standin.Address("127.10.0.2"))),
		standinConsul(t, standin.Active("vault-3", standin.Address("127.10.0.3"))),
	}
	for _, consul := range others {
		slowAtFirst(consul)
	}
	// Three handlers ask one Consul, the fourth another, now this one and now that.
	routes := func(i int, other *standin.Consul, options string) []string {
		retry := fmt.Sprintf(`, "retry_after": "%ds"`, 1+i%100)
		return []string{
			route("/v1/a/*", lifecycleHandler(steady, retry)),
			route("/v1/b/*", lifecycleHandler(steady, `, "redirect_to": "node_name"`+retry)),
			route("/v1/c/*", lifecycleHandler(steady, `, "scheme": "http"`+retry)),
			route("/v1/d/*", lifecycleHandler(other, options)),
		}
	}
	answers := []string{"307 https://127.10.0.2:8200/v1/d/x", "307 https://127.10.0.3:8200/v1/d/x"}
	current := 0
	caddy := runLifecycle(t, routes(0, others[current], "")...)

	// quiet waits until what the traffic leaves behind is gone, and checks what Consul sees.
	quiet := func() (total, ours int) {
		t.Helper()
		for consul, want := range map[*standin.Consul]int{steady: 1, others[current]: 1, others[1-current]: 0} {
			if err := consul.Await(timeout(t), func() bool { return consul.Open() == want && consul.Connections() == want }); err != nil {
				t.Fatalf("%d queries open and %d connections at a Consul, want %d: %v", consul.Open(), consul.Connections(), want, err)
			}
		}
		g := caddy.goroutines()
		return g.Total, g.Ours()
	}
	if err := caddy.Load(t.Context(), lifecycleConfig("", routes(1, others[current], "")...)); err != nil {
		t.Fatal(err)
	}
	total, ours := quiet()
	if ours < 2 {
		t.Errorf("%d goroutines are ours, want a watcher for each of two discoveries at least", ours)
	}

	traffic := &traffic{site: caddy.site, wanted: map[string][]string{
		"/v1/a/x": {"307 https://127.10.0.1:8200/v1/a/x"},
		"/v1/b/x": {"307 https://vault-1:8200/v1/b/x"},
		"/v1/c/x": {"307 http://127.10.0.1:8200/v1/c/x"},
		"/v1/d/x": answers,
	}}
	stop := traffic.start(t, 4)
	fresh := &http.Transport{DisableKeepAlives: true}
	began, counts := time.Now(), map[string]int{}
	for i := range 200 {
		good := func(kind string) {
			counts[kind]++
			if err := caddy.Load(t.Context(), lifecycleConfig("", routes(i, others[current], "")...)); err != nil {
				t.Fatalf("reload %d, %s: %v", i, kind, err)
			}
		}
		bad := func(kind, want, apps, options string) {
			counts[kind]++
			all := routes(i, others[1-current], options)
			if apps != "" {
				all = append([]string{route("/none", `{"handler": "test_gate", "app": "test_failing"}`)}, all...)
			}
			err := caddy.Load(t.Context(), lifecycleConfig(apps, all...))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("reload %d, %s: error %v, want %q", i, kind, err, want)
			}
		}
		switch i % 10 {
		case 0, 2, 4, 6:
			good("same discovery")
		case 1, 5:
			current = 1 - current
			good("other discovery")
		case 3:
			bad("fails in Provision", "nobody", "", `, "redirect_to": "{nobody}.example.com"`)
		case 7:
			bad("fails in Validate", "health_path", "", `, "health_path": "up"`)
		case 8:
			step := []string{"provision", "validate"}[i/10%2]
			bad("fails in another app", "as told, in "+step, `"test_failing": {"in": "`+step+`"},`, "")
		case 9:
			bad("fails when another app starts", "as told, in start", `"test_failing": {"in": "start", "ask": `+quote(caddy.site+ownPath)+`},`, "")
		}
		if got, err := traffic.ask(fresh, "/v1/d/x"); err != nil || got != answers[current] {
			t.Fatalf("after reload %d: %s, %v, want %s", i, got, err, answers[current])
		}
	}
	took := time.Since(began)
	stop()
	traffic.settle(t, caddy)
	t.Logf("200 reloads in %s: %v", took.Round(time.Millisecond), counts)

	if n := steady.Queries(); n != 2 {
		t.Errorf("%d queries at the Consul that was used all along, want 2: the first and the one that waits", n)
	}
	if _, now := quiet(); now > ours {
		t.Errorf("%d goroutines are ours, after the first reload it was %d", now, ours)
	}
	const slack = 3 // of Caddy's own, which come and go
	now := 0
	caddy.await("goroutines are as after the first reload", func() bool { now, _ = quiet(); return now <= total+slack })
	t.Logf("%d goroutines, %d after the first reload", now, total)
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
	consul := standinConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
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
	await(t, "traffic", func() bool { return traffic.count() > 1000 })

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
			consul := standinConsul(t, standin.Active("vault-1"))
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
