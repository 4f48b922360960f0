// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// pending is a connection in its TLS handshake, as the server has it. It is not a [tls.Conn], for which net/http would wait itself. As
// with other wrapped connections, Caddy has net/http look for HTTP/2 by its preface.
type pending struct {
	*tls.Conn
	known chan struct{} // closed when it is known whether the server or the listener serves the connection

	mu         sync.Mutex
	handedOver bool // the server does
	closed     bool // by the server
	readBy     time.Time
}

// offerLocked gives a connection that is in its TLS handshake to the server.
func (l *Listener) offerLocked(c *conn) {
	t, ok := c.nc.(*tls.Conn)
	if !ok || c.doing.Load() != isNew || c.handshaken || c.pending != nil {
		return
	}
	if pending := (&pending{Conn: t, known: make(chan struct{})}); l.giveLocked(pending) {
		c.pending = pending
	}
}

// resolve ends the wait for the handshake. If the connection speaks HTTP/2, the server serves it; resolve reports whether it does.
func (c *pending) resolve(resumed net.Conn) (handedOver bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.known:
		return c.handedOver
	default:
	}
	defer close(c.known)
	if resumed != net.Conn(c.Conn) || c.closed || c.Conn.ConnectionState().NegotiatedProtocol != "h2" {
		return false
	}
	_ = c.Conn.SetReadDeadline(c.readBy)
	c.handedOver = true
	return true
}

// isHandedOver waits until it is known whether the server serves the connection, and reports it.
func (c *pending) isHandedOver() bool {
	<-c.known
	return c.handedOver
}

// Read waits until it is known whether the server serves the connection.
func (c *pending) Read(p []byte) (int, error) {
	if !c.isHandedOver() {
		return 0, io.EOF
	}
	return c.Conn.Read(p)
}

func (c *pending) Write(p []byte) (int, error) {
	if !c.isHandedOver() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// Close closes the connection unless the listener serves it.
func (c *pending) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.handedOver {
		return c.Conn.Close()
	}
	return nil
}

// SetReadDeadline sets the deadline, which takes effect if the server serves the connection.
func (c *pending) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readBy = t; c.handedOver {
		return c.Conn.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline sets the deadline if the server serves the connection. Nothing is written before.
func (c *pending) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handedOver {
		return c.Conn.SetWriteDeadline(t)
	}
	return nil
}

func (c *pending) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
