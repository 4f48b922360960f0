// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// network has nodes at addresses. Its names are looked up in the table names, if they are there.
type network struct {
	mu       sync.Mutex
	nodes    map[string]*vault // by host:port
	names    map[string]string // host to host, as in a DNS
	noDNS    error             // what looking up a name gives
	slowDNS  bool              // looking up a name never ends
	stuck    bool              // another address of a name comes first, and connecting to that never ends
	attempts int               // connections that were tried
}

// newNetwork returns a network with the nodes a, b and c, and a pool whose probes use it.
func newNetwork(t *testing.T) (*network, *Pool) {
	t.Helper()
	n := &network{nodes: map[string]*vault{}, names: map[string]string{}}
	for _, name := range []string{"a", "b", "c"} {
		n.add(t, name)
	}
	p := NewPool()
	p.dial = n.dial
	return n, p
}

// add starts a node, a standby, that is there until the end of the test.
func (n *network) add(t *testing.T, host string) *vault {
	v := &vault{code: http.StatusTooManyRequests, lines: map[net.Conn]bool{}, stir: make(chan struct{}), cluster: "x"}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[host+":8200"] = v
	t.Cleanup(v.kill)
	return v
}

func (n *network) node(host string) *vault {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[host+":8200"]
}

// tries returns how many connections were tried.
func (n *network) tries() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.attempts
}

func (n *network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, _ := net.SplitHostPort(address)
	n.mu.Lock()
	n.attempts++
	named, slow, err, stuck := n.names[host], n.slowDNS, n.noDNS, n.stuck
	if named != "" {
		host = named
	}
	v := n.nodes[net.JoinHostPort(host, port)]
	n.mu.Unlock()
	failed := func(err error) (net.Conn, error) { return nil, &net.OpError{Op: "dial", Net: network, Err: err} }
	switch {
	case named != "" && slow:
		<-ctx.Done()
		return failed(&net.DNSError{Err: "i/o timeout", IsTimeout: true})
	case named != "" && err != nil:
		return failed(err)
	case v == nil:
		return failed(os.NewSyscallError("connect", syscall.EHOSTUNREACH))
	}
	if trace := httptrace.ContextClientTrace(ctx); named != "" && trace != nil && trace.DNSDone != nil {
		trace.DNSDone(httptrace.DNSDoneInfo{Addrs: []net.IPAddr{{IP: net.ParseIP("127.0.0.99")}, {IP: net.ParseIP(host)}}})
	}
	if named != "" && stuck {
		<-ctx.Done()
		return failed(os.ErrDeadlineExceeded)
	}
	return v.accept(ctx, net.JoinHostPort(host, port), failed)
}

// vault is a scripted node. What it does is changed by set.
type vault struct {
	errors     string // that it answers with, instead of its state
	redirector bool   // it is none, but a redirector
	mu         sync.Mutex
	code       int           // that /v1/sys/health answers
	leader     string        // what /v1/sys/leader answers
	sealed     bool          // by its document, whatever its code
	standby    bool          // the same
	mounts     string        // what a standby answers with to a read; empty: as Vault does
	reads      int           // its code, if it is not to forward it; 0: 307
	asksReads  int           // how often it was asked that
	cluster    string        // its ID
	delay      time.Duration // before each answer
	hang       bool          // does not answer
	down       error         // what connecting gives, nil if it works
	drops      bool          // connecting never ends
	closes     bool          // the connection after each answer
	raw        func(writer)  // answers in place of the node
	tls        *tls.Config
	tlsErrs    []error // of handshakes and of reading, but for the end
	asked      []time.Time
	lines      map[net.Conn]bool
	stir       chan struct{}
}

// writer is where a node writes.
type writer = io.Writer

// writes returns what answers with a text, and then leaves the connection as it is.
func writes(text string) func(writer) { return func(w writer) { io.WriteString(w, text) } }

// set changes the node.
func (v *vault) set(f func(*vault)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(v)
	close(v.stir)
	v.stir = make(chan struct{})
}

func (v *vault) answers(code int) { v.set(func(v *vault) { v.code = code }) }
func (v *vault) hangs(on bool)    { v.set(func(v *vault) { v.hang = on }) }

// refuses makes the node refuse new connections, while open ones stay.
func (v *vault) refuses() { v.set((*vault).refusesLocked) }

func (v *vault) refusesLocked() { v.down = os.NewSyscallError("connect", syscall.ECONNREFUSED) }

// errNoName is what the resolver says of a name that does not exist.
var errNoName error = &net.DNSError{Err: "no such host", IsNotFound: true}

// kill ends the node and its connections.
func (v *vault) kill() {
	v.refuses()
	v.cut()
}

// cut ends the connections, those of TLS with a notice.
func (v *vault) cut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.lines {
		c.Close()
	}
}

// revive has the node listen again.
func (v *vault) revive() { v.set(func(v *vault) { v.down = nil }) }

// probes returns how often the node was asked.
func (v *vault) probes() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.asked)
}

// readings returns how often it was asked what it does with reads.
func (v *vault) readings() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asksReads
}

// connections returns how many there are.
func (v *vault) connections() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.lines)
}

func (v *vault) accept(ctx context.Context, address string, failed func(error) (net.Conn, error)) (net.Conn, error) {
	v.mu.Lock()
	down, drops, config := v.down, v.drops, v.tls
	v.mu.Unlock()
	if drops {
		<-ctx.Done()
		return failed(os.ErrDeadlineExceeded)
	}
	if down != nil {
		return failed(down)
	}
	near, end := newWire(address)
	far := net.Conn(end)
	if config != nil {
		far = tls.Server(end, config)
	}
	v.mu.Lock()
	v.lines[far] = true
	v.mu.Unlock()
	go func() {
		v.serve(far, near.gone)
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.lines, far)
	}()
	return near, nil
}

// serve answers requests until the connection ends, or the prober's end is gone.
func (v *vault) serve(conn net.Conn, gone <-chan struct{}) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		v.mu.Lock()
		if err != nil {
			if err != io.EOF && !errors.Is(err, net.ErrClosed) {
				v.tlsErrs = append(v.tlsErrs, err)
			}
			v.mu.Unlock()
			return
		}
		if r.URL.Path == healthPath {
			v.asked = append(v.asked, time.Now())
		}
		for late := time.After(v.delay); v.hang || late != nil; {
			stir := v.stir
			v.mu.Unlock()
			select {
			case <-stir:
			case <-late:
				late = nil
			case <-gone:
				return
			}
			v.mu.Lock()
		}
		reply, closes, raw := v.reply(r), v.closes, v.raw
		v.mu.Unlock()
		if raw != nil {
			raw(conn)
			<-gone
			return
		}
		if _, err := io.WriteString(conn, reply); err != nil || closes {
			return
		}
	}
}

// reply is what the node answers now.
func (v *vault) reply(r *http.Request) string {
	code, body := v.code, fmt.Sprintf(`{"initialized":true,"sealed":%v,"standby":%v,"cluster_id":%q}`, v.sealed || v.code == 503, v.standby || v.code != 200, v.cluster)
	if r.Header.Get("X-Vault-Token") != "" {
		code, body = http.StatusTeapot, "a token!"
	}
	if v.errors != "" {
		body = fmt.Sprintf(`{"errors":[%q]}`, v.errors)
	}
	if v.redirector && r.Header.Get(ProbeHeader) != "" {
		return "HTTP/1.1 508 Loop Detected\r\nVault-Redirector: 1\r\nContent-Length: 0\r\n\r\n"
	}
	switch r.URL.Path {
	case "/v1/sys/leader":
		code, body = 200, v.leader
	case mountsPath:
		v.asksReads++
		if code, body = cmp.Or(v.reads, http.StatusTemporaryRedirect), cmp.Or(v.mounts, `{"data":{"auth":{},"secret":{}}}`); r.Header.Get(NoForwardingHeader) == "" {
			code = http.StatusTeapot
		}
	}
	return fmt.Sprintf("HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s", code, len(body), body)
}
