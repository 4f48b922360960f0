// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// holding returns a handler whose active node is lost, the Consul that says so, and a server in front of the handler.
func holding(t *testing.T, config string) (*Handler, *standin.Consul, *httptest.Server) {
	t.Helper()
	consul := standin.RunConsul(t, standin.Active("vault-1"))
	h := provision(t, consul, config)
	until(t, h, "active", (*engine.State).Active)
	consul.Set("vault", standin.Standby("vault-1"))
	until(t, h, "lost", waits)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = h.ServeHTTP(w, r, nil) }))
	t.Cleanup(server.Close)
	return h, consul, server
}

// waiting waits until so many requests wait.
func waiting(t *testing.T, h *Handler, n int64) {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%d requests wait", n), func() bool { return h.redirector.Queue.Waiting() == n })
}

// Over HTTP/1.1, a client that leaves gives its place back, whatever it has sent with its request (C8).
func TestWhoLeavesGivesItsPlaceBack(t *testing.T) {
	h, _, server := holding(t, `, "hold": "90s", "hold_max": 1`)
	for _, row := range []struct{ name, request string }{
		{"GET", "GET / HTTP/1.1\r\nHost: r\r\n\r\n"},
		{"POST", "POST /v1/auth/x/login HTTP/1.1\r\nHost: r\r\nContent-Length: 20\r\n\r\n" + strings.Repeat("x", 20)},
		{"half of a POST", "POST /v1/auth/x/login HTTP/1.1\r\nHost: r\r\nContent-Length: 20\r\n\r\n" + strings.Repeat("x", 10)},
		{"POST in chunks", "POST / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"large POST", fmt.Sprintf("POST / HTTP/1.1\r\nHost: r\r\nContent-Length: %d\r\n\r\n%s", 256<<10, strings.Repeat("x", 256<<10))},
	} {
		t.Run(row.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, row.request); err != nil {
				t.Fatal(err)
			}
			waiting(t, h, 1)
			conn.Close()
			waiting(t, h, 0)
		})
	}
}

// Clients that stay get the next node, and a connection that goes on.
func TestBodyOfWhoStays(t *testing.T) {
	h, consul, server := holding(t, `, "hold": "5m"`)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const second = "GET /second HTTP/1.1\r\nHost: r\r\n\r\n"
	fmt.Fprintf(conn, "POST /first HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n\r\nhello%s", second)
	waiting(t, h, 1)
	consul.Set("vault", standin.Active("vault-2"))
	reader := bufio.NewReader(conn)
	for _, path := range []string{"/first", "/second"} {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("Location"); got != "https://127.10.0.2:8200"+path {
			t.Errorf("%s: status %d, Location %q", path, resp.StatusCode, got)
		}
	}
}

// The body is not read where nothing is waited for.
func TestNoDrainWithoutWaiting(t *testing.T) {
	for _, row := range []struct {
		name  string
		nodes []string // of which the first is active
		code  int
	}{{"active", []string{"127.10.0.1"}, http.StatusTemporaryRedirect}, {"never seen", nil, http.StatusServiceUnavailable}} {
		t.Run(row.name, func(t *testing.T) {
			consul := standin.RunConsul(t)
			if row.nodes != nil {
				consul.Set("vault", standin.Active("vault-1", standin.Address(row.nodes[0])))
			}
			h := provision(t, consul, "")
			until(t, h, "known", func(s *engine.State) bool { return s.Phase().Situation != engine.Starting })
			r := httptest.NewRequest("PUT", "/v1/x", unread{t})
			r.RemoteAddr = local
			if resp := serve(t, h, r); resp.StatusCode != row.code {
				t.Errorf("status %d, want %d", resp.StatusCode, row.code)
			}
		})
	}
}

// Over HTTP/2, the body is read before the answer: curl discards an answer after which Go's server resets the stream.
func TestBodyIsTakenOverHTTP2(t *testing.T) {
	consul := standin.RunConsul(t, standin.Active("vault-1"))
	h := provision(t, consul, "")
	until(t, h, "active", (*engine.State).Active)
	var end error // of the body, once the answer is there
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = h.ServeHTTP(w, r, nil)
		_, end = r.Body.Read(make([]byte, 1))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, size := range []int{0, 5, 600 << 10} {
		// As curl does, the body is sent apart from the headers; its reader has no length that Go's client could see.
		req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/v1/x", io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = int64(size)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.Header.Get("Location") != "https://127.10.0.1:8200/v1/x" {
			t.Errorf("%d bytes: %s, status %d, Location %q", size, resp.Proto, resp.StatusCode, resp.Header.Get("Location"))
		}
		if end != io.EOF {
			t.Errorf("%d bytes: after the answer, reading the body gives %v: it was not read to its end", size, end)
		}
	}
}

// swapPool gives the handlers of this test a pool of their own.
func swapPool(t *testing.T) {
	before := pool
	pool = engine.NewPool()
	t.Cleanup(func() { pool = before })
}

// When the process is about to end, no request waits any more, whatever its config, and whatever it waits for (C9, B13).
func TestEndGivesBackThoseWhoWait(t *testing.T) {
	swapPool(t)
	h, _, _ := holding(t, `, "hold": "5m"`)

	hangs := standin.RunConsul(t)
	hangs.Handle(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	starting := provision(t, hangs, `, "hold": "5m", "hold_max": 1`)

	var group sync.WaitGroup
	for _, h := range []*Handler{h, starting} {
		group.Go(func() {
			if resp := ask(t, h, "GET", "/"); resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
		waiting(t, h, 1)
	}
	// Those that wait at the start count, too.
	if resp := ask(t, starting, "GET", "/"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("beyond hold_max: status %d", resp.StatusCode)
	}
	// A reload: the config of the first one is gone, its request waits on.
	if err := h.Cleanup(); err != nil {
		t.Fatal(err)
	}
	waiting(t, h, 1)

	began := time.Now()
	pool.End()
	group.Wait()
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the last one left after %s", took)
	}
	if resp := ask(t, starting, "GET", "/"); resp.StatusCode != http.StatusServiceUnavailable || time.Since(began) > time.Minute {
		t.Errorf("after the end: status %d after %s", resp.StatusCode, time.Since(began))
	}
}

// A request that waits when its config is replaced gets the next node; and its own end is heard.
func TestHoldGoesOnAcrossReloads(t *testing.T) {
	h, consul, _ := holding(t, `, "hold": "5m"`)
	locations := make(chan string, 1)
	go func() { locations <- ask(t, h, "GET", "/x").Header.Get("Location") }()
	waiting(t, h, 1)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan int, 1)
	go func() {
		left <- serve(t, h, httptest.NewRequest("GET", "/", nil).WithContext(ctx)).StatusCode
	}()
	waiting(t, h, 2)
	next := provision(t, consul, `, "hold": "5m", "retry_after": "2s"`)
	if err := h.Cleanup(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if code := <-left; code != http.StatusServiceUnavailable {
		t.Errorf("who leaves: status %d", code)
	}
	consul.Set("vault", standin.Active("vault-2"))
	if got := <-locations; got != "https://127.10.0.2:8200/x" {
		t.Errorf("Location %q", got)
	}
	if got := ask(t, next, "GET", "/y").Header.Get("Location"); got != "https://127.10.0.2:8200/y" {
		t.Errorf("of the next config: Location %q", got)
	}
}
