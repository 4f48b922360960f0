// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// pipes is a listener whose connections are pipes.
type pipes struct {
	conns  chan net.Conn
	errs   chan error
	done   chan struct{}
	logged *observer.ObservedLogs
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), errs: make(chan error), done: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error { close(p.done); return nil }
func (*pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

// everything is a site that redirects all requests but those for /no.
func everything(net.Conn, bool, string) Caller { return redirectAll }

func redirectAll(r *Request, _ bool) *Answer {
	if bytes.HasPrefix(r.Path, []byte("/no")) {
		return nil
	}
	return &Answer{Before: []byte("HTTP/1.1 307 x\r\nLocation: "), After: []byte("\r\n")}
}

var limits = Limits{Header: 10 * time.Second, Idle: time.Minute, Body: 20 * time.Second, Write: 30 * time.Second, Handshake: 5 * time.Second}

// lane runs f with a listener whose Accept only f calls.
func lane(t *testing.T, limits Limits, f func(t *testing.T, l *Listener, p *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		core, logged := observer.New(zap.ErrorLevel)
		p.logged = logged
		l := Listen(p, everything, zap.New(core), limits, []string{"x-forwarded-for"})
		f(t, l, p)
		select {
		case <-l.done:
		default:
			_ = l.Close()
		}
		if err := Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if n := l.open(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		ending.Range(func(any, any) bool {
			t.Error("a listener is kept that has ended")
			return false
		})
	})
}

// open returns how many connections the listener serves.
func (l *Listener) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("send %q: %v", text, err)
	}
}

// receive returns what comes within a second.
func receive(c net.Conn) (text string, err error) {
	var b bytes.Buffer
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, err = io.Copy(&b, c)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return b.String(), err
	}
	return b.String(), io.EOF
}

func isOpen(err error) bool { return err != io.EOF }

const get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"

// Clients stop at each place of a request, and are cut off in time.
func TestDeadlines(t *testing.T) {
	for _, row := range []struct {
		name, first, then string // what is sent at once, and byte by byte
		after             time.Duration
		answers           int
	}{
		{name: "nothing", after: limits.Header},
		{name: "half a header", first: "GET /a HTT", after: limits.Header},
		{name: "a header byte by byte", first: "GET /a HTTP/1.1\r\nX: ", then: "abcdefghijklmnop", after: limits.Header},
		{name: "idle", first: get, after: limits.Idle, answers: 1},
		{name: "idle, some bytes of the next", first: get + "GET", after: limits.Idle, answers: 1},
		{name: "half a second header", first: get + "GET /", after: limits.Header, answers: 1},
		{name: "half a body", first: "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab", after: limits.Body, answers: 1},
		{name: "a body byte by byte", first: "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\nab", then: strings.Repeat("c", 40), after: limits.Body, answers: 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			lane(t, limits, func(t *testing.T, _ *Listener, p *pipes) {
				began := time.Now()
				c := p.dial()
				done := make(chan string)
				go func() {
					got, _ := io.ReadAll(c)
					done <- string(got)
				}()
				send(t, c, row.first)
				go func() {
					for _, b := range []byte(row.then) {
						time.Sleep(time.Second)
						if _, err := c.Write([]byte{b}); err != nil {
							return
						}
					}
				}()
				got := <-done
				if took := time.Since(began); took < row.after || took > row.after+time.Second {
					t.Errorf("closed after %s, want %s", took, row.after)
				}
				if n := strings.Count(got, "HTTP/1.1 307"); n != row.answers {
					t.Errorf("%d answers, want %d: %q", n, row.answers, got)
				}
				if body := strings.Contains(row.name, "body"); body != strings.Contains(got, "Connection: close") {
					t.Errorf("the connection is closed, and the answer does not say so, or does: %q", got)
				}
			})
		})
	}
}

// TestPieces: each read returns the end of a request and half of the next one. Each header has its own deadline.
func TestPieces(t *testing.T) {
	for _, row := range []struct {
		name, first, then string
		pause, body       time.Duration
		n                 int
		after             time.Duration // when the connection is closed
	}{
		{name: "always in time", first: get + get[:10], then: get[10:] + get[:10], pause: limits.Header / 2, n: 10, after: 6 * limits.Header},
		{name: "half a header after a body", first: "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab", then: "1234567GET /", pause: time.Second, n: 1, body: -1, after: limits.Header + time.Second},
		{name: "half a header after a body, longer limit", first: "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab", then: "1234567GET /", pause: time.Second, n: 1, body: time.Hour, after: limits.Header + time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			with := limits
			if row.body != 0 {
				with.Body = row.body
			}
			lane(t, with, func(t *testing.T, _ *Listener, p *pipes) {
				began := time.Now()
				c := p.dial()
				go func() {
					_, _ = io.WriteString(c, row.first)
					for range row.n {
						time.Sleep(row.pause)
						_, _ = io.WriteString(c, row.then)
					}
				}()
				_ = c.SetReadDeadline(began.Add(24 * time.Hour))
				got, err := io.ReadAll(c)
				if n, want := strings.Count(string(got), "HTTP/1.1 307"), strings.Count(row.first, get)+row.n; n != want || err != nil {
					t.Errorf("%d answers, want %d; %v", n, want, err)
				}
				if took := time.Since(began); took != row.after {
					t.Errorf("closed after %s, want %s", took, row.after)
				}
				_ = c.Close()
			})
		})
	}
}

// TestLateBody: a body does not arrive in time, and answers have less time to be written.
func TestLateBody(t *testing.T) {
	l := limits
	l.Write = l.Body / 4
	lane(t, l, func(t *testing.T, _ *Listener, p *pipes) {
		c := p.dial()
		send(t, c, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab")
		time.Sleep(l.Body / 2)
		got, err := io.ReadAll(c)
		if date := "Date: " + time.Now().UTC().Format(http.TimeFormat); !strings.HasSuffix(string(got), date+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") {
			t.Errorf("%q %v, want %s", got, err, date)
		}
	})
}

// A request with its body takes no longer than the limit for both.
func TestWholeRequest(t *testing.T) {
	l := limits
	l.Whole = 12 * time.Second
	lane(t, l, func(t *testing.T, _ *Listener, p *pipes) {
		began := time.Now()
		c := p.dial()
		go func() { // the body begins after 8 s, from where on the limit counts
			_, _ = io.WriteString(c, "PUT /a HTTP/1.1\r\nHost: h\r\n")
			time.Sleep(8 * time.Second)
			_, _ = io.WriteString(c, "Content-Length: 9\r\n\r\nab")
		}()
		_, _ = io.ReadAll(c)
		if took := time.Since(began); took != l.Whole+8*time.Second {
			t.Errorf("closed after %s, want %s later than its body began", took, l.Whole)
		}
	})
}

// TestUnreadAnswers: the client reads nothing.
func TestUnreadAnswers(t *testing.T) {
	lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
		c := p.dial()
		send(t, c, get)
		time.Sleep(limits.Write + 2*time.Second)
		synctest.Wait()
		if l.open() != 0 {
			t.Error("it waits for a client that reads nothing")
		}
	})
}

// A connection that is busy for longer than any limit stays: deadlines are set anew.
func TestBusyConnectionStays(t *testing.T) {
	lane(t, limits, func(t *testing.T, _ *Listener, p *pipes) {
		c := p.dial()
		for i := range 200 {
			send(t, c, get)
			if got, err := receive(c); !isOpen(err) || !strings.HasSuffix(got, "\r\n\r\n") {
				t.Fatalf("request %d: %q %v", i, got, err)
			}
			time.Sleep(limits.Idle - 2*time.Second)
		}
	})
}
