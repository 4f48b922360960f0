// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// nginx runs nginx in front of a Caddy, to whose port it keeps connections. At port 8080 it sends on bodies as they come, at
// 8081 once it has all of them.
func nginx(t *testing.T, caddy string) (ip string) {
	t.Helper()
	return runInFront(t, "nginx", func(ip, dir string) string {
		return fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/nginx.pid;
events { worker_connections 1000; }
http {
  access_log off; error_log stderr crit; client_max_body_size 0; proxy_http_version 1.1; proxy_set_header Connection "";
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  upstream redirector { server %[2]s; keepalive 8; }
  server { listen %[3]s:8080; location / { proxy_pass http://redirector; proxy_request_buffering off; } }
  server { listen %[3]s:8081; location / { proxy_pass http://redirector; } }
}
`, dir, caddy, ip)
	}, "-p", "./", "-e", "stderr", "-c")
}

// The tokens of the two clients, whose paths begin with /v1/a/ and /v1/b/.
const (
	tokenA = "hvs.token-of-client-a"
	tokenB = "hvs.token-of-client-b"
)

// mixups are what goes wrong between two clients.
type mixups struct {
	t     *testing.T
	count atomic.Int32
}

func (m *mixups) add(format string, args ...any) {
	if n := m.count.Add(1); n <= 10 {
		m.t.Errorf(format, args...)
	}
}

// hasty is a node that treats the body of a request as its path says, /v1/<client>/<kind>/<number>, and looks whether
// anything in a request is another client's. It answers with the request's path and token.
type hasty struct {
	net.Listener
	mixups   *mixups
	requests atomic.Int64
}

func newHasty(t *testing.T, m *mixups) *hasty {
	t.Helper()
	n := &hasty{mixups: m}
	n.Listener = standin.Serve(t, n.serve)
	return n
}

func (n *hasty) serve(c net.Conn) {
	reader := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		n.requests.Add(1)
		parts := append(strings.Split(req.URL.Path, "/"), "", "", "", "")
		client, kind, token := parts[2], parts[3], req.Header.Get("X-Vault-Token")
		if len(req.Header["X-Vault-Token"]) != 1 || client+token != "a"+tokenA && client+token != "b"+tokenB || strings.Contains(req.URL.Path, "INSIDE") {
			n.mixups.add("the node got a %.20s of %s with the tokens %v", req.Method, req.URL.Path, req.Header["X-Vault-Token"])
		}
		rest := func() bool {
			body, err := io.ReadAll(req.Body)
			if client != "b" && (bytes.Contains(body, []byte(tokenB)) || bytes.Contains(body, []byte("/v1/b/"))) || client == "b" && strings.Trim(string(body), "b") != "" {
				n.mixups.add("the body of %s has another client's request: %q", req.URL.Path, body[max(0, len(body)-500):])
			}
			return err == nil
		}
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Path: %s\r\nX-Token: %s\r\n\r\nnode\n", req.URL.Path, token)
		switch kind {
		case "die":
			_, _ = io.CopyN(io.Discard, req.Body, 1)
			return
		case "early":
			if _, err := io.WriteString(c, answer); err != nil || !rest() {
				return
			}
		case "early-close":
			_, _ = io.WriteString(c, answer)
			return
		default:
			if !rest() {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// upload is one kind of upload of client A.
type upload struct {
	name    string
	kind    string // the node's
	codes   []int  // how it may be answered; 0: not at all
	chunked bool
	headers string
	ending  string // behind the chunks of the body
	leaves  bool   // the client leaves before its body has ended
}

// A node that closes a connection may do so just as it is given a request, or before its answer is read.
var uploadKinds = []upload{
	{name: "whole", kind: "read", codes: []int{200, 502}},
	{name: "whole, chunked", kind: "read", codes: []int{200, 502}, chunked: true, ending: "0\r\n\r\n"},
	{name: "asked for", kind: "read", codes: []int{200, 502}, headers: "Expect: 100-continue\r\n"},
	{name: "bad chunk", kind: "read", codes: []int{400}, chunked: true, ending: "ZZ\r\n"},
	{name: "chunk cut", kind: "read", codes: []int{0}, chunked: true, ending: "fffff\r\n", leaves: true},
	{name: "answered early", kind: "early", codes: []int{200, 502}},
	{name: "answered early, chunked", kind: "early", codes: []int{200, 502}, chunked: true, ending: "0\r\n\r\n"},
	{name: "answered early, then closed", kind: "early-close", codes: []int{200, 502}},
	{name: "answered early, then closed, chunked", kind: "early-close", codes: []int{200, 502}, chunked: true, ending: "0\r\n\r\n"},
	{name: "dying node", kind: "die", codes: []int{502}},
	{name: "dying node, chunked", kind: "die", codes: []int{502}, chunked: true, ending: "0\r\n\r\n"},
	{name: "too large", kind: "sized", codes: []int{200, 413, 502}},
	{name: "too large, chunked", kind: "sized", codes: []int{200, 413, 502}, chunked: true, ending: "0\r\n\r\n"},
}

// bodyOf returns a body whose rest would be a request, wherever it began.
func bodyOf(size int) string {
	return strings.Repeat("A", size) + " /v1/a/INSIDE HTTP/1.1\r\nHost: a\r\nX-Vault-Token: " + tokenA + "\r\nContent-Length: 3000\r\n\r\n"
}

// send sends an upload, and checks that its answer is its own.
func (u upload) send(m *mixups, addr string, number int) (code int) {
	path := fmt.Sprintf("/v1/a/%s/%d", u.kind, number)
	body := bodyOf([]int{100, 3000, 40_000, 70_000, 150_000, 400_000}[rand.IntN(6)])
	head := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: vault\r\nX-Vault-Token: %s\r\n%s", path, tokenA, u.headers)
	if u.chunked {
		half := len(body) / 2
		body = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n%s", half, body[:half], len(body)-half, body[half:], u.ending)
	} else {
		body = fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		m.add("nginx: %v", err)
		return 0
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if _, err := io.WriteString(c, head+body); u.leaves || err != nil {
			c.Close()
		}
	}()
	defer func() { c.Close(); <-sent }()
	reader := bufio.NewReader(c)
	for code < 200 {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return 0
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		code = resp.StatusCode
		if got := resp.Header.Get("X-Path") + resp.Header.Get("X-Token"); got != "" && got != path+tokenA {
			m.add("the answer to the upload %s is that to %s", path, got)
		}
	}
	return code
}

// askBeside sends a request of client B over a connection that may be kept, and checks that its answer is its own: that of the node,
// or the redirector's that a node has broken a connection.
func askBeside(ctx context.Context, m *mixups, rt http.RoundTripper, addr string, number int) (code int) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	path := fmt.Sprintf("/v1/b/read/%d", number)
	req, err := http.NewRequestWithContext(ctx, []string{"GET", "PUT"}[number%2], "http://"+addr+path, strings.NewReader(strings.Repeat("b", number%2*100)))
	if err != nil {
		m.add("%v", err)
		return 0
	}
	req.Header.Set("X-Vault-Token", tokenB)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		m.add("no answer to %s %s of the second client: %v", req.Method, path, err)
		return 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	own := resp.StatusCode == http.StatusOK && resp.Header.Get("X-Path") == path && resp.Header.Get("X-Token") == tokenB && string(body) == "node\n"
	broken := resp.StatusCode == http.StatusBadGateway && resp.Header.Get("X-Path") == "" && strings.HasPrefix(string(body), `{"errors":`)
	if err != nil || !own && !broken {
		m.add("the answer to %s %s of the second client: status %d, %v, %.200q, %v", req.Method, path, resp.StatusCode, resp.Header, body, err)
	}
	return resp.StatusCode
}

// Uploads of every kind go through an nginx that keeps its connections to the redirector, beside requests of another client:
// nothing of one client reaches the other, and nothing in a body is a request.
func TestUploadsBehindNginx(t *testing.T) {
	n := countFromEnv(t, "VAULT_REDIRECT_UPLOADS", 500) // each way
	if testing.Short() {
		n = min(n, 100)
	}
	m := &mixups{t: t}
	node := newHasty(t, m)
	host, port, _ := net.SplitHostPort(node.Addr().String())
	number, _ := strconv.Atoi(port)
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address(host), standin.Port(number)))
	caddy := runCaddy(t, "", `
:8080 {
	route {
		request_body /v1/a/sized/* {
			max_size 1000
		}
		vault_redirect `+consul.Addr()+` {
			scheme http
			probe off
			proxy path /v1/*
		}
	}
}`)
	caddy.await("healthy", func() bool { return readHealth(t, "http://"+caddy.IP+":8080").Healthy })
	ip := nginx(t, caddy.IP+":8080")
	for name, addr := range map[string]string{"as they come": ip + ":8080", "once they are whole": ip + ":8081"} {
		wait.Until(t, "nginx answers", func() bool {
			resp, err := client.Get("http://" + addr + harness.HealthPath)
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
		uploadBeside(t, m, name, addr, n)
	}
	t.Logf("%d requests came to the node, %d mix-ups", node.requests.Load(), m.count.Load())
}

// uploadBeside makes four clients upload, and two others ask as long as they do.
func uploadBeside(t *testing.T, m *mixups, name, addr string, n int) {
	t.Helper()
	const most = 10 // mix-ups are enough
	var (
		first, second sync.WaitGroup
		next, asked   atomic.Int64
		over          atomic.Bool
		mu            sync.Mutex
		codes         = map[string]map[int]int{}
	)
	count := func(what string, code int) {
		mu.Lock()
		defer mu.Unlock()
		if codes[what] == nil {
			codes[what] = map[int]int{}
		}
		codes[what][code]++
	}
	for range 2 {
		second.Go(func() {
			rt := &http.Transport{}
			defer rt.CloseIdleConnections()
			for !over.Load() && m.count.Load() < most {
				count("second client", askBeside(t.Context(), m, rt, addr, int(asked.Add(1))))
			}
		})
	}
	began := time.Now()
	for range 4 {
		first.Go(func() {
			for i := int(next.Add(1)); i <= n && m.count.Load() < most; i = int(next.Add(1)) {
				u := uploadKinds[i%len(uploadKinds)]
				code := u.send(m, addr, i)
				if count(u.name, code); !slices.Contains(u.codes, code) {
					m.add("upload %d, %s: status %d", i, u.name, code)
				}
			}
		})
	}
	first.Wait()
	over.Store(true)
	second.Wait()
	t.Logf("bodies sent on %s: %d uploads in %s; statuses (0: none): %v", name, min(n, int(next.Load())), time.Since(began).Round(time.Millisecond), codes)
}
