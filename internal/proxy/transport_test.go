// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// The proxy goes straight to the node, as probes do, whatever the environment says. Go reads that once in a process.
func TestIgnoresTheEnvironment(t *testing.T) {
	const child = "VAULT_REDIRECT_TEST_CHILD"
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestIgnoresTheEnvironment$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	ctx, end := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer end()
	for _, scheme := range []string{"http", "https"} {
		if u, err := http.ProxyFromEnvironment(httptest.NewRequest("GET", scheme+"://192.0.2.1/", nil)); u == nil || err != nil {
			t.Fatalf("the environment is not heeded at all: %v, %v", u, err)
		}
		transport, err := newTransport(ctx, scheme, new(tls.Config))
		if err != nil {
			t.Fatal(err)
		}
		if u, err := transport.Transport.Proxy(httptest.NewRequest("GET", scheme+"://192.0.2.1/", nil)); u != nil || err != nil {
			t.Errorf("%s: by way of %v, %v", scheme, u, err)
		}
	}
}

// Where a node has a name beside its address, as one of several behind a name does, its certificate must be for the name.
func TestTrustsByName(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.5:0")
	if err != nil {
		t.Skip(err)
	}
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	node.Config.ErrorLog = log.New(io.Discard, "", 0)
	node.Listener.Close()
	node.Listener = listener
	node.StartTLS() // its certificate is for example.com and 127.0.0.1
	defer node.Close()
	roots := x509.NewCertPool()
	roots.AddCert(node.Certificate())
	ctx, end := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer end()
	for _, row := range []struct {
		name, config string
		trusted      bool
	}{
		{"example.com", "", true},
		{"vault.test", "", false},
		{"127.0.0.5", "", false},
		{"127.0.0.5", "example.com", true},
		{"example.com", "vault.test", false},
	} {
		transport, err := newTransport(ctx, "https", &tls.Config{RootCAs: roots, ServerName: row.config})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", node.URL, nil)
		r.RequestURI = ""
		p := &request{progress: new(progress), target: &engine.Target{ServerName: row.name}}
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, p))
		resp, err := transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		if trusted := err == nil; trusted != row.trusted || !trusted && !refused(err) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

// A connection to a node may be made for longer than the try for which it was begun: it shares no variables and no replacer with
// what comes after that.
func TestConnectsByItself(t *testing.T) {
	provisioned, end := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer end()
	transport, err := newTransport(provisioned, "https", new(tls.Config))
	if err != nil {
		t.Fatal(err)
	}
	var dialed context.Context
	transport.Transport.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		dialed = ctx
		return nil, net.ErrClosed
	}
	repl := caddy.NewReplacer()
	ctx := context.WithValue(t.Context(), caddy.ReplacerCtxKey, repl)
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{"a": "of the try"})
	ctx = context.WithValue(ctx, requestKey{}, &request{progress: new(progress), target: &engine.Target{ServerName: "vault.test"}})
	out := httptest.NewRequest("GET", "https://127.0.0.1:1", nil).WithContext(ctx)
	out.RequestURI = ""
	if _, err := transport.RoundTrip(out); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the request ends with %v", err)
	}
	caddyhttp.SetVar(ctx, "a", "of the next try")
	repl.Set(serverNameKey, "next.test")
	if got := caddyhttp.GetVar(dialed, "a"); got != "of the try" {
		t.Errorf("a variable is that %v", got)
	}
	own := dialed.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if got, _ := own.GetString(serverNameKey); got != "vault.test" {
		t.Errorf("the certificate must be for %s", got)
	}
}

// told is a connection that tells when this side closes it.
type told struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *told) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A kept connection may turn out to be closed when a request has got it, and even after net/http has begun to write the request.
// Nothing of that arrives, so any request is sent again.
func TestNothingArrivesOverAClosedConnection(t *testing.T) {
	var taken atomic.Int32
	node := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		taken.Add(1)
	}))
	defer node.Close()
	provisioned, end := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer end()
	transport, err := newTransport(provisioned, "http", new(tls.Config))
	if err != nil {
		t.Fatal(err)
	}
	var last *told
	dial := transport.Transport.DialContext
	transport.Transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		last = &told{Conn: c, closed: make(chan struct{})}
		return last, err
	}
	send := func(closes bool) (p *request, written bool, err error) {
		r := httptest.NewRequest("POST", node.URL, nil)
		r.RequestURI = ""
		p = &request{progress: new(progress), target: &engine.Target{}, body: []byte("a body"), upload: new(upload)}
		r.ContentLength, r.Body = int64(len(p.body)), io.NopCloser(bytes.NewReader(p.body))
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			GotConn: func(httptrace.GotConnInfo) {
				if closes {
					node.CloseClientConnections()
					<-last.closed
				}
			},
			WroteHeaderField: func(string, []string) { written = true },
		})
		resp, err := transport.RoundTrip(r.WithContext(context.WithValue(ctx, requestKey{}, p)))
		if err == nil {
			resp.Body.Close()
		}
		return p, written, err
	}
	for range 200 {
		if _, _, err := send(false); err != nil {
			t.Fatal(err)
		}
		before := taken.Load()
		p, written, err := send(true)
		if err == nil || err.Error() != errClosedIdle || taken.Load() != before {
			t.Fatalf("%v: it has arrived %d times", err, taken.Load()-before)
		}
		if p.arrived.Load() || !p.failureOf(err).again {
			t.Fatalf("%v, written %t: it is taken to have arrived", err, written)
		}
		// If it is not written, net/http had noticed before. A body that is streamed may have been read.
		p.arrived.Store(true)
		if p.failed(httptest.NewRequest("POST", "/", nil), err); p.arrived.Load() {
			t.Fatal("what was written in vain is taken to have arrived")
		}
		p.body = nil
		p.arrived.Store(true)
		if p.failed(httptest.NewRequest("POST", "/", nil), err); !p.arrived.Load() {
			t.Fatal("a part of the body would be missing")
		}
	}
}
