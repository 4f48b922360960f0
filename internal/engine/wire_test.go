// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// stream is one direction of a connection.
type stream struct {
	mu    sync.Mutex
	moved *sync.Cond
	data  []byte
	ended bool
}

// streamMost is how much a stream holds.
const streamMost = 64 << 10

func newStream() *stream {
	s := new(stream)
	s.moved = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.data) == 0 && !s.ended {
		s.moved.Wait()
	}
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.data)
	s.data = s.data[n:]
	s.moved.Broadcast()
	return n, nil
}

func (s *stream) write(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n < len(b) {
		for len(s.data) >= streamMost && !s.ended {
			s.moved.Wait()
		}
		if s.ended {
			return n, syscall.EPIPE
		}
		part := b[n:min(len(b), n+streamMost-len(s.data))]
		s.data = append(s.data, part...)
		n += len(part)
		s.moved.Broadcast()
	}
	return n, nil
}

func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.moved.Broadcast()
}

// wire is one end of a connection.
type wire struct {
	in, out *stream
	remote  string
	gone    chan struct{} // closed when this end is
	close   func()
}

// newWire returns both ends of a connection to an address.
func newWire(address string) (near, far *wire) {
	there, back := newStream(), newStream()
	end := func(in, out *stream, remote string) *wire {
		w := &wire{in: in, out: out, remote: remote, gone: make(chan struct{})}
		w.close = sync.OnceFunc(func() {
			close(w.gone)
			in.end()
			out.end()
		})
		return w
	}
	return end(back, there, address), end(there, back, "prober:1")
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.in.read(b)
	select {
	case <-w.gone:
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (w *wire) Write(b []byte) (int, error) { return w.out.write(b) }

func (w *wire) Close() error {
	w.close()
	return nil
}

func (w *wire) LocalAddr() net.Addr              { return wireAddr("here:1") }
func (w *wire) RemoteAddr() net.Addr             { return wireAddr(w.remote) }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

type wireAddr string

func (wireAddr) Network() string  { return "tcp" }
func (a wireAddr) String() string { return string(a) }
