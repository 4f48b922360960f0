// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// TestClose closes the listener at each state of a connection.
func TestClose(t *testing.T) {
	for _, row := range []struct {
		name, first, then string        // what is sent before and after
		open              time.Duration // how long the connection stays at most; 0: it is closed at once
		answered          bool          // then is
	}{
		{name: "new, and never asks", open: newGrace},
		{name: "new, and asks", then: get, open: newGrace, answered: true},
		{name: "new, and asks for more than the lane answers", then: "GET /no HTTP/1.1\r\nHost: h\r\n\r\n", open: newGrace},
		{name: "half a first request", first: "GET /a HT", then: "TP/1.1\r\nHost: h\r\n\r\n", open: newGrace, answered: true},
		{name: "idle", first: get},
		{name: "half a second request", first: get + "GET /a"},
		{name: "in a body", first: "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab", then: "cd", open: limits.Body, answered: true},
		{name: "in a body that never ends", first: "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab", open: limits.Body, answered: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
				c := p.dial()
				if row.first != "" {
					send(t, c, row.first)
				}
				if strings.HasPrefix(row.first, get) {
					if got, err := receive(c); got == "" || !isOpen(err) {
						t.Fatalf("%q %v", got, err)
					}
				}
				synctest.Wait()
				_ = l.Close()
				if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("accepted: %v", err)
				}
				closed := time.Now()
				if row.then != "" {
					send(t, c, row.then)
				}
				_ = c.SetReadDeadline(time.Now().Add(time.Hour))
				got, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(closed); took > row.open {
					t.Errorf("open for %s, want at most %s", took, row.open)
				}
				if row.answered != strings.HasSuffix(string(got), "Connection: close\r\n\r\n") {
					t.Errorf("answered %q", got)
				}
				if err := Wait(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The wait for connections ends with its context.
func TestWaitEnds(t *testing.T) {
	lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
		c := p.dial()
		send(t, c, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
		synctest.Wait()
		_ = l.Close()
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		if err := Wait(ctx); err != cause {
			t.Errorf("%v", err)
		}
		_ = c.Close()
	})
}

// TestHandedOver: the server gets all that was not answered, and nothing else.
func TestHandedOver(t *testing.T) {
	const no = "GET /no HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab"
	lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
		c := p.dial()
		go func() {
			send(t, c, get+get+no)
			send(t, c, "cde")
		}()
		answers := make(chan string)
		go func() {
			got, _ := receive(c)
			answers <- got
		}()
		behind, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(no)+3)
		if _, err := io.ReadFull(behind, got); err != nil || string(got) != no+"cde" {
			t.Errorf("%q %v", got, err)
		}
		if n := strings.Count(<-answers, "307"); n != 2 {
			t.Errorf("%d answers before, want 2", n)
		}
		// It has no deadline of the lane's any more, and does not end with the listener.
		_ = l.Close()
		time.Sleep(time.Hour)
		go func() { _, _ = behind.Write([]byte("late")) }()
		if got, _ := receive(c); got != "late" {
			t.Errorf("%q", got)
		}
		_ = behind.Close()
	})
}

// noFiles is a failure that passes.
type noFiles struct{}

func (noFiles) Error() string   { return "too many open files" }
func (noFiles) Temporary() bool { return true }

// Temporary failures of Accept delay nothing that was accepted before; permanent ones are returned.
func TestAcceptFails(t *testing.T) {
	lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
		const n = 100
		var conns []net.Conn
		for range n {
			conns = append(conns, p.dial())
		}
		for range 10 {
			p.errs <- noFiles{}
		}
		began := time.Now()
		for _, c := range conns {
			send(t, c, "\x00")
		}
		for range n {
			behind, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_ = behind.Close()
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("connections waited for %s", took)
		}
		failed := errors.New("no such socket")
		p.errs <- failed
		if _, err := l.Accept(); err != failed {
			t.Errorf("%v", err)
		}
	})
	lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
		p.errs <- noFiles{}
		_ = l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}

// TestNeverAccepted: a listener is closed before anything was accepted.
func TestNeverAccepted(t *testing.T) {
	l := Listen(newPipes(), everything, zap.NewNop(), limits, nil)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, kept := ending.Load(l); kept {
		t.Error("the listener is kept")
	}
}

// TestHalfHandedOver: the server gives half a header only the time that is left.
func TestHalfHandedOver(t *testing.T) {
	lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
		server := http.Server{ReadHeaderTimeout: limits.Header}
		done := make(chan error)
		go func() { done <- server.Serve(l) }()
		began := time.Now()
		c := p.dial()
		send(t, c, "GET /a HTTP/1.1\r\nHost: h\r\n")
		time.Sleep(limits.Header - time.Second)
		send(t, c, "A_B: x\r\n")
		_, _ = io.ReadAll(c)
		if took := time.Since(began); took != limits.Header {
			t.Errorf("closed after %s, want %s", took, limits.Header)
		}
		_ = server.Close()
		<-done
	})
}

// closing answers as if the process were about to exit.
func closing(net.Conn, bool, string) Caller {
	return func(r *Request, closing bool) *Answer {
		a := redirectAll(r, closing)
		a.Close = true
		return a
	}
}

// TestBodyOfTheLast: a body is read although the connection is closed after the answer, which comes first.
func TestBodyOfTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		l := Listen(p, closing, zap.NewNop(), limits, nil)
		go func() { _, _ = l.Accept() }()
		c := p.dial()
		send(t, c, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n")
		if got, err := receive(c); got == "" || !isOpen(err) {
			t.Errorf("%q %v", got, err)
		}
		send(t, c, strings.Repeat("x", 20000))
		if got, err := receive(c); got != "" || isOpen(err) {
			t.Errorf("then %q %v", got, err)
		}
		_ = l.Close()
	})
}

// TestWriteTo: unread bytes come first when a connection is copied.
func TestWriteTo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := io.WriteString(c, "after"); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	var b bytes.Buffer
	n, err := io.Copy(&b, resume(s, []byte("before "), true, time.Time{}))
	if err != nil || b.String() != "before after" || n != int64(b.Len()) {
		t.Errorf("%q, %d bytes, %v", b.String(), n, err)
	}
}
