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
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// A read reaches a node that breaks each connection three times at most, however many connections were kept to it; anything
// else reaches it once.
func TestProxyCountsWhatItSends(t *testing.T) {
	const kept = 30
	var breaks, under, times atomic.Int32
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if breaks.Load() == 0 {
			under.Add(1)
			for under.Load() < kept { // so that each has a connection of its own
				runtime.Gosched()
			}
			return
		}
		times.Add(1)
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}), `, "hold": "1m"`, "")
	for _, row := range []struct {
		method, body string
		most         int32
	}{
		{"GET", "", 1 + maxRepeats},
		{"HEAD", "", 1 + maxRepeats},
		{"OPTIONS", "", 1 + maxRepeats},
		{"LIST", "", 1 + maxRepeats},
		{"TRACE", "", 1},
		{"GET", "a body", 1},
		{"HEAD", "a body", 1},
		{"OPTIONS", "a body", 1},
		{"TRACE", "a body", 1},
		{"GET", strings.Repeat("x", 2*maxBuffered), 1},
		{"POST", "", 1},
		{"PUT", "a body", 1},
		{"DELETE", "", 1},
	} {
		t.Run(fmt.Sprintf("%s with %d bytes", row.method, len(row.body)), func(t *testing.T) {
			breaks.Store(0)
			under.Store(0)
			var all sync.WaitGroup
			for range kept {
				all.Go(func() { r.send(t, "GET", "/v1/x", "") })
			}
			all.Wait()
			breaks.Store(1)
			times.Store(0)
			code, _, body := r.raw(t, row.method, "/v1/x", row.body)
			if n := times.Load(); code != http.StatusBadGateway || n != row.most {
				t.Errorf("status %d, the node has got it %d times, want %d: %s", code, n, row.most, body)
			}
		})
	}
}

// raw sends a request of any method, over a connection of its own, and returns the answer.
func (r *liveCaddy) raw(t *testing.T, method, path, body string) (code int, header http.Header, text string) {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", method, path, r.addr, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	all, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(all)
}

// hanging is a node that takes requests for /v1/hang and does not answer, begins to answer those for /v1/begin, and never
// ends that.
func hanging(t *testing.T) (node *httptest.Server, taken *atomic.Int32) {
	taken = new(atomic.Int32)
	node = served(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/begin" {
			flush(w, "begun")
		}
		taken.Add(1)
		<-r.Context().Done()
	})
	return node, taken
}

// nextNode is the node that is active next. It answers with the method of the request.
func nextNode(t *testing.T) (name string, entry standin.Opt, port standin.Opt) {
	t.Helper()
	next := served(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "next ", r.Method) })
	t.Cleanup(next.Close)
	host, number := hostPortOf(t, next.Listener.Addr().String())
	return "vault-2", standin.Address(host), standin.Port(number)
}

// A try ends when its node is dead and another one is active: reads go on there, others are told that they may have been
// carried out, and an answer that has begun breaks off.
func TestTryEndsWithItsNode(t *testing.T) {
	node, taken := hanging(t)
	r := proxyTo(t, node, `, "hold": "2m"`, "")
	host, port := hostPortOf(t, node.Listener.Addr().String())
	type answer struct {
		code int
		body string
	}
	answers := map[string]chan answer{}
	for _, method := range []string{"GET", "LIST", "HEAD", "POST", "PUT", "DELETE"} {
		answers[method] = make(chan answer, 1)
		go func() {
			code, _, body := r.send(t, method, "/v1/hang", "")
			answers[method] <- answer{code, body}
		}()
	}
	begun := make(chan string, 1)
	go func() {
		resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "GET", "/v1/begin", nil))
		if err != nil {
			begun <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		begun <- fmt.Sprintf("%s, then %v", body, err)
	}()
	wait.Until(t, "all are under way", func() bool { return taken.Load() == 7 })

	name, at, of := nextNode(t)
	r.consul.Set("vault",
		standin.Standby("vault-1", standin.Address(host), standin.Port(port), standin.NodeCheck("serfHealth", "critical")),
		standin.Active(name, at, of))
	for method, c := range answers {
		got := <-c
		switch method {
		case "GET", "LIST":
			if got.code != http.StatusOK || got.body != "next "+method {
				t.Errorf("%s: status %d: %s", method, got.code, got.body)
			}
		case "HEAD":
			if got.code != http.StatusOK {
				t.Errorf("%s: status %d", method, got.code)
			}
		default:
			if got.code != http.StatusBadGateway || !strings.Contains(got.body, "stopped being active before it answered, and may have carried out the request") {
				t.Errorf("%s: status %d: %s", method, got.code, got.body)
			}
		}
	}
	if got := <-begun; !strings.HasPrefix(got, "begun, then ") || strings.HasSuffix(got, "<nil>") {
		t.Errorf("the answer that had begun: %s", got)
	}
}

// A node that lives but is no longer active may answer for a while what it was sent before, and end what it has begun to answer.
func TestReplacedNodeMayAnswer(t *testing.T) {
	goOn, end := make(chan struct{}), make(chan struct{})
	var taken atomic.Int32
	node := served(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		taken.Add(1)
		switch r.URL.Path {
		case "/v1/late":
			<-goOn
		case "/v1/begin":
			flush(w, "begun, ")
			<-end
		default:
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, "late")
	})
	r := proxyTo(t, node, `, "hold": "2m"`, "")
	host, port := hostPortOf(t, node.Listener.Addr().String())
	answers := map[string]chan string{}
	for _, path := range []string{"/v1/late", "/v1/begin", "/v1/hang"} {
		answers[path] = make(chan string, 1)
		go func() {
			code, _, body := r.send(t, "POST", path, "a body")
			answers[path] <- fmt.Sprint(code, " ", body)
		}()
	}
	wait.Until(t, "all are under way", func() bool { return taken.Load() == 3 })
	name, at, of := nextNode(t)
	r.consul.Set("vault", standin.Standby("vault-1", standin.Address(host), standin.Port(port)), standin.Active(name, at, of))
	wait.Until(t, "the next one is active", func() bool { return registry.Clusters()[0].View.State().Node.Name == name })
	close(goOn)
	if got := <-answers["/v1/late"]; got != "200 late" {
		t.Errorf("what is answered right after that: %s", got)
	}
	if got := <-answers["/v1/hang"]; !strings.HasPrefix(got, "502 ") { // after the time that it may take
		t.Errorf("what is never answered: %s", got)
	}
	close(end)
	if got := <-answers["/v1/begin"]; got != "200 begun, late" {
		t.Errorf("what had begun: %s", got)
	}
}

// A standby that redirects instead of forwarding has done nothing: the request waits for the active node, whatever its method.
func TestStandbyThatRedirects(t *testing.T) {
	var refused atomic.Int32
	node := served(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		refused.Add(1)
		http.Redirect(w, r, "http://127.0.0.99:8200"+r.URL.Path, http.StatusTemporaryRedirect)
	})
	r := proxyTo(t, node, `, "hold": "2m"`, "")
	codes := make(chan string, 1)
	go func() {
		code, _, body := r.send(t, "POST", "/v1/secret/data/x", "a body")
		codes <- fmt.Sprint(code, " ", body)
	}()
	wait.Until(t, "it is refused", func() bool { return refused.Load() > 0 })
	name, at, of := nextNode(t)
	r.consul.Set("vault", standin.Standby("vault-1"), standin.Active(name, at, of))
	if got := <-codes; got != "200 next POST" {
		t.Error(got)
	}
}

// Vault's redirects to another path of its own are for the client.
func TestNodeRedirectsToItself(t *testing.T) {
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/ui/", http.StatusTemporaryRedirect)
	}), "", "")
	if code, header, _ := r.send(t, "GET", "/", ""); code != http.StatusTemporaryRedirect || header.Get("Location") != "/ui/" {
		t.Errorf("status %d, Location %q", code, header.Get("Location"))
	}
}

// What is no HTTP, and a header that is too long, is said to be that, once.
func TestProxyOfWhatIsNoHTTP(t *testing.T) {
	for name, answer := range map[string]string{
		"no HTTP":         "SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"an endless line": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 11<<20),
	} {
		t.Run(name, func(t *testing.T) {
			var times atomic.Int32
			node := httptest.NewUnstartedServer(nil)
			node.Listener.Close()
			node.Listener = standin.Serve(t, func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					times.Add(1)
					_, _ = io.WriteString(c, answer)
					_, _ = io.Copy(io.Discard, c)
				}
			})
			r := proxyTo(t, node, `, "hold": "1m"`, "")
			code, _, body := r.send(t, "GET", "/v1/x", "")
			if code != http.StatusBadGateway || !strings.Contains(body, "an answer that is no HTTP, or whose header is too long") || times.Load() != 1 {
				t.Errorf("status %d after %d times: %s", code, times.Load(), body)
			}
		})
	}
}

// A request that is beyond its client's share of the places is answered without its body being read.
func TestBodyIsReadOnceThereIsAPlace(t *testing.T) {
	r := proxyTo(t, served(func(http.ResponseWriter, *http.Request) {}), `, "hold": "5m", "hold_max": 1`, "")
	r.lose(t)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := new(http.Transport).RoundTrip(r.request(ctx, t, "PUT", "/v1/x", strings.NewReader("a body")))
		left <- err
	}()
	proxyWaiting(t, 1)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n") // and nothing of it
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("%v, %v", resp, err)
	}
	leave()
	<-left
}

// After a reload, the connection over which the config before it has proxied to the node ends with the last request on it.
func TestProxyLeavesNoConnection(t *testing.T) {
	var open, under atomic.Int32
	release := make(chan struct{})
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/long" {
			under.Add(1)
			<-release
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	node.EnableHTTP2 = true
	node.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
	node.StartTLS()
	r := proxyTrusting(t, node, fmt.Sprintf(`{"ca": %q}`, authorityOf(t, node)), "", "")
	config := func(i int) []byte {
		return fmt.Appendf(nil, `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
			"apps": {"http": {"servers": {"s": {"listen": [%q], "routes": [{"handle": [{"handler": "vault_redirect", "retry_after": "%ds",
			"discovery": {"source": "consul", "address": %q}, "probe": {"mode": "off"},
			"proxy": {"match": [{"path": ["*"]}], "tls": {"ca": %q}}}]}]}}}}}`, r.addr, i+1, r.consul.Addr(), authorityOf(t, node))
	}
	for i := range 3 {
		done := make(chan int, 1)
		go func() {
			code, _, _ := r.send(t, "GET", "/v1/long", "")
			done <- code
		}()
		wait.Until(t, "a request under way", func() bool { return under.Load() == int32(i+1) })
		loaded := make(chan error, 1)
		go func() { loaded <- caddy.Load(config(i), true) }()
		wait.Until(t, "the next config", func() bool {
			// A reload may reset a connection that waits at the old socket.
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r.request(t.Context(), t, "GET", "/v1/x", nil))
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusNoContent && open.Load() == 2
		})
		release <- struct{}{}
		if code := <-done; code != http.StatusNoContent {
			t.Errorf("status %d", code)
		}
		if err := <-loaded; err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "one connection", func() bool { return open.Load() == 1 })
	}
}

// A place is given back when hold is over, however slowly the client sends its body.
func TestSlowBodyKeepsNoPlace(t *testing.T) {
	r := proxyTo(t, served(func(http.ResponseWriter, *http.Request) {}), `, "hold": "2s", "hold_max": 10`, "")
	r.lose(t)
	q := registry.Clusters()[0].Users[0].Queue
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "PUT /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
	go func() {
		for {
			time.Sleep(500 * time.Millisecond)
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
		}
	}()
	proxyWaiting(t, 1)
	began := time.Now()
	for q.Waiting() > 0 && time.Since(began) < 15*time.Second {
		time.Sleep(50 * time.Millisecond)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("hold is 2s, the place is taken for %s", took)
	}
}

// A node that was replaced, and that has sent only an interim answer, is given up like one that has sent nothing.
func TestInterimAnswerIsNone(t *testing.T) {
	var taken atomic.Int32
	node := served(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/hints" {
			w.WriteHeader(103)
		}
		taken.Add(1)
		<-r.Context().Done()
	})
	r := proxyTo(t, node, `, "hold": "2m"`, "")
	host, port := hostPortOf(t, node.Listener.Addr().String())
	answers := map[string]chan string{}
	for _, path := range []string{"/v1/hints", "/v1/plain", "/v1/continue"} {
		answers[path] = make(chan string, 1)
		go func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				answers[path] <- err.Error()
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			expect := ""
			if path == "/v1/continue" {
				expect = "Expect: 100-continue\r\n"
			}
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: 1\r\n\r\nx", path, expect)
			reader := bufio.NewReader(c)
			for {
				resp, err := http.ReadResponse(reader, nil)
				if err != nil {
					answers[path] <- err.Error()
					return
				}
				if resp.StatusCode >= 200 {
					answers[path] <- fmt.Sprint(resp.StatusCode)
					return
				}
			}
		}()
	}
	wait.Until(t, "all are under way", func() bool { return taken.Load() == 3 })
	name, at, of := nextNode(t)
	r.consul.Set("vault", standin.Standby("vault-1", standin.Address(host), standin.Port(port)), standin.Active(name, at, of))
	for path, c := range answers {
		if got := <-c; got != "502" {
			t.Errorf("%s: %s", path, got)
		}
	}
}
