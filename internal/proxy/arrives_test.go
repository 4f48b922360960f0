// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// stoppable is a listener on whose connections nothing is read while it is locked.
type stoppable struct {
	net.Listener
	sync.RWMutex
}

func (s *stoppable) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	return &stoppableConn{c, s}, err
}

type stoppableConn struct {
	net.Conn
	s *stoppable
}

func (c *stoppableConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:min(len(b), 4096)])
	c.s.RLock()
	defer c.s.RUnlock()
	return n, err
}

// A request whose header a node has not yet taken, though it may when it goes on, may arrive.
func TestArrivesWhenTheNodeGoesOn(t *testing.T) {
	var carriedOut atomic.Int32
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "DELETE" {
			carriedOut.Add(1)
		}
	}))
	s := &stoppable{Listener: node.Listener}
	node.Listener, node.EnableHTTP2, node.Config.MaxHeaderBytes = s, true, 64<<20
	node.StartTLS()
	defer node.Close()
	roots := x509.NewCertPool()
	roots.AddCert(node.Certificate())
	provisioned, end := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer end()
	transport, err := newTransport(provisioned, "https", &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	send := func(ctx context.Context, method, header string) (*request, error) {
		r := httptest.NewRequest(method, node.URL, nil)
		r.RequestURI = ""
		r.Header.Set("X-Large", header)
		p := &request{progress: new(progress), target: &engine.Target{ServerName: "example.com"}}
		resp, err := transport.RoundTrip(r.WithContext(context.WithValue(ctx, requestKey{}, p)))
		if err == nil {
			if resp.ProtoMajor != 2 {
				t.Error(resp.Proto)
			}
			resp.Body.Close()
		}
		return p, err
	}
	if _, err := send(t.Context(), "GET", ""); err != nil {
		t.Fatal(err)
	}
	s.Lock()
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Second, func() { cancel(errNodeEnded) })
	p, err := send(ctx, "DELETE", strings.Repeat("x", 30<<20))
	arrived := p.arrived.Load()
	s.Unlock()
	for range 100 {
		if time.Sleep(50 * time.Millisecond); carriedOut.Load() > 0 {
			break
		}
	}
	t.Logf("%v: the node has carried it out %d times", err, carriedOut.Load())
	if !arrived {
		t.Error("it is taken not to have arrived, and would be sent to the next node as well")
	}
}
