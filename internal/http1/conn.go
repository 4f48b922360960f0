// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"bytes"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// bufferSize is how long a header may be. A Caddy server's own limit is never smaller.
	bufferSize = 4 << 10
	// newGrace is how long a new connection may take for its first request after the listener was closed, as in net/http.
	newGrace = 5 * time.Second
	// lenPeek is how many bytes net/http reads between two requests before the next one begins.
	lenPeek = 4
)

// The states of a connection, which decide what closing the listener does to it.
const (
	isNew  int32 = iota // it has not sent a request
	isKept              // it is kept between requests, and may be closed then
	isBody              // a body is being read
)

// conn is a connection that the listener serves.
type conn struct {
	l          *Listener
	nc         net.Conn
	caller     Caller
	since      time.Time
	doing      atomic.Int32
	pending    *pending // the connection as the server has it during the handshake; guarded by the listener's lock
	handshaken bool     // the TLS handshake is over; guarded by the listener's lock

	request Request
	buffer  []byte
	r, w    int     // buffer[r:w] has been read, but not answered
	out     *[]byte // answers to be written
	broken  bool    // an answer could not be written

	served  bool      // a request has been answered
	posted  bool      // the last one was a POST
	now     time.Time // of the last answer
	begun   time.Time // when the request began, if a limit needs it
	readBy  time.Time // the deadline that is set; zero: none
	writeBy time.Time // as readBy
	idling  bool      // readBy is that of an idle connection
	timed   bool      // readBy is that of the header of this request
}

// buffers are the read buffers of connections.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// run serves the connection until it is handed over or at its end. It returns the connection for the server, nil if it must be
// closed.
func (c *conn) run() net.Conn {
	switch nc := c.nc.(type) {
	case *tls.Conn:
		if !c.handshake(nc) {
			return nc
		}
	case interface{ ConnectionState() tls.ConnectionState }: // TLS of another package
		return c.nc
	default:
		c.caller = c.l.site(nc, false, "")
	}
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	c.buffer = buffer[:]
	v := plain
	for v == plain {
		if v = c.next(); v == plain {
			v = c.answer()
		}
	}
	if v == other {
		return c.handOver()
	}
	return nil
}

// handshake does the TLS handshake, and reports whether the connection speaks HTTP/1.1. If not, the server gets it as it is.
func (c *conn) handshake(t *tls.Conn) bool {
	if d := c.l.limits.Handshake; d > 0 {
		_ = t.SetDeadline(time.Now().Add(d))
	}
	if c.l.ending.Load() {
		_ = t.SetDeadline(c.since.Add(newGrace))
	}
	err := t.Handshake()
	_ = t.SetDeadline(time.Time{})
	state := t.ConnectionState()
	if err != nil || state.NegotiatedProtocol != "" && state.NegotiatedProtocol != "http/1.1" {
		return false
	}
	c.l.mu.Lock()
	c.handshaken = true
	if c.pending != nil {
		c.pending.resolve(nil)
	}
	c.l.mu.Unlock()
	c.caller = c.l.site(t, true, state.ServerName)
	return true
}

// handOver returns the connection for the server, after writing the answers.
func (c *conn) handOver() net.Conn {
	if !c.flush() {
		return nil
	}
	_ = c.nc.SetDeadline(time.Time{})
	var by time.Time
	if c.timed {
		by = c.readBy
	}
	return resume(c.nc, c.buffer[c.r:c.w], c.served, by)
}

// next reads the header of the next request.
func (c *conn) next() verdict {
	c.request = Request{}
	c.timed = false
	for peeked := false; ; {
		if !peeked && (!c.served || c.w-c.r >= lenPeek) { // as net/http begins a request
			peeked = true
			if c.l.limits.Whole > 0 {
				c.begun = time.Now()
			}
			if c.posted { // as net/http does, skip empty lines after a POST
				first := c.buffer[c.r : c.r+lenPeek]
				c.r += lenPeek - len(bytes.TrimLeft(first, "\r\n"))
			}
		}
		if peeked {
			if v := c.request.parse(c.buffer[c.r:c.w], c.l.clients); v != incomplete {
				return v
			}
		}
		if c.r > 0 {
			c.w = copy(c.buffer, c.buffer[c.r:c.w])
			c.r = 0
			c.request = Request{} // what it found has moved
		}
		if c.w == len(c.buffer) {
			return other
		}
		if !c.flush() || !c.await(peeked) {
			return incomplete
		}
		n, err := c.nc.Read(c.buffer[c.w:])
		if c.w += n; n > 0 || err == nil {
			continue
		}
		// The server answers half a request as net/http does. It gets none after half a line between two requests, or after a time-out.
		timeout, ok := err.(net.Error)
		if ok && timeout.Timeout() || !peeked || c.w == c.r {
			return incomplete
		}
		return other
	}
}

// await sets the deadline for the next read. It reports false if the listener was closed and nothing must be read.
func (c *conn) await(peeked bool) bool {
	if c.served {
		c.doing.Store(isKept)
	}
	switch {
	case !peeked:
		c.readIdle(c.now)
	case !c.timed: // the request has begun
		c.timed = true
		c.readBefore(time.Now(), c.l.limits.Header)
	}
	// Close sets ending before it sets deadlines: either ending is seen here, or the deadline of Close stays.
	if !c.l.ending.Load() {
		return true
	}
	if c.served {
		return false
	}
	_ = c.nc.SetReadDeadline(c.since.Add(newGrace))
	return true
}

// closeIdle closes the connection if it is idle, or soon if it is new.
func (c *conn) closeIdle() {
	switch c.doing.Load() {
	case isNew:
		_ = c.nc.SetReadDeadline(c.since.Add(newGrace))
	case isKept:
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *conn) readBefore(now time.Time, limit time.Duration) {
	c.idling = false
	var by time.Time
	if limit > 0 {
		by = now.Add(limit)
	}
	if by != c.readBy {
		c.readBy = by
		_ = c.nc.SetReadDeadline(by)
	}
}

// slack is added to idle deadlines, so that they need not be set again for each request.
func slack(limit time.Duration) time.Duration { return min(time.Second, limit/8) }

func (c *conn) readIdle(now time.Time) {
	limit := c.l.limits.Idle
	if c.idling && (limit <= 0 || now.Add(limit).Before(c.readBy)) {
		return
	}
	c.readBefore(now, limit+slack(limit))
	c.idling = true
}

func (c *conn) writeSoon(now time.Time) {
	limit := c.l.limits.Write
	if limit <= 0 || now.Add(limit).Before(c.writeBy) {
		return
	}
	c.writeBy = now.Add(limit + slack(limit))
	_ = c.nc.SetWriteDeadline(c.writeBy)
}
