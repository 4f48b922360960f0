// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds connections in their TLS handshake when the listener is closed. Only at its end is it known whose they are:
// the lane's, which answers HTTP/1.1, or the server's, which serves HTTP/2 even then. But a server that shuts down wants its
// listeners to end at once: until they have, it does not close its own idle connections. So it gets a connection at once that
// has nothing to read until that is known, and then either is the connection or is at its end.

package fastlane

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// lent is such a connection, as the server behind has it. It is not a [tls.Conn], for which net/http would wait itself. As
// with other wrapped connections, Caddy has net/http look for HTTP/2 by its preface.
type lent struct {
	*tls.Conn
	known chan struct{} // closed when it is known whose the connection is

	mu     sync.Mutex
	theirs bool // it is the server's
	closed bool // by the server
	readBy time.Time
}

// lendLocked gives a connection to the server behind, if it is in its TLS handshake.
func (l *Listener) lendLocked(c *conn) {
	t, ok := c.nc.(*tls.Conn)
	if !ok || c.doing.Load() != isNew || c.shook || c.lent != nil {
		return
	}
	if lent := (&lent{Conn: t, known: make(chan struct{})}); l.giveLocked(lent) {
		c.lent = lent
	}
}

// settle says what has become of the connection: it is the server's if it speaks HTTP/2. It reports whether the server has it.
func (c *lent) settle(resumed net.Conn) (theirs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.known:
		return c.theirs
	default:
	}
	defer close(c.known)
	if resumed != net.Conn(c.Conn) || c.closed || c.Conn.ConnectionState().NegotiatedProtocol != "h2" {
		return false
	}
	_ = c.Conn.SetReadDeadline(c.readBy)
	c.theirs = true
	return true
}

// isTheirs reports whether the connection is the server's, as soon as that is known.
func (c *lent) isTheirs() bool {
	<-c.known
	return c.theirs
}

// Read waits until it is known whose the connection is.
func (c *lent) Read(p []byte) (int, error) {
	if !c.isTheirs() {
		return 0, io.EOF
	}
	return c.Conn.Read(p)
}

// Write waits until it is known whose the connection is.
func (c *lent) Write(p []byte) (int, error) {
	if !c.isTheirs() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// Close closes the connection unless it is the lane's.
func (c *lent) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.theirs {
		return c.Conn.Close()
	}
	return nil
}

// SetReadDeadline sets the deadline, which does not count before it is known whose the connection is.
func (c *lent) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readBy = t; c.theirs {
		return c.Conn.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline sets the deadline if the connection is the server's: nothing is written before.
func (c *lent) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.theirs {
		return c.Conn.SetWriteDeadline(t)
	}
	return nil
}

// SetDeadline sets both.
func (c *lent) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}
