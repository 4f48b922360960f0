// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func init() {
	caddy.RegisterNetwork("memory", func(_ context.Context, _, host, _ string, _ uint, _ net.ListenConfig) (any, error) {
		return listenMemory(host), nil
	})
}

// memory has the listeners of the network in memory, the last one of each name.
var inMemory sync.Map

// memoryListener accepts connections in memory.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func listenMemory(host string) *memoryListener {
	l := &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
	inMemory.Store(host, l)
	return l
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}
func (*memoryListener) Addr() net.Addr { return serverAddr }

// The addresses of connections in memory: a client on this machine, at a server on another of its addresses.
var (
	serverAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.9:443"))
	clientAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:1234"))
)

// memoryConn is one end of a connection in memory, whose two directions end separately.
type memoryConn struct {
	in, out       net.Conn
	local, remote net.Addr
}

func (c *memoryConn) Read(p []byte) (int, error)         { return c.in.Read(p) }
func (c *memoryConn) Write(p []byte) (int, error)        { return c.out.Write(p) }
func (c *memoryConn) CloseWrite() error                  { return c.out.Close() }
func (c *memoryConn) Close() error                       { return errors.Join(c.in.Close(), c.out.Close()) }
func (c *memoryConn) LocalAddr() net.Addr                { return c.local }
func (c *memoryConn) RemoteAddr() net.Addr               { return c.remote }
func (c *memoryConn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *memoryConn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }
func (c *memoryConn) SetDeadline(t time.Time) error {
	return errors.Join(c.in.SetReadDeadline(t), c.out.SetWriteDeadline(t))
}

// dialMemory connects to a server in memory.
func dialMemory(t testing.TB, host string) *memoryConn {
	t.Helper()
	found, ok := inMemory.Load(host)
	if !ok {
		t.Fatalf("no server %s", host)
	}
	there, up := net.Pipe()
	here, down := net.Pipe()
	l := found.(*memoryListener)
	select {
	case l.conns <- &memoryConn{there, here, serverAddr, clientAddr}:
	case <-l.done:
		t.Fatalf("server %s has ended", host)
	}
	return &memoryConn{down, up, clientAddr, serverAddr}
}

// kind is one kind of servers that come in pairs.
type kind struct {
	name    string
	match   string // the route's matcher
	before  string // a handler in front of it, ends with a comma
	service string // Consul's, by default one that has an active node that does not exist
	more    string // of the handler's config, begins with a comma
	tls     bool
	server  string // of the server's config, begins with a comma
	alone   bool   // there is only the server without the lane
}

// The kinds of servers that the lane is compared on. The active node is none that exists.
var kinds = []kind{
	{name: "plain"},
	{name: "names", match: `"match": [{"host": ["vault.example.com", "VAULT-2.example.com"]}],`, more: `, "redirect_to": "node_address"`},
	{name: "proxy", more: `, "health_path": "off", "proxy": {"match": [{"path": ["/v1/sys/*", "/p%25q"], "method": ["GET", "POST"]}]}, "redirect_to": "service_address"`},
	{name: "itself", more: `, "redirect_to": "{node}.vault.example.com", "port": 443`},
	{name: "none", service: "no-vault"},
	{name: "tls", tls: true},
	{name: "h1", server: `, "protocols": ["h1"]`},
}

// pairs are Caddys' servers by kind.
type pairs struct {
	consul *standin.Consul
	roots  *tls.Config
}

// newPairs runs a Caddy with a pair of servers of each kind.
func newPairs(t testing.TB) *pairs {
	t.Helper()
	entry := standin.Active("vault-1")
	entry.Node.Address, entry.Service.Address = "127.0.0.7", "127.0.0.8"
	entry.Service.Port = 1
	return newPairsOf(t, standin.RunConsul(t, entry), kinds)
}

// newPairsOf runs a Caddy with a pair of servers of each of these kinds, whose nodes Consul knows.
func newPairsOf(t testing.TB, consul *standin.Consul, kinds []kind) *pairs {
	t.Helper()
	clearLaneEnv(t)
	p := &pairs{consul: consul}
	cert, key := writePair(t, t.TempDir(), "vault.example.com")
	p.roots = &tls.Config{InsecureSkipVerify: true, ServerName: "vault.example.com"}
	var servers []string
	for _, k := range kinds {
		servers = append(servers, p.server(k, ""))
		if !k.alone {
			servers = append(servers, p.server(k, `"listener_wrappers": [{"wrapper": "vault_redirect"}],`))
		}
	}
	config := fmt.Sprintf(`{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
		"apps": {"tls": {"certificates": {"load_files": [{"certificate": %q, "key": %q}]}}, "http": {"http_port": 1, "https_port": 2, "servers": {%s}}}}`,
		cert, key, strings.Join(servers, ","))
	runJSON(t, config)
	return p
}

// server returns the config of a server.
func (p *pairs) server(k kind, wrapper string) string {
	name, policies := k.name, ""
	if wrapper != "" {
		name += "-lane"
	}
	if k.tls {
		policies = `, "tls_connection_policies": [{}], "protocols": ["h1", "h2"]`
	}
	return fmt.Sprintf(`%q: {"listen": ["memory/%s:9"], "automatic_https": {"disable": true}, %s "routes": [{%s "handle": [%s
		{"handler": "vault_redirect", "hold": 0, "discovery": {"source": "consul", "address": %q, "service": %q, "poll_interval": "10m"}, "probe": {"mode": "off"} %s}]}] %s %s}`,
		name, name, wrapper, k.match, k.before, p.consul.Addr(), cmp.Or(k.service, "vault"), k.more, policies, k.server)
}

// clearLaneEnv has no environment variable of Consul's client count.
func clearLaneEnv(t testing.TB) {
	if t, ok := t.(*testing.T); ok {
		clearConsulEnv(t)
	}
}

// halfConn is a connection of which one side can be ended.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// dial connects to a server, for 20 seconds, and returns what closes that connection.
func (p *pairs) dial(t testing.TB, k kind, lane bool) (halfConn, func()) {
	t.Helper()
	name := k.name
	if lane {
		name += "-lane"
	}
	mc := dialMemory(t, name)
	_ = mc.SetDeadline(time.Now().Add(20 * time.Second))
	end := func() { mc.Close() }
	if !k.tls {
		return mc, end
	}
	config := p.roots.Clone()
	config.NextProtos = []string{"http/1.1"}
	c := tls.Client(mc, config)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c, end
}

// talk sends pieces to a server, ends, and returns all that it answers.
func (p *pairs) talk(t testing.TB, k kind, lane bool, pieces [][]byte) []byte {
	t.Helper()
	c, end := p.dial(t, k, lane)
	defer end()
	done := make(chan []byte)
	go func() {
		got, err := io.ReadAll(c)
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			got = append(got, "\n[no end]"...)
		}
		done <- got
	}()
	for _, piece := range pieces {
		if _, err := c.Write(piece); err != nil {
			break
		}
	}
	_ = c.CloseWrite()
	return dated.ReplaceAll(<-done, []byte("Date: then\r\n"))
}

// preface is how a connection of HTTP/2 begins.
var preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// passedOn is what is answered where the proxy fails: by the end of the client's, if that is noticed first.
var passedOn = regexp.MustCompile(`(?s)HTTP/1[.][01] (499 .*?\r\n\r\n|502 .*?\r\n\r\n\{.*?\}\n)`)

var dated = regexp.MustCompile(`Date: [^\r]*\r\n`)

// compare sends the same to both servers of a kind, fails if their answers differ, and returns the answer.
func (p *pairs) compare(t testing.TB, k kind, pieces [][]byte) []byte {
	t.Helper()
	var want, got []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		want = p.talk(t, k, false, pieces)
	}()
	got = p.talk(t, k, true, pieces)
	<-done
	if bytes.Contains(bytes.Join(pieces, nil), preface) && (k.name == "h1" || bytes.HasPrefix(bytes.Join(pieces, nil), preface)) {
		// How the frames of HTTP/2 follow each other depends on when Go's server notices the end. Without HTTP/2, Caddy closes
		// a connection that begins with the preface, and takes one that is handed over for one that begins.
		return got
	}
	got, want = passedOn.ReplaceAll(got, []byte("[proxied]")), passedOn.ReplaceAll(want, []byte("[proxied]"))
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: to %q\nthe lane answers\n%s\nCaddy's server answers\n%s", k.name, pieces, got, want)
	}
	return got
}
