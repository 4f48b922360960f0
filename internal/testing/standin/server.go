// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// server owns one address for as long as it lives. It tracks connections itself, below TLS, because
// http.Server can neither reset them nor count those that a handler has hijacked.
type server struct {
	addr    string
	tls     *tls.Config
	handler http.Handler
	stir    *signal // fired whenever something that can be counted changes

	mu    sync.Mutex
	run   *run // nil while it does not listen
	conns map[*conn]struct{}
	busy  int // connections served and handlers running
	ended bool
}

// run is one stretch of listening, from listen to hang-up.
type run struct {
	http   *http.Server
	cancel context.CancelFunc
	served chan struct{}
}

// newServer does not listen yet, so that its owner is complete when the first request comes.
func newServer(addr string, config *tls.Config, handler http.Handler, stir *signal) *server {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	if config != nil {
		config = config.Clone()
	}
	return &server{addr: addr, tls: config, handler: handler, stir: stir, conns: map[*conn]struct{}{}}
}

func (s *server) url() string {
	if s.tls != nil {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// start listens; doing so twice is no error.
func (s *server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return fmt.Errorf("listen on %s: %w", s.addr, net.ErrClosed)
	}
	if s.run != nil {
		return nil
	}
	ln, err := listen(s.addr)
	if err != nil {
		return err
	}
	// Only the first time: from then on it is read without the lock.
	if actual := ln.Addr().String(); actual != s.addr {
		s.addr = actual
	}
	// The base context ends handlers that wait even where net/http does not watch the connection,
	// which is the case while a request body is unread.
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{cancel: cancel, served: make(chan struct{})}
	r.http = &http.Server{
		Handler:     http.HandlerFunc(s.serve),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState:   s.connState,
		ErrorLog:    log.New(io.Discard, "", 0),
	}
	s.run = r
	var l net.Listener = &listener{Listener: ln, server: s, run: r}
	if s.tls != nil {
		l = tls.NewListener(l, s.tls)
	}
	go func() {
		defer close(r.served)
		_ = r.http.Serve(l)
	}()
	return nil
}

// listen retries for a while when the port is taken: between stop and start another process may take it,
// most often a client that leaves soon.
func listen(addr string) (net.Listener, error) {
	for deadline := time.Now().Add(2 * time.Second); ; {
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			return ln, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop closes the listener and every connection: the next one is refused. It does not wait for handlers, so that a handler
// may call it.
func (s *server) stop() {
	s.mu.Lock()
	r := s.run
	s.run = nil
	s.mu.Unlock()
	if r == nil {
		return
	}
	_ = r.http.Close()
	<-r.served // the socket goes on taking connections, and resets them, until the accept that was under way has returned
	r.cancel()
	s.drop(false)
}

// close stops for good and waits until every goroutine of the server is gone.
func (s *server) close() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.stop()
	_ = s.stir.await(context.Background(), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.busy == 0
	})
}

// drop closes every open connection, with RST instead of FIN when asked to.
func (s *server) drop(reset bool) {
	s.mu.Lock()
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		if tcp, ok := c.Conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *server) listening() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run != nil
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.count(1)
	defer s.count(-1)
	s.handler.ServeHTTP(w, r)
}

func (s *server) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.count(1)
	case http.StateClosed, http.StateHijacked:
		s.count(-1)
	}
}

func (s *server) count(n int) {
	s.mu.Lock()
	s.busy += n
	s.mu.Unlock()
	s.stir.fire()
}

// listener registers connections before anything is read from them.
type listener struct {
	net.Listener
	server *server
	run    *run
}

func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, server: l.server}
	s := l.server
	s.mu.Lock()
	// Accepted while stop was closing everything: stop has not seen it.
	if s.run != l.run {
		s.mu.Unlock()
		_ = nc.Close()
		return nil, net.ErrClosed
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.stir.fire()
	return c, nil
}

// conn takes itself off the server's list when either side closes it.
type conn struct {
	net.Conn
	server *server
}

func (c *conn) Close() error {
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	err := c.Conn.Close()
	c.server.stir.fire()
	return err
}

// CloseWrite lets net/http send an answer in full before it hangs up on a body it has not read.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
