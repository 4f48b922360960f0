// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"crypto/tls"
	"io"
	"net"
	"time"
)

// unread has the bytes that were read from a connection and must be read again.
type unread struct {
	rest  []byte
	empty int // how many more reads of a preface return nothing
	by    time.Time
}

// The preface of HTTP/2 without TLS. net/http looks for it at the beginning of a connection, by reads of just this length, and
// gives up after so many reads that return nothing.
const (
	lenPreface = len("PRI * HTTP/2.0")
	emptyReads = 100
)

// read reads the bytes that are left, then from the connection.
func (u *unread) read(c net.Conn, p []byte) (n int, err error) {
	if len(u.rest) == 0 {
		return c.Read(p)
	}
	if u.empty > 0 && len(p) == lenPreface {
		u.empty--
		return 0, nil
	}
	n = copy(p, u.rest)
	if u.rest = u.rest[n:]; len(u.rest) == 0 {
		u.rest = nil
	}
	return n, nil
}

// firstDeadline shortens the first read deadline, which is that of a header that has been read in part.
func (u *unread) firstDeadline(t time.Time) time.Time {
	if !u.by.IsZero() && u.by.Before(t) {
		t = u.by
	}
	u.by = time.Time{}
	return t
}

// resume returns a connection from which bytes can be read again. begun says that these are not its first: the server must not look
// for HTTP/2. by is the deadline for its header; zero: none.
//
// There are several types, so that the server finds the methods of the connection below.
func resume(c net.Conn, rest []byte, begun bool, by time.Time) net.Conn {
	if len(rest) == 0 {
		return c
	}
	u := unread{rest: append([]byte(nil), rest...), by: by}
	_, overTLS := c.(*tls.Conn)
	if begun || overTLS {
		u.empty = emptyReads
	}
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpConn{c, u}
	case *tls.Conn:
		return &tlsConn{c, u}
	}
	return &anyConn{c, u}
}

type tcpConn struct {
	*net.TCPConn
	unread unread
}

func (c *tcpConn) Read(p []byte) (int, error) {
	return c.unread.read(c.TCPConn, p)
}

func (c *tcpConn) SetReadDeadline(t time.Time) error {
	return c.TCPConn.SetReadDeadline(c.unread.firstDeadline(t))
}

func (c *tcpConn) WriteTo(w io.Writer) (n int64, err error) {
	if rest := c.unread.rest; len(rest) > 0 {
		c.unread.rest = nil
		written, err := w.Write(rest)
		if n = int64(written); err != nil {
			return n, err
		}
	}
	more, err := c.TCPConn.WriteTo(w)
	return n + more, err
}

type tlsConn struct {
	*tls.Conn
	unread unread
}

func (c *tlsConn) Read(p []byte) (int, error) {
	return c.unread.read(c.Conn, p)
}

func (c *tlsConn) SetReadDeadline(t time.Time) error {
	return c.Conn.SetReadDeadline(c.unread.firstDeadline(t))
}

type anyConn struct {
	net.Conn
	unread unread
}

func (c *anyConn) Read(p []byte) (int, error) {
	return c.unread.read(c.Conn, p)
}

func (c *anyConn) SetReadDeadline(t time.Time) error {
	return c.Conn.SetReadDeadline(c.unread.firstDeadline(t))
}
