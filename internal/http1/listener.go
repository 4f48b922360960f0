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

	"go.uber.org/zap"
)

// Listener accepts the connections of another listener, serves them, and hands over those that its server must serve.
type Listener struct {
	net.Listener
	site    Site
	log     *zap.Logger
	limits  Limits
	clients []string

	end    sync.Once
	ending atomic.Bool   // before done is closed
	done   chan struct{} // closed with the listener
	quiet  chan struct{} // closed once Wait need not wait for the listener any more

	date atomic.Pointer[date]

	mu      sync.Mutex
	changed *sync.Cond // handed or stopped
	conns   map[*conn]struct{}
	handed  []net.Conn // to the server
	stopped error      // why no more connections are accepted from the listener below
	over    bool       // the server accepts no more
}

// Listen returns a listener on top of another, from which it accepts from now on. clients are the names, in lower case, of headers
// that may have the client's address.
func Listen(ln net.Listener, site Site, log *zap.Logger, limits Limits, clients []string) *Listener {
	l := &Listener{
		Listener: ln, site: site, log: log, limits: limits, clients: clients,
		done: make(chan struct{}), quiet: make(chan struct{}), conns: map[*conn]struct{}{},
	}
	l.changed = sync.NewCond(&l.mu)
	go l.run()
	return l
}

// Accept returns the next connection for the server. It fails only when there will be no more.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.handed) == 0 {
		if l.stopped != nil {
			l.over = true
			return nil, l.stopped
		}
		l.changed.Wait()
	}
	c := l.handed[0]
	l.handed[0] = nil
	l.handed = l.handed[1:]
	return c, nil
}

// giveLocked hands a connection over to the server. It reports false if the server accepts no more.
func (l *Listener) giveLocked(c net.Conn) bool {
	if l.over {
		return false
	}
	l.handed = append(l.handed, c)
	l.changed.Broadcast()
	return true
}

// run accepts until the listener is closed or fails permanently. After a temporary error it pauses, as net/http would; a pause
// there would also delay connections that are handed over.
func (l *Listener) run() {
	var pause time.Duration
	for {
		nc, err := l.Listener.Accept()
		temporary, ok := err.(interface{ Temporary() bool })
		switch {
		case err == nil:
			pause = 0
			l.serve(nc)
			continue
		case l.ending.Load():
			l.stop(net.ErrClosed)
			return
		case !ok || !temporary.Temporary():
			l.stop(err)
			return
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		l.log.Debug("accepting a connection failed, trying again", zap.Error(err), zap.Duration("pause", pause))
		select {
		case <-time.After(pause):
		case <-l.done:
			l.stop(net.ErrClosed)
			return
		}
	}
}

func (l *Listener) serve(nc net.Conn) {
	c := &conn{l: l, nc: nc, since: time.Now()}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	if l.ending.Load() {
		l.offerLocked(c)
	}
	l.mu.Unlock()
	go func() {
		if resumed := l.runSafely(c); !l.finish(c, resumed) {
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
				l.log.Error("panic while serving a connection",
					zap.Stringer("remote", c.nc.RemoteAddr()), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
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
