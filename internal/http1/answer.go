// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"crypto/tls"
	"net/http"
	"sync"
	"time"
)

// answer answers the request, and discards its body. The verdict is plain unless the connection must be closed after that, or the
// server must answer.
func (c *conn) answer() verdict {
	q := &c.request
	closing := c.l.ending.Load()
	a := c.caller(q, closing)
	if a == nil {
		return other
	}
	c.now = time.Now()
	head, length := string(q.Method) == "HEAD", q.Length
	c.served, c.posted = true, string(q.Method) == "POST"
	if length > c.w-c.r-q.parsed && !c.flush() {
		return incomplete
	}
	c.append(a, q) // before the buffer is used for the body
	c.r += q.parsed
	if closing || a.Close || q.Close {
		c.finish(head, !a.Close)
		if c.flush() && length > 0 { // else the client, which still writes, might not read the answer
			c.drop(length)
		}
		return incomplete
	}
	if length > 0 && (!c.drop(length) || c.l.ending.Load()) {
		c.finish(head, true)
		c.flush()
		return incomplete
	}
	c.finish(head, false)
	return plain
}

// outs are the write buffers of connections.
var outs = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// maxOut is how many bytes of answers are collected before they are written, while more requests are buffered.
const maxOut = 4 << 10

func (c *conn) append(a *Answer, q *Request) {
	if c.out == nil {
		c.out = outs.Get().(*[]byte)
	}
	b := append(*c.out, a.Before...)
	b = append(b, q.Target...)
	*c.out = append(b, a.After...)
}

// finish appends what net/http adds to an answer.
func (c *conn) finish(head, closing bool) {
	b := append(*c.out, "Date: "...)
	b = c.l.appendDate(b, c.now)
	b = append(b, "\r\n"...)
	if !head {
		b = append(b, "Content-Length: 0\r\n"...)
	}
	if closing {
		b = append(b, "Connection: close\r\n"...)
	}
	*c.out = append(b, "\r\n"...)
	if len(b) >= maxOut {
		c.flush()
	}
}

// flush writes the collected answers. It reports false if that fails.
func (c *conn) flush() bool {
	if c.out == nil || c.broken {
		return !c.broken
	}
	b := *c.out
	c.writeSoon(c.now)
	_, err := c.nc.Write(b)
	if _, ok := c.nc.(*tls.Conn); ok { // which also writes when it is read, and stays broken if that fails
		c.writeBy = time.Time{}
		_ = c.nc.SetWriteDeadline(c.writeBy)
	}
	*c.out = b[:0]
	if cap(b) <= 4*maxOut {
		outs.Put(c.out)
	}
	c.out = nil
	c.broken = err != nil
	return !c.broken
}

// drop reads a body and discards it. It reports whether the whole body arrived in time. If not, the rest of it must not be read as
// a request.
func (c *conn) drop(length int) bool {
	left := length - min(length, c.w-c.r)
	c.r += length - left
	if left == 0 {
		return true
	}
	c.doing.Store(isBody)
	c.bodyBefore(time.Now())
	defer func() { c.now = time.Now() }()
	for left > 0 {
		n, err := c.nc.Read(c.buffer)
		c.r, c.w = min(n, left), n
		if left -= c.r; err != nil && left > 0 {
			return false
		}
	}
	return true
}

// bodyBefore sets the deadline for a body. As in Caddy's server, the limit for the whole request starts at the end of its header
// if there is also a limit for bodies.
func (c *conn) bodyBefore(now time.Time) {
	limit := c.l.limits.Body
	if c.l.limits.Whole > 0 {
		if limit > 0 {
			c.begun = c.now
		}
		if left := max(1, c.begun.Add(c.l.limits.Whole).Sub(now)); limit <= 0 || left < limit {
			limit = left
		}
	}
	c.readBefore(now, limit)
}

type date struct {
	second int64
	text   []byte
}

// appendDate appends the date, which is formatted once a second.
func (l *Listener) appendDate(b []byte, now time.Time) []byte {
	d := l.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().AppendFormat(nil, http.TimeFormat)}
		l.date.Store(d)
	}
	return append(b, d.text...)
}
