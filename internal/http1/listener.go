// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Listener accepts the connections of another listener, serves them, and hands over those that its server must serve.
type Listener struct {
	net.Listener
	site    Site
	limits  Limits
	clients []string

	begin   sync.Once
	ready   chan struct{} // there is a connection or an error for Accept
	done    chan struct{} // closed with the listener
	stopped chan struct{} // closed when no more connections are accepted
	end     sync.Once
	ending  atomic.Bool // before done is closed

	date atomic.Pointer[date]

	mu     sync.Mutex
	conns  map[*conn]struct{}
	handed []net.Conn // to the server
	failed error      // the permanent error of accepting
	over   bool       // the server accepts no more
	quiet  bool       // stopped is closed
}

// Listen returns a listener on top of another. clients are the names of headers that may have the client's address.
func Listen(ln net.Listener, site Site, limits Limits, clients []string) *Listener {
	return &Listener{
		Listener: ln, site: site, limits: limits, clients: clients,
		ready: make(chan struct{}, 1), done: make(chan struct{}), stopped: make(chan struct{}), conns: map[*conn]struct{}{},
	}
}

// Accept returns the next connection for the server. It fails only when there will be no more.
func (l *Listener) Accept() (net.Conn, error) {
	l.begin.Do(func() { go l.run() })
	for {
		c, err := l.take()
		if c != nil || err != nil {
			return c, err
		}
		select {
		case <-l.ready:
		case <-l.stopped:
			return l.takeLast()
		}
	}
}

// take returns the next connection, else the permanent error, if there is either.
func (l *Listener) take() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.handed) == 0 {
		l.over = l.over || l.failed != nil
		return nil, l.failed
	}
	c := l.handed[0]
	l.handed[0] = nil
	if l.handed = l.handed[1:]; len(l.handed) == 0 {
		l.handed = nil
	}
	return c, nil
}

// takeLast is take after the last connection has been handed over.
func (l *Listener) takeLast() (net.Conn, error) {
	c, err := l.take()
	if c != nil || err != nil {
		return c, err
	}
	l.mu.Lock()
	l.failed = net.ErrClosed
	l.mu.Unlock()
	return l.take()
}

// giveLocked hands a connection over to the server. It reports false if the server accepts no more.
func (l *Listener) giveLocked(c net.Conn) bool {
	if l.over {
		return false
	}
	l.handed = append(l.handed, c)
	select {
	case l.ready <- struct{}{}:
	default:
	}
	return true
}

// run accepts until the listener is closed or fails permanently. After a temporary error it pauses, as net/http would; a pause
// there would also delay connections that are handed over.
func (l *Listener) run() {
	defer l.stop()
	var pause time.Duration
	for {
		nc, err := l.Listener.Accept()
		if err == nil {
			pause = 0
			l.serve(nc)
			continue
		}
		if temporary, ok := err.(interface{ Temporary() bool }); !ok || !temporary.Temporary() || l.ending.Load() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.failed = err; l.ending.Load() {
				l.failed = net.ErrClosed
			}
			return
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		l.site.AcceptFailed(err, pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.done:
			timer.Stop()
			return
		}
	}
}

// serve serves a connection.
func (l *Listener) serve(nc net.Conn) {
	c := &conn{l: l, nc: nc, since: time.Now(), parser: parser{clients: l.clients}}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	if l.ending.Load() {
		l.offerLocked(c)
	}
	l.mu.Unlock()
	go func() {
		resumed := l.runSafely(c)
		if !l.finish(c, resumed) {
			_ = nc.Close()
		}
	}()
}

// runSafely runs a connection. A panic ends only that connection, as in net/http: it may come from other code, such as
// certificate managers and other listener wrappers.
func (l *Listener) runSafely(c *conn) (resumed net.Conn) {
	defer func() {
		if v := recover(); v != nil {
			resumed = nil
			if v != http.ErrAbortHandler {
				l.site.Panicked(c.nc, v, debug.Stack())
			}
		}
	}()
	return c.run()
}

// finish removes a connection, and hands the one that replaces it over to the server. It reports false if there is none, or if
// the server accepts no more.
func (l *Listener) finish(c *conn, resumed net.Conn) (given bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.forgetLocked()
	switch {
	case c.pending != nil && c.pending.resolve(resumed):
		return true
	case resumed == nil:
		return false
	}
	return l.giveLocked(resumed)
}
