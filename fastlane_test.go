// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// onLane returns how many connections are on a lane.
func onLane() int {
	buffer := make([]byte, 16<<20)
	return strings.Count(string(buffer[:runtime.Stack(buffer, true)]), "http1.(*conn).run(")
}

// laneServer is the config of a Caddy with a server on a port, with the lane.
func laneServer(port, handler, more string) []byte {
	return fmt.Appendf(nil, `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
		"apps": {"http": {"servers": {"s": {"listen": ["127.0.0.1:%s"], "automatic_https": {"disable": true}, %s, "routes": [{"handle": [%s]}] %s}}}}}`,
		port, laneWrapper, handler, more)
}

// runLane runs a Caddy with the lane, whose active node is known.
func runLane(t *testing.T, port, handler, more string) {
	t.Helper()
	if err := caddy.Load(laneServer(port, handler, more), true); err != nil {
		t.Fatal(err)
	}
	awaitActive(t)
}

// TestFastLaneServes: requests stay on the lane and are counted, until one comes that is for Caddy.
func TestFastLaneServes(t *testing.T) {
	clearConsulEnv(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault-1.example.com")))
	port := harness.Port(t)
	runLane(t, port, handlerJSON(consul.Addr(), `, "hold": 0`), "")
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reader := bufio.NewReader(c)
	ask := func(method, path string, want, lane int) {
		t.Helper()
		stats := registry.Clusters()[0].View.Stats()
		before := stats.Answers.Count(engine.Redirected)
		if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: vault.example.com\r\n\r\n", method, path); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil || res.StatusCode != want {
			t.Fatalf("%v %v, want %d", res, err, want)
		}
		drainBody(res)
		if counted := stats.Answers.Count(engine.Redirected) - before; (counted == 1) != (want == http.StatusTemporaryRedirect) {
			t.Errorf("%s %s: %d redirects counted", method, path, counted)
		}
		if n := onLane(); n != lane {
			t.Errorf("%s %s: %d connections on the lane, want %d", method, path, n, lane)
		}
	}
	for _, method := range []string{"GET", "HEAD", "LIST", "PUT", "POST", "DELETE", "PATCH"} {
		ask(method, "/v1/a?b", 307, 1)
	}
	// A new active node, at once.
	consul.Set("vault", standin.Active("vault-2", standin.ServiceAddress("vault-2.example.com")))
	until(t, handlerOfView(t), "the next node", func(s *engine.State) bool { return s.Node.Name == "vault-2" })
	if _, err := fmt.Fprint(c, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(reader, nil); err != nil || res.Header.Get("Location") != "https://vault-2.example.com:8200/x" {
		t.Errorf("%v %v", res, err)
	}
	// None: Caddy's server says so, and keeps the connection.
	consul.Set("vault")
	until(t, handlerOfView(t), "no node", func(s *engine.State) bool { return !s.Active() })
	ask("GET", "/v1/a", 503, 0)
	consul.Set("vault", standin.Active("vault-1"))
	until(t, handlerOfView(t), "a node", func(s *engine.State) bool { return s.Active() })
	ask("GET", "/v1/a", 307, 0)
}

func drainBody(res *http.Response) {
	buffer := make([]byte, 1<<10)
	for {
		if _, err := res.Body.Read(buffer); err != nil {
			return
		}
	}
}

// handlerOfView returns a handler that has the view of the only cluster, so that tests can wait for its state.
func handlerOfView(t *testing.T) *Handler {
	t.Helper()
	return &Handler{redirector: &redirect.Redirector{View: registry.Clusters()[0].View}}
}

// Over TLS, Caddy's server serves HTTP/2, and the lane announces HTTP/3 as Caddy's server does.
func TestFastLaneTLS(t *testing.T) {
	clearConsulEnv(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	consul := standin.RunConsul(t, standin.Active("vault-1"))
	port := harness.Port(t)
	loadTLS(t, port, consul.Addr())
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		var protocols http.Protocols
		protocols.SetHTTP1(proto == "HTTP/1.1")
		protocols.SetHTTP2(proto == "HTTP/2.0")
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "vault.example.com"}, Protocols: &protocols}
		wait.Until(t, "the announcement of HTTP/3 over "+proto, func() bool {
			res, err := transport.RoundTrip(newRequest(t, "https://127.0.0.1:"+port+"/a"))
			if err != nil {
				t.Fatal(err)
			}
			drainBody(res)
			if res.Proto != proto || res.StatusCode != 307 || res.Header.Get("Server") != "Caddy" {
				t.Fatalf("%s %s %v", res.Proto, res.Status, res.Header)
			}
			if lane := onLane(); (lane == 1) != (proto == "HTTP/1.1") {
				t.Fatalf("%d connections on the lane over %s", lane, proto)
			}
			return res.Header.Get("Alt-Svc") == `h3=":`+port+`"; ma=2592000`
		})
		transport.CloseIdleConnections()
		wait.Until(t, "the end of connections", func() bool { return onLane() == 0 })
	}
	// What is no TLS is told so by Caddy's server.
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(newRequest(t, "http://127.0.0.1:"+port))
	if err != nil {
		t.Fatal(err)
	}
	drainBody(res)
	if res.StatusCode != http.StatusBadRequest {
		t.Error(res.Status)
	}
}

func newRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFastLaneReloads reloads 200 times under load: what is answered is answered right, and nothing is left.
func TestFastLaneReloads(t *testing.T) {
	clearConsulEnv(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault-1.example.com")))
	port := harness.Port(t)
	runLane(t, port, handlerJSON(consul.Addr(), ""), "")
	before := runtime.NumGoroutine()
	var stop atomic.Bool
	var answered atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			client := &http.Client{
				Transport:     &http.Transport{},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}
			defer client.CloseIdleConnections()
			for !stop.Load() {
				// A GET on a kept connection that is closed is sent again by the client. One on a new connection may meet a
				// socket that is being closed, with any handler.
				res, err := client.Get("http://127.0.0.1:" + port + "/v1/a")
				if err != nil {
					continue
				}
				drainBody(res)
				if res.StatusCode != 307 || res.Header.Get("Location") != "https://vault-1.example.com:8200/v1/a" {
					t.Errorf("%s %v", res.Status, res.Header)
					return
				}
				answered.Add(1)
			}
		})
	}
	for range 200 {
		if err := caddy.Load(laneServer(port, handlerJSON(consul.Addr(), ""), ""), true); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	clients.Wait()
	wait.Until(t, "the end of connections", func() bool { return onLane() == 0 })
	wait.Until(t, "the end of goroutines", func() bool { return runtime.NumGoroutine() <= before+strays })
	if answered.Load() < 200 {
		t.Errorf("%d requests were answered", answered.Load())
	}
}

// strays is how many goroutines may come meanwhile that are not the lane's, such as those of Caddy's own upkeep: far fewer
// than there would be if each reload, or each connection, left one.
const strays = 50

// TestFastLaneMemory compares what connections cost on the lane and at Caddy's server: idle, and with half a request.
func TestFastLaneMemory(t *testing.T) {
	const n = 1000
	p := newPairs(t)
	quiet := runtime.NumGoroutine()
	for name, talk := range map[string]string{"idle": last, "half a request": last[:20], "half a body": "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab"} {
		cost := func(server string) float64 {
			before := inUse()
			var conns []*memoryConn
			for range n {
				c := dialMemory(t, server)
				conns = append(conns, c)
				if _, err := c.Write([]byte(talk)); err != nil {
					t.Fatal(err)
				}
				if name == "idle" {
					if _, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil); err != nil {
						t.Fatal(err)
					}
				}
			}
			after := inUse()
			for _, c := range conns {
				_ = c.Close()
			}
			wait.Until(t, "the end of connections", func() bool { return runtime.NumGoroutine() <= quiet+strays })
			runtime.KeepAlive(p)
			return (float64(after) - float64(before)) / n
		}
		cost("plain") // what is used again counts for neither
		cost("plain-lane")
		theirs, ours := cost("plain"), cost("plain-lane")
		t.Logf("%s: %.1f KiB at Caddy's server, %.1f KiB on the lane", name, theirs/1024, ours/1024)
		if ours > theirs {
			t.Errorf("%s: a connection costs %.0f bytes on the lane, and %.0f at Caddy's server", name, ours, theirs)
		}
	}
}

// inUse returns the memory of heap and stacks, without garbage, and without what fragmentation leaves unused of spans: that depends on
// what ran before.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
