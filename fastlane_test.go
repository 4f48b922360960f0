// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the listener wrapper in Caddy: where it refuses to start, what it counts, and that it ends.

package vaultredirect

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// onLane returns how many connections are on a lane.
func onLane() int {
	buffer := make([]byte, 16<<20)
	return strings.Count(string(buffer[:runtime.Stack(buffer, true)]), "fastlane.(*conn).run(")
}

const laneWrapper = `"listener_wrappers": [{"wrapper": "vault_redirect"}]`

// TestFastLaneRefuses gives the lane servers that have something else to do, and some that have not.
func TestFastLaneRefuses(t *testing.T) {
	clearConsulEnv(t)
	handler := handlerJSON(newConsul(t).Addr(), "")
	route := `{"handle": [` + handler + `]}`
	sub := func(routes string) string { return `{"handle": [{"handler": "subroute", "routes": [` + routes + `]}]}` }
	proxying := func(match string) string {
		return laneWrapper + `, "routes": [{"handle": [` + strings.TrimSuffix(handler, "}") + `, "proxy": {"match": [` + match + `]}}]}]`
	}
	for _, row := range []struct{ name, server, http, want string }{
		{name: "the handler alone", server: laneWrapper + `, "routes": [` + route + `]`},
		{name: "in subroutes", server: laneWrapper + `, "routes": [` + sub(sub(route)) + `]`},
		{name: "behind names", server: laneWrapper + `, "routes": [{"match": [{"host": ["a.b", "c.d"]}], ` + sub(route)[1:] + `]`},
		{name: "behind names, further down", server: laneWrapper + `, "routes": [` + sub(`{"match": [{"host": ["a.b"]}], `+route[1:]) + `]`},
		{name: "after TLS", server: `"listener_wrappers": [{"wrapper": "proxy_protocol"}, {"wrapper": "tls"}, {"wrapper": "vault_redirect"}], "routes": [` + route + `]`},
		{name: "some paths proxied", server: proxying(`{"path": ["/a*"]}, {"method": ["GET"], "path": ["/b"]}`)},

		{name: "logs", server: laneWrapper + `, "logs": {}, "routes": [` + route + `]`, want: "it logs requests"},
		{name: "metrics of the server", server: laneWrapper + `, "metrics": {}, "routes": [` + route + `]`, want: "HTTP metrics are on"},
		{name: "metrics", http: `"metrics": {},`, server: laneWrapper + `, "routes": [` + route + `]`, want: "HTTP metrics are on"},
		{name: "routes for errors", server: laneWrapper + `, "errors": {"routes": [{}]}, "routes": [` + route + `]`, want: "handle_errors"},
		{name: "named routes", server: laneWrapper + `, "named_routes": {"x": {}}, "routes": [` + route + `]`, want: "named routes"},
		{name: "full duplex", server: laneWrapper + `, "enable_full_duplex": true, "routes": [` + route + `]`, want: "enable_full_duplex"},
		{name: "odd headers", server: laneWrapper + `, "expected_underscore_headers": ["X_Forwarded_Proto"], "routes": [` + route + `]`, want: "expected_underscore_headers"},
		{name: "odder headers", server: laneWrapper + `, "expected_dot_headers": ["X.Forwarded.Proto"], "routes": [` + route + `]`, want: "expected_dot_headers"},
		{name: "no HTTP/1.1", server: laneWrapper + `, "protocols": ["h2"], "routes": [` + route + `]`, want: "does not have h1"},
		{name: "before TLS", server: `"listener_wrappers": [{"wrapper": "vault_redirect"}, {"wrapper": "tls"}], "routes": [` + route + `]`, want: "after it comes tls"},
		{name: "twice", server: `"listener_wrappers": [{"wrapper": "vault_redirect"}, {"wrapper": "vault_redirect"}], "routes": [` + route + `]`, want: "after it comes vault_redirect"},
		{name: "no route", server: laneWrapper, want: "no route"},
		{name: "no handler", server: laneWrapper + `, "routes": [{}]`, want: "has the handlers"},
		{name: "two routes", server: laneWrapper + `, "routes": [` + route + `, ` + route + `]`, want: "the server has 2 routes"},
		{name: "two routes further down", server: laneWrapper + `, "routes": [` + sub(route+`, {}`) + `]`, want: "a subroute has 2 routes"},
		{name: "errors further down", server: laneWrapper + `, "routes": [{"handle": [{"handler": "subroute", "errors": {"routes": [{}]}, "routes": [` + route + `]}]}]`, want: "handle_errors"},
		{name: "another handler before", server: laneWrapper + `, "routes": [{"handle": [{"handler": "headers"}, ` + handler + `]}]`, want: "the handlers headers, vault_redirect"},
		{name: "another handler", server: laneWrapper + `, "routes": [{"handle": [{"handler": "static_response"}]}]`, want: "the handlers static_response"},
		{name: "another matcher", server: laneWrapper + `, "routes": [{"match": [{"path": ["/v1/*"]}], ` + route[1:] + `]`, want: "the matcher path"},
		{name: "another matcher further down", server: laneWrapper + `, "routes": [` + sub(`{"match": [{"path": ["/v1/*"]}], `+route[1:]) + `]`, want: "the matcher path"},
		{name: "two matchers", server: laneWrapper + `, "routes": [{"match": [{"host": ["a.b"], "path": ["/"]}], ` + route[1:] + `]`, want: "several matchers"},
		{name: "two sets of matchers", server: laneWrapper + `, "routes": [{"match": [{"host": ["a.b"]}, {"host": ["c.d"]}], ` + route[1:] + `]`, want: "several matchers"},
		{name: "names at two places", server: laneWrapper + `, "routes": [{"match": [{"host": ["a.b"]}], ` + sub(`{"match": [{"host": ["a.b"]}], ` + route[1:])[1:] + `]`, want: "several matchers"},
		{name: "a wildcard", server: laneWrapper + `, "routes": [{"match": [{"host": ["*.b"]}], ` + route[1:] + `]`, want: `"*.b"`},
		{name: "a placeholder", server: laneWrapper + `, "routes": [` + sub(`{"match": [{"host": ["{env.X}"]}], `+route[1:]) + `]`, want: `"{env.X}"`},
		{name: "proxied by header", server: proxying(`{"header": {"X": ["y"]}}`), want: "the matcher header looks at more"},
		{name: "proxied by a placeholder", server: proxying(`{"path": ["/{http.request.host}"]}`), want: "has a placeholder"},
		{name: "options", server: `"listener_wrappers": [{"wrapper": "vault_redirect", "x": 1}], "routes": [` + route + `]`, want: "unknown field"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := caddy.Load(fmt.Appendf(nil, `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
				"apps": {"http": {%s "servers": {"s": {"listen": ["127.0.0.1:0"], "automatic_https": {"disable": true}, %s}}}}}`, row.http, row.server), true)
			defer func() { _ = caddy.Stop() }()
			if row.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, row.want)
			if row.want != "unknown field" {
				wantError(t, err, "the fast lane (listener wrapper vault_redirect) cannot be used with")
			}
		})
	}
	lanes.Range(func(server, _ any) bool {
		t.Errorf("the lane of a server is left: %v", server)
		return true
	})
}

// TestFastLaneCaddyfile reads the wrapper from a Caddyfile.
func TestFastLaneCaddyfile(t *testing.T) {
	adapter := caddyconfig.GetAdapter("caddyfile")
	adapt := func(options string) ([]byte, error) {
		out, _, err := adapter.Adapt([]byte("{\nservers {\nlistener_wrappers {\n"+options+"\n}\n}\n}\n:1234 {\nvault_redirect\n}\n"), nil)
		return out, err
	}
	out, err := adapt("vault_redirect")
	if err != nil || !strings.Contains(string(out), `"listener_wrappers":[{"wrapper":"vault_redirect"}]`) {
		t.Errorf("%s %v", out, err)
	}
	for options, want := range map[string]string{"vault_redirect fast": "wrong argument count", "vault_redirect {\nfast\n}": "has no options"} {
		_, err := adapt(options)
		wantError(t, err, want)
	}
}

// laneServer is the config of a Caddy with a server on a port, with the lane.
func laneServer(port, handler, more string) []byte {
	return fmt.Appendf(nil, `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
		"apps": {"http": {"servers": {"s": {"listen": ["127.0.0.1:%s"], "automatic_https": {"disable": true}, %s, "routes": [{"handle": [%s]}] %s}}}}}`,
		port, laneWrapper, handler, more)
}

func freePort(t testing.TB) string {
	t.Helper()
	port, err := harness.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// runLane runs a Caddy with the lane, whose active node is known.
func runLane(t *testing.T, port, handler, more string) {
	t.Helper()
	if err := caddy.Load(laneServer(port, handler, more), true); err != nil {
		t.Fatal(err)
	}
	soon(t, "an active node", func() bool { c := clusters(); return len(c) == 1 && c[0].view.State().Active() })
}

// TestFastLaneServes has requests stay on the lane and be counted, until one comes that is for Caddy.
func TestFastLaneServes(t *testing.T) {
	clearConsulEnv(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	consul := newConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault-1.example.com")))
	port := freePort(t)
	runLane(t, port, handlerJSON(consul.Addr(), `, "hold": 0`), "")
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reader := bufio.NewReader(c)
	ask := func(method, path string, want, lane int) {
		t.Helper()
		stats := clusters()[0].view.Stats()
		before := stats.Answers(engine.Redirected)
		if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: vault.example.com\r\n\r\n", method, path); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil || res.StatusCode != want {
			t.Fatalf("%v %v, want %d", res, err, want)
		}
		drainBody(res)
		if counted := stats.Answers(engine.Redirected) - before; (counted == 1) != (want == http.StatusTemporaryRedirect) {
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

// handlerOfView returns a handler that has the view of the only cluster, for those who wait for its state.
func handlerOfView(t *testing.T) *Handler {
	t.Helper()
	return &Handler{Active: Active{view: clusters()[0].view}}
}

// TestFastLaneTLS has Caddy's server serve HTTP/2, and the lane say what Caddy's server says of HTTP/3.
func TestFastLaneTLS(t *testing.T) {
	clearConsulEnv(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	consul := newConsul(t, standin.Active("vault-1"))
	port := freePort(t)
	cert, key := writePair(t, t.TempDir(), "vault.example.com")
	config := laneServer(port, handlerJSON(consul.Addr(), ""), `, "tls_connection_policies": [{}]`)
	config = fmt.Appendf(nil, `%s, "tls": {"certificates": {"load_files": [{"certificate": %q, "key": %q}]}}}}`, strings.TrimSuffix(string(config), "}}"), cert, key)
	if !json.Valid(config) {
		t.Fatalf("%s", config)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	soon(t, "an active node", func() bool { return clusters()[0].view.State().Active() })
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		var protocols http.Protocols
		protocols.SetHTTP1(proto == "HTTP/1.1")
		protocols.SetHTTP2(proto == "HTTP/2.0")
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "vault.example.com"}, Protocols: &protocols}
		soon(t, "the announcement of HTTP/3 over "+proto, func() bool {
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
		soon(t, "the end of connections", func() bool { return onLane() == 0 })
	}
	// What is no TLS is told so by Caddy's server.
	res, err := http.Get("http://127.0.0.1:" + port)
	if err != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("%v %v", res, err)
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
	consul := newConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault-1.example.com")))
	port := freePort(t)
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
	soon(t, "the end of connections", func() bool { return onLane() == 0 })
	soon(t, "the end of goroutines", func() bool { return runtime.NumGoroutine() <= before })
	if answered.Load() < 200 {
		t.Errorf("%d requests were answered", answered.Load())
	}
	n := 0
	lanes.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d lanes are known, want 1", n)
	}
}

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
			soon(t, "the end of connections", func() bool { return runtime.NumGoroutine() <= quiet })
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

// inUse returns the memory of heap and stacks, without garbage.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
