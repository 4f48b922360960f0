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

// Listener has the connections of another listener, but for those that are on the lane.
type Listener struct {
	net.Listener
	site    Site
	limits  Limits
	clients []string

	begin   sync.Once
	ready   chan struct{} // there is something to accept
	done    chan struct{} // closed with the listener
	stopped chan struct{} // closed when no connection is accepted from below any more
	end     sync.Once
	ending  atomic.Bool // before done is closed

	date atomic.Pointer[date]

	mu     sync.Mutex
	conns  map[*conn]struct{}
	handed []net.Conn // to the server behind
	failed error      // what accepting failed with, for good
	over   bool       // the server behind takes no more
	quiet  bool       // stopped is closed
}

// Listen returns a listener on top of another. clients are the names of the headers that may name the client.
func Listen(ln net.Listener, site Site, limits Limits, clients []string) *Listener {
	return &Listener{
		Listener: ln, site: site, limits: limits, clients: clients,
		ready: make(chan struct{}, 1), done: make(chan struct{}), stopped: make(chan struct{}), conns: map[*conn]struct{}{},
	}
}

// Accept returns the next connection that the server behind is to serve. It fails only when there will be no more.
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

// take returns what is there to accept, if anything is. Connections come before the failure.
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

// takeLast is take once all that the server behind may get is there.
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

// giveLocked hands a connection to the server behind. It reports false if that takes no more.
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

// run accepts until the listener is closed, or fails for good. What is temporary is waited for here, as long as net/http would
// wait: there it would hold up the connections that are handed over, too.
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

// runSafely runs a connection. A panic ends that connection and no other, as with net/http: the code below (TLS with its
// managers of certificates, other wrappers) and above is not the lane's.
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

// finish forgets a connection, and gives what becomes of it to the server behind. It reports false if nobody has it now.
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
