// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// rudeNode is a node that treats the body of a request as the end of the request's path says:
//
//	/read         it reads the body, then answers
//	/slow         the same, in pieces
//	/read-close   the same, and it closes the connection
//	/early        it answers before it has read anything, then reads the body
//	/early-close  the same, and it closes the connection instead of reading
//	/half         it answers and closes the connection once it has read a byte
//	/cut          it closes the connection in the midst of its answer, which is early
//	/die          it closes the connection in the midst of the body
//	/hang         it reads the body and answers nothing
type rudeNode struct {
	net.Listener
	smuggled atomic.Int32 // requests for a path with SMUGGLED in it
	script   nodeScript
}

// nodeScript is told of each request that a node gets, and may say that it is treated as another path would be; took is called
// with the length of a body that was read to its end.
type nodeScript func(r *http.Request) (path string, took func(int64))

// byPath is the script of nodes that treat requests as their paths say.
func byPath(r *http.Request) (path string, took func(int64)) { return r.URL.Path, func(int64) {} }

func newRudeNode(t testing.TB, s nodeScript) *rudeNode {
	t.Helper()
	n := &rudeNode{script: s}
	n.Listener = standin.Serve(t, n.serve)
	return n
}

func (n *rudeNode) serve(c net.Conn) {
	reader := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		if strings.Contains(req.URL.Path, "SMUGGLED") {
			n.smuggled.Add(1)
		}
		path, took := n.script(req)
		body := func() error {
			length, err := io.Copy(io.Discard, req.Body)
			if err == nil {
				took(length)
			}
			return err
		}
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Path: %s\r\n\r\n", req.URL.Path)
		if req.Method != http.MethodHead {
			answer += "node\n"
		}
		kind := path[strings.LastIndexByte(path, '/')+1:]
		switch kind {
		case "early", "early-close":
		case "half":
			_, _ = io.CopyN(io.Discard, req.Body, 1)
		case "cut":
			_, _ = io.WriteString(c, answer[:len(answer)-3])
			return
		case "die":
			_, _ = io.CopyN(io.Discard, req.Body, 1)
			return
		case "hang":
			_, _ = io.Copy(io.Discard, reader)
			return
		default:
			if body() != nil {
				return
			}
		}
		for kind == "slow" && len(answer) > 1 {
			_, _ = io.WriteString(c, answer[:1])
			answer = answer[1:]
		}
		_, _ = io.WriteString(c, answer)
		if kind == "early-close" || kind == "read-close" || kind == "half" {
			return
		}
		if kind == "early" && body() != nil {
			return
		}
	}
}

// leftovers is a Caddy whose servers, of each kind, may be sent bodies. Those that end with -lane have the fast lane.
type leftovers struct {
	node  *rudeNode
	ports map[string]string
}

// Each server is there plainly and over TLS, with the lane and without; "sized" has a limit for bodies, which the lane
// cannot have in front of it.
func newLeftovers(t testing.TB) *leftovers {
	t.Helper()
	clearLaneEnv(t)
	l := &leftovers{node: newRudeNode(t, byPath), ports: map[string]string{}}
	host, port := hostPortOf(t, l.node.Addr().String())
	// The node's mark is all that tells that it is active, and the other clusters are never asked for.
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address(host), standin.Port(port)))
	cert, key := writePair(t, t.TempDir(), "vault.example.com")
	var servers []string
	add := func(name, handlers, more string) {
		l.ports[name] = harness.Port(t)
		if strings.Contains(name, "tls") {
			more += `, "tls_connection_policies": [{}], "protocols": ["h1"]`
		}
		servers = append(servers, fmt.Sprintf(`%q: {"listen": ["127.0.0.1:%s"], "automatic_https": {"disable": true}, "routes": [{"handle": [%s]}] %s}`,
			name, l.ports[name], handlers, more))
	}
	handler := func(more string) string {
		return fmt.Sprintf(`{"handler": "vault_redirect", "scheme": "http", "hold": 0, "probe": {"mode": "off"},
			"discovery": {"source": "consul", "address": %q, "poll_interval": "10m"} %s}`, consul.Addr(), more)
	}
	proxy := handler(`, "proxy": {"match": [{"path": ["/v1/p/*"]}]}`)
	for _, over := range []string{"", "-tls"} {
		for _, lane := range []string{"", "-lane"} {
			more := ""
			if lane != "" {
				more = `, "listener_wrappers": [{"wrapper": "vault_redirect"}]`
			}
			add("proxy"+over+lane, proxy, more)
			add("none"+over+lane, strings.Replace(handler(""), `"address"`, `"service": "no-vault", "address"`, 1), more)
		}
		add("sized"+over, `{"handler": "request_body", "max_size": 1000},`+proxy, "")
		add("page"+over, `{"handler": "vault_redirect_status"}`, "")
		loop := harness.Port(t)
		add("loop"+over, handler(fmt.Sprintf(`, "redirect_to": "node_address", "port": %s`, loop)), "")
		servers[len(servers)-1] = strings.Replace(servers[len(servers)-1], "127.0.0.1:"+l.ports["loop"+over]+`"`, "127.0.0.1:"+loop+`"`, 1)
		l.ports["loop"+over] = loop
	}
	config := fmt.Sprintf(`{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
		"apps": {"tls": {"certificates": {"load_files": [{"certificate": %q, "key": %q}]}}, "http": {"http_port": 1, "https_port": 2, "servers": {%s}}}}`,
		cert, key, strings.Join(servers, ","))
	runJSON(t, config)
	return l
}

// dial connects to a server; over TLS the other side sees the end of what is written by half a close, too.
func (l *leftovers) dial(t testing.TB, server string) interface {
	net.Conn
	CloseWrite() error
} {
	t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+l.ports[server])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if !strings.Contains(server, "-tls") {
		return c.(*net.TCPConn)
	}
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "vault.example.com", NextProtos: []string{"http/1.1"}})
	if err := tc.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return tc
}

// ending is when a client ends its side of a connection.
type ending int

const (
	never ending = iota
	onceSent
	onceAnswered
)

// converse sends what a client sends, and returns the statuses of all final answers, until the end of the connection. The
// client ends its side as end says.
func (l *leftovers) converse(t testing.TB, server, sent string, end ending) (codes []int) {
	t.Helper()
	c := l.dial(t, server)
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	go func() {
		_, _ = io.WriteString(c, sent) // which may be more than the server takes
		if end == onceSent {
			_ = c.CloseWrite()
		}
	}()
	reader := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			if failed, ok := err.(net.Error); ok && failed.Timeout() {
				t.Errorf("%s: after %v the connection is still open", server, codes)
			}
			return codes
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode >= 200 {
			codes = append(codes, resp.StatusCode)
			if end == onceAnswered {
				_ = c.CloseWrite()
			}
		}
	}
}

// inside is what must never be taken for a request: in a body, and after one that has broken.
const inside = "GET /v1/p/SMUGGLED000000/read HTTP/1.1\r\nHost: a\r\nX-Vault-Token: of-another-client\r\n\r\n"

// bodies are bodies with their headers, whose end is not what it seems.
var bodies = []struct {
	name, headers, body string
	whole               bool // it is well-formed, and all of it is sent: the connection may go on
	half                bool // the client ends its side before the end of the body
}{
	{"bad chunk", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\nZZ\r\n" + inside, false, false},
	{"bad first chunk", "Transfer-Encoding: chunked\r\n", "ZZ\r\n" + inside, false, false},
	{"no end of a chunk", "Transfer-Encoding: chunked\r\n", "5\r\nhello" + inside, false, false},
	{"endless chunk size", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n" + strings.Repeat("0", 5000) + "\r\n" + inside, false, false},
	{"bad trailer", "Transfer-Encoding: chunked\r\nTrailer: X\r\n", "5\r\nhello\r\n0\r\nGET\r\n" + inside, false, false},
	{"chunk cut", "Transfer-Encoding: chunked\r\n", "fffff\r\n" + inside, false, true},
	{"requests in a chunk", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 1000*len(inside), strings.Repeat(inside, 1000)), true, false},
	{"requests in chunks", "Transfer-Encoding: chunked\r\n", strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", len(inside), inside), 5000) + "0\r\n\r\n", true, false},
	{"requests in a large body", fmt.Sprintf("Content-Length: %d\r\n", 12000*len(inside)), strings.Repeat(inside, 12000), true, false},
	{"requests in a body", fmt.Sprintf("Content-Length: %d\r\n", 500*len(inside)), strings.Repeat(inside, 500), true, false},
	{"a request in a short body", fmt.Sprintf("Content-Length: %d\r\n", len(inside)), inside, true, false},
	{"half a body", "Content-Length: 100000\r\n", strings.Repeat(inside, 100), false, true},
	{"half a short body", "Content-Length: 1000\r\n", inside, false, true},
	{"to be asked for", fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n", 500*len(inside)), strings.Repeat(inside, 500), true, false},
	{"to be asked for, short", fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n", len(inside)), inside, true, false},
	{"to be asked for, bad chunk", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\nZZ\r\n" + inside, false, false},
}

// What is left of a body is never a request, however the body ends, whichever side gives up first, and whatever the answer is.
func TestRestOfABodyIsNoRequest(t *testing.T) {
	l := newLeftovers(t)
	paths := map[string][]string{
		"proxy": {
			"/v1/p/read", "/v1/p/early", "/v1/p/early-close", "/v1/p/die", "/v1/p/hang", // proxied
			"/v1/secret/a", defaultHealthPath, defaultHealthPath + "/ready", // 307, 200, 405
		},
		"sized": {"/v1/p/read", "/v1/p/early", "/v1/secret/a"},
		"none":  {"/v1/secret/a", defaultHealthPath}, // 503
		"loop":  {"/v1/secret/a", defaultHealthPath}, // 508
		"page":  {"/", "/else"},
	}
	type row struct {
		server, request string
		body            int
	}
	rows := map[string]row{}
	for server := range l.ports {
		kind, _, _ := strings.Cut(server, "-")
		for _, path := range paths[kind] {
			for i, b := range bodies {
				for _, method := range []string{"PUT", "GET"} {
					rows[strings.Join([]string{server, method, path[1:], b.name}, "/")] = row{server, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n", method, path, b.headers), i}
				}
			}
		}
		if kind == "proxy" {
			for i, b := range bodies {
				rows[strings.Join([]string{server, "OPTIONS", b.name}, "/")] = row{server, "OPTIONS * HTTP/1.1\r\nHost: a\r\n" + b.headers + "\r\n", i}
				rows[strings.Join([]string{server, "CONNECT", b.name}, "/")] = row{server, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n" + b.headers + "\r\n", i}
			}
		}
	}
	slots := make(chan struct{}, 16)
	together(t, rows, func(t *testing.T, r row) {
		slots <- struct{}{}
		defer func() { <-slots }()
		b := bodies[r.body]
		// A node that hangs is waited for until the client leaves.
		if strings.Contains(r.request, "/hang ") && b.whole {
			return
		}
		end := onceAnswered
		if b.half {
			end = onceSent
		}
		codes := l.converse(t, r.server, r.request+b.body, end)
		if len(codes) > 1 {
			t.Errorf("%d answers to one request: %v", len(codes), codes[:2])
		}
	})
	if n := l.node.smuggled.Load(); n > 0 {
		t.Errorf("%d requests that were in bodies have come to the node", n)
	}
}

// A connection whose body was read to its end goes on, and the next request on it is answered.
func TestConnectionGoesOnAfterABody(t *testing.T) {
	l := newLeftovers(t)
	for _, server := range []string{"proxy", "proxy-tls", "proxy-lane", "proxy-tls-lane"} {
		for _, b := range bodies {
			if !b.whole || strings.Contains(b.name, "asked") {
				continue
			}
			request := "PUT /v1/p/read HTTP/1.1\r\nHost: a\r\n" + b.headers + "\r\n" + b.body
			if codes := l.converse(t, server, request+request+"GET /v1/p/read HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", never); fmt.Sprint(codes) != "[200 200 200]" {
				t.Errorf("%s, %s: answers %v", server, b.name, codes)
			}
		}
	}
}

// A client that waits to be asked for its body gets its answer at once where nobody needs the body, and is not asked.
func TestNobodyIsAskedForABody(t *testing.T) {
	l := newLeftovers(t)
	for server, want := range map[string]map[string]int{
		"proxy": {"/v1/secret/a": 307, defaultHealthPath: 405, "a:1": 400, "/v1/p/early": 200},
		"none":  {"/v1/secret/a": 503, "/v1/p/early": 503},
		"loop":  {"/v1/secret/a": 508},
		"page":  {"/": 405},
	} {
		for _, over := range []string{"", "-tls", "-lane", "-tls-lane"} {
			if l.ports[server+over] == "" {
				continue
			}
			for path, code := range want {
				for _, expect := range []string{"100-continue", "100-Continue"} {
					method := "PUT"
					if path == "a:1" {
						method = "CONNECT"
					}
					name := fmt.Sprintf("%s%s %s %s", server, over, path, expect)
					c := l.dial(t, server+over)
					fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: a\r\nExpect: %s\r\nContent-Length: 2097152\r\n\r\n", method, path, expect)
					_ = c.SetDeadline(time.Now().Add(30 * time.Second))
					resp, err := http.ReadResponse(bufio.NewReader(c), nil)
					if err != nil {
						t.Errorf("%s: %v", name, err)
						continue
					}
					// The proxy asks for the body as soon as it has a connection to the node.
					if resp.StatusCode != code && (code != 200 || resp.StatusCode != 100) {
						t.Errorf("%s: status %d, want %d", name, resp.StatusCode, code)
					}
					if resp.StatusCode == code && !resp.Close {
						t.Errorf("%s: the connection goes on, so the client must send the body that nobody wants", name)
					}
					c.Close()
				}
			}
		}
	}
}

// A client that sends all of a large upload before it looks for an answer gets the one that came early, rather than a broken
// connection.
func TestEarlyAnswerArrives(t *testing.T) {
	l := newLeftovers(t)
	for _, server := range []string{"proxy", "proxy-tls", "proxy-lane", "proxy-tls-lane"} {
		for range 10 {
			c := l.dial(t, server)
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(c, "PUT /v1/p/early HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 20<<20)
			for range 20 {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					break
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Errorf("%s: %v", server, err)
				continue
			}
			if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(body) != "node\n" || err != nil {
				t.Errorf("%s: status %d, %q, %v", server, resp.StatusCode, body, err)
			}
			c.Close()
		}
	}
}

// What is left of a body is no request either where another handler, or a placeholder, has put its own in the place of it.
func TestRestOfAReplacedBodyIsNoRequest(t *testing.T) {
	const path, body = `{"path": ["/v1/p/*"]}`, `{"expression": "{http.request.body}.contains('SMUGGLED') || path('/v1/p/*')"}`
	for name, row := range map[string]struct{ before, match string }{
		"request_body set":  {`{"handler": "request_body", "set": "abc"},`, path},
		"http.request.body": {"", body},
	} {
		t.Run(name, func(t *testing.T) {
			node := newRudeNode(t, byPath)
			host, port := hostPortOf(t, node.Addr().String())
			consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address(host), standin.Port(port)))
			r := run(t, "", func(int) string {
				return fmt.Sprintf(`%s {"handler": "vault_redirect", "scheme": "http", "discovery": {"source": "consul", "address": %q},
					"probe": {"mode": "off"}, "proxy": {"match": [%s]}}`, row.before, consul.Addr(), row.match)
			})
			awaitActive(t)
			for _, path := range []string{"/v1/p/read", "/v1/q", defaultHealthPath} {
				for _, b := range bodies {
					if b.half || row.match == body && path == defaultHealthPath || row.before != "" && !b.whole { // what breaks before it comes to this handler is Caddy's
						continue
					}
					c, err := net.Dial("tcp", r.addr)
					if err != nil {
						t.Fatal(err)
					}
					_ = c.SetDeadline(time.Now().Add(time.Second))
					go fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: a\r\n%s\r\n%s", path, b.headers, b.body)
					got, _ := io.ReadAll(c)
					c.Close()
					if n := strings.Count(string(got), "HTTP/1.1 ") - strings.Count(string(got), "HTTP/1.1 100"); n > 1 {
						t.Errorf("%s, %s: %d answers: %.300q", path, b.name, n, got)
					}
				}
			}
			if n := node.smuggled.Load(); n > 0 {
				t.Errorf("%d requests that were in bodies have come to the node", n)
			}
		})
	}
}
