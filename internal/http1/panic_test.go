// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
)

// bomb is a connection that panics when it is read.
type bomb struct {
	net.Conn
	value any
}

func (b bomb) Read([]byte) (int, error) { panic(b.value) }

// TestPanics: the connection below panics, in reads and in TLS handshakes.
func TestPanics(t *testing.T) {
	for _, row := range []struct {
		name  string
		value any
		tls   bool
	}{
		{name: "a read", value: "a bug in a wrapper"},
		{name: "a read, on purpose", value: http.ErrAbortHandler},
		{name: "a certificate", value: "a bug in a certificate manager", tls: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			lane(t, limits, func(t *testing.T, l *Listener, p *pipes) {
				here, there := net.Pipe()
				if row.tls {
					p.conns <- tls.Server(there, &tls.Config{
						GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic(row.value) },
					})
					here = tls.Client(here, &tls.Config{InsecureSkipVerify: true})
				} else {
					p.conns <- bomb{there, row.value}
				}
				if n, err := here.Read(make([]byte, 1)); err == nil {
					t.Errorf("%d bytes", n)
				}
				synctest.Wait()
				if l.open() != 0 {
					t.Error("the connection is not forgotten")
				}
				var panics []any
				for _, e := range p.logged.FilterMessage("panic while serving a connection").All() {
					panics = append(panics, e.ContextMap()["panic"])
				}
				want := []any{row.value}
				if row.value == http.ErrAbortHandler {
					want = nil
				}
				if !slices.Equal(panics, want) {
					t.Errorf("logged %v", panics)
				}
				c := p.dial()
				send(t, c, get)
				if got, err := receive(c); got == "" || !isOpen(err) {
					t.Errorf("the next connection: %q %v", got, err)
				}
				_ = c.Close()
			})
		})
	}
}
