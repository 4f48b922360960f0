// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package load

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// Relay is a link: it takes connections at an address of its own, and passes on what comes in each direction, later.
type Relay struct {
	listener net.Listener
	target   string
	delay    time.Duration // in each direction
	end      func() error
}

// NewRelay starts a relay to a target whose round trip takes a time. It is to be closed.
func NewRelay(target string, roundTrip time.Duration) (*Relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{listener: listener, target: target, delay: roundTrip / 2}
	r.end = standin.Accept(listener, r.connect)
	return r, nil
}

// Addr is the host:port at which it listens.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Close breaks all connections and waits for their goroutines.
func (r *Relay) Close() error { return r.end() }

// connect passes on what comes on one connection, until both directions have ended.
func (r *Relay) connect(from net.Conn) {
	to, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer to.Close()
	var both sync.WaitGroup
	both.Go(func() { r.pass(to, from) })
	both.Go(func() { r.pass(from, to) })
	both.Wait()
}

// piece is what was read at once, and when it is due.
type piece struct {
	data []byte
	due  time.Time
}

// pass passes on one direction. At its end, the other side sees the end; if it breaks, so does the other direction.
func (r *Relay) pass(to, from net.Conn) {
	pieces := make(chan piece, 1024)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := deliver(to, pieces); err != nil {
			_ = from.Close()
			for range pieces { // it reads no more
			}
		}
	}()
	for {
		data := make([]byte, 16<<10)
		n, err := from.Read(data)
		if n > 0 {
			pieces <- piece{data[:n], time.Now().Add(r.delay)}
		}
		if err != nil {
			close(pieces)
			<-done
			if !errors.Is(err, io.EOF) {
				_ = to.Close()
			}
			return
		}
	}
}

// deliver writes pieces when they are due, and then the end.
func deliver(to net.Conn, pieces <-chan piece) error {
	alarm, err := NewAlarm()
	if err != nil {
		return err
	}
	defer alarm.Close()
	for p := range pieces {
		alarm.Until(p.due)
		if _, err := to.Write(p.data); err != nil {
			return err
		}
	}
	return to.(*net.TCPConn).CloseWrite()
}
