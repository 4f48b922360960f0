// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the listener, and the end of the connections that are on the lane.

package fastlane

import (
	"context"
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

	begin  sync.Once
	handed chan net.Conn // to the server behind
	failed chan error    // what accepting failed with
	done   chan struct{} // closed with the listener
	end    sync.Once
	ending atomic.Bool // before done is closed

	date atomic.Pointer[date]

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Listen returns a listener on top of another. clients are the names of the headers that may name the client.
func Listen(ln net.Listener, site Site, limits Limits, clients []string) *Listener {
	return &Listener{
		Listener: ln, site: site, limits: limits, clients: clients,
		handed: make(chan net.Conn), failed: make(chan error), done: make(chan struct{}), conns: map[*conn]struct{}{},
	}
}

// Accept returns the next connection that the server behind is to serve.
func (l *Listener) Accept() (net.Conn, error) {
	l.begin.Do(func() { go l.run() })
	select {
	case c := <-l.handed:
		return c, nil
	case err := <-l.failed:
		return nil, err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// run accepts until the listener is closed. How long to wait after a failure is decided by who calls Accept.
func (l *Listener) run() {
	for {
		nc, err := l.Listener.Accept()
		if err == nil {
			l.serve(nc)
			continue
		}
		select {
		case l.failed <- err:
		case <-l.done:
			return
		}
	}
}

// serve serves a connection.
func (l *Listener) serve(nc net.Conn) {
	c := &conn{l: l, nc: nc, since: time.Now(), parser: parser{clients: l.clients}}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	go func() {
		resumed := l.runSafely(c)
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
		if resumed != nil {
			select {
			case l.handed <- resumed:
				return
			case <-l.done: // as net/http does with a request that it reads when it shuts down
			}
		}
		_ = nc.Close()
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

// open returns how many connections are on the lane.
func (l *Listener) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// Close closes the listener, and its connections as they become idle. New ones have a while to send their first request.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.end.Do(func() {
		ending.Store(l, nil)
		l.ending.Store(true)
		close(l.done)
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.conns {
			c.leave()
		}
	})
	return err
}

// ending has the listeners that are closed and may have connections yet.
var ending sync.Map

// Wait waits until no connection is left of the listeners that are closed, or until the context ends.
func Wait(ctx context.Context) error {
	pause := time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		quiet := true
		ending.Range(func(l, _ any) bool {
			if l.(*Listener).open() > 0 {
				quiet = false
			} else {
				ending.Delete(l)
			}
			return true
		})
		if quiet {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			pause = min(2*pause, 100*time.Millisecond)
			timer.Reset(pause)
		}
	}
}
