// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
)

// overTLS returns the configs of a client and a server of a protocol.
func overTLS(t *testing.T, proto string) (client, server *tls.Config) {
	t.Helper()
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}},
		&tls.Config{NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{certs.New("server").TLS()}}
}

// TestPending closes the listener before, in and after TLS handshakes. Accept must fail at once, but not lose HTTP/2.
func TestPending(t *testing.T) {
	for _, row := range []struct {
		name, proto string
		shaken      bool // before the listener is closed
		handedOver  bool
	}{
		{name: "HTTP/2", proto: "h2", handedOver: true},
		{name: "HTTP/2, the handshake is over", proto: "h2", shaken: true, handedOver: true},
		{name: "HTTP/1.1", proto: "http/1.1"},
		{name: "HTTP/1.1, the handshake is over", proto: "http/1.1", shaken: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
				forClient, forServer := overTLS(t, row.proto)
				here, there := net.Pipe()
				p.conns <- tls.Server(there, forServer)
				c := tls.Client(here, forClient)
				if row.shaken {
					if err := c.Handshake(); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				_ = l.Close()
				behind, err := l.Accept()
				if pending := row.handedOver || !row.shaken; pending != (err == nil) {
					t.Fatalf("accepted: %v", err)
				}
				if err == nil {
					_ = behind.SetReadDeadline(time.Now().Add(limits.Header))
					if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
						t.Errorf("accepted after that: %v", err)
					}
				}
				time.Sleep(newGrace / 2)
				answers := make(chan string)
				go func() { _, _ = io.WriteString(c, get) }()
				go func() {
					got, _ := io.ReadAll(c)
					answers <- string(got)
				}()
				if row.handedOver {
					got := make([]byte, len(get))
					if _, err := io.ReadFull(behind, got); err != nil || string(got) != get {
						t.Errorf("the server behind read %q %v", got, err)
					}
					_ = behind.SetWriteDeadline(time.Now().Add(limits.Write))
					if n, err := behind.Write([]byte("abc")); n != 3 || err != nil {
						t.Errorf("it wrote %d bytes, %v", n, err)
					}
				} else if behind != nil {
					if n, err := behind.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("the server behind read %d bytes, %v", n, err)
					}
				}
				if behind != nil {
					_ = behind.Close()
				}
				got := <-answers
				if row.handedOver != (got == "abc") || row.handedOver == strings.HasSuffix(got, "Connection: close\r\n\r\n") {
					t.Errorf("the client read %q", got)
				}
			})
		})
	}
}

// TestPendingAndSilent closes the listener while a client never ends its TLS handshake.
func TestPendingAndSilent(t *testing.T) {
	lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
		_, forServer := overTLS(t, "h2")
		here, there := net.Pipe()
		p.conns <- tls.Server(there, forServer)
		synctest.Wait()
		_ = l.Close()
		began := time.Now()
		behind, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepted after that: %v", err)
		}
		if _, err := behind.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took != newGrace {
			t.Errorf("ended after %s, want %s", took, newGrace)
		}
		_, _ = io.ReadAll(here)
	})
}

// writeDeadline is a connection whose deadline for writing is known.
type writeDeadline struct {
	net.Conn
	last chan time.Time
}

func (c writeDeadline) SetWriteDeadline(t time.Time) error {
	<-c.last
	c.last <- t
	return c.Conn.SetWriteDeadline(t)
}

// While a TLS connection waits, it has no write deadline: TLS may have to write by itself then.
func TestNoDeadlineBetweenAnswers(t *testing.T) {
	lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
		forClient, forServer := overTLS(t, "http/1.1")
		here, there := net.Pipe()
		below := writeDeadline{there, make(chan time.Time, 1)}
		below.last <- time.Time{}
		p.conns <- tls.Server(below, forServer)
		c := tls.Client(here, forClient)
		for range 2 {
			send(t, c, get)
			if got, err := receive(c); got == "" || !isOpen(err) {
				t.Fatalf("%q %v", got, err)
			}
			synctest.Wait()
			last := <-below.last
			if below.last <- last; !last.IsZero() {
				t.Errorf("the deadline is %s", last)
			}
		}
		_ = c.Close()
	})
}
