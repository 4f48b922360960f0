// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the way from the proxy to the node: where it goes, whom it trusts there, and how long it
// takes.

package vaultredirect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// The proxy goes straight to the node, as probes do, whatever the environment says. Go reads that once in a process.
func TestProxyIgnoresTheEnvironment(t *testing.T) {
	const child = "VAULT_REDIRECT_TEST_CHILD"
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyIgnoresTheEnvironment$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} { // which TestMain has taken away
		t.Setenv(name, "http://127.0.0.1:1")
	}
	ctx, end := newContext(t)
	defer end()
	for _, scheme := range []string{"http", "https"} {
		if u, err := http.ProxyFromEnvironment(newRequest(t, scheme+"://192.0.2.1/")); u == nil || err != nil {
			t.Fatalf("the environment is not heeded at all: %v, %v", u, err)
		}
		transport, err := newProxyTransport(ctx, scheme, nil)
		if err != nil {
			t.Fatal(err)
		}
		if u, err := transport.Transport.Proxy(newRequest(t, scheme+"://192.0.2.1/")); u != nil || err != nil {
			t.Errorf("%s: by way of %v, %v", scheme, u, err)
		}
	}
}

// An address of loopback that a node on another machine has registered would be this machine here.
func TestProxyToLoopbackOfAnotherMachine(t *testing.T) {
	var asked atomic.Int32
	r := proxyTo(t, served(func(http.ResponseWriter, *http.Request) { asked.Add(1) }), "", "")
	here, port := hostPortOf(t, clusters()[0].view.State().Target.Authority)
	r.consul.Set("vault", standin.Active("vault-2", standin.Address("192.0.2.1"), standin.ServiceAddress(here), standin.Port(port)))
	soon(t, "the other machine", func() bool { return clusters()[0].view.State().Node.Name == "vault-2" })
	code, _, body := r.send(t, "GET", "/v1/x", "")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, explain(discovery.ReasonBadAddress)) || asked.Load() > 0 {
		t.Errorf("status %d: %s; asked %d times", code, body, asked.Load())
	}
}

// A node that takes connections and says nothing holds nobody for longer than the next one takes to become active.
func TestProxyToANodeThatHangs(t *testing.T) {
	frozen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	next := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	r := proxyTrusting(t, next, fmt.Sprintf(`{"ca": %q}`, authorityOf(t, next)), `, "hold": "60s"`, "")
	host, port := hostPortOf(t, frozen.Addr().String())
	node := r.node
	r.consul.Set("vault", standin.Active("vault-0", standin.Address(host), standin.Port(port)))
	soon(t, "the one that hangs", func() bool { return clusters()[0].view.State().Node.Name == "vault-0" })
	time.AfterFunc(time.Second, func() { r.consul.Set("vault", node) })
	began := time.Now()
	if code, _, body := r.send(t, "POST", "/v1/x", "a body"); code != http.StatusNoContent || time.Since(began) > 40*time.Second {
		t.Errorf("status %d after %s: %s", code, time.Since(began), body)
	}
}

// Requests that are tried again take places, as others that wait do.
func TestProxyTriesTakePlaces(t *testing.T) {
	swapPool(t)
	node := served(func(http.ResponseWriter, *http.Request) {})
	r := proxyTo(t, node, `, "hold": "60s", "hold_max": 1`, "")
	node.Close() // Consul still names it
	first := make(chan int, 1)
	go func() {
		code, _, _ := r.send(t, "GET", "/v1/x", "")
		first <- code
	}()
	proxyWaiting(t, 1)
	began := time.Now()
	if code, _, body := r.send(t, "GET", "/v1/x", ""); code != http.StatusBadGateway || time.Since(began) > 30*time.Second {
		t.Errorf("beyond hold_max: status %d after %s: %s", code, time.Since(began), body)
	}
	pool.End() // of the process
	if code := <-first; code != http.StatusBadGateway || time.Since(began) > 30*time.Second {
		t.Errorf("at the end: status %d", code)
	}
}

// Where a node has a name beside its address, as one of several behind a name does, its certificate must be for the name.
func TestProxyTrustsByName(t *testing.T) {
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
	ctx, end := newContext(t)
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
		transport, err := newProxyTransport(ctx, "https", &TLS{CA: authorityOf(t, node), ServerName: row.config})
		if err != nil {
			t.Fatal(err)
		}
		r := newRequest(t, node.URL)
		r = r.WithContext(context.WithValue(r.Context(), passageKey{}, &passage{target: &engine.Target{ServerName: row.name}}))
		resp, err := transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		if trusted := err == nil; trusted != row.trusted || !trusted && !refused(err) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

// A connection to a node is still being made when a client leaves, whose request then ends. The race detector sees whether they
// share anything.
func TestClientLeavesWhileProxyConnects(t *testing.T) {
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	node.Config.ErrorLog = log.New(io.Discard, "", 0)
	node.StartTLS()
	r := proxyTrusting(t, node, `{"insecure_skip_verify": true}`, "", "")
	for i := range 50 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
		c.Close()
		soon(t, "the request has ended", func() bool { return answered(engine.Proxied)+answered(engine.Unavailable) == uint64(i+1) })
	}
}

// A connection to a node may be made for longer than the try for which it was begun: it shares no variables and no replacer with
// what comes after that.
func TestProxyConnectsByItself(t *testing.T) {
	provisioned, end := newContext(t)
	defer end()
	transport, err := newProxyTransport(provisioned, "https", nil)
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
	ctx = context.WithValue(ctx, passageKey{}, &passage{target: &engine.Target{ServerName: "vault.test"}})
	if _, err := transport.RoundTrip(newRequest(t, "https://127.0.0.1:1").WithContext(ctx)); !errors.Is(err, net.ErrClosed) {
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

// The certificate of the proxy is read for each connection, so that a renewed one needs no reload.
func TestProxyReadsItsCertificateAnew(t *testing.T) {
	names := make(chan string, 10)
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names <- r.TLS.PeerCertificates[0].DNSNames[0]
		w.Header().Set("Connection", "close")
	}))
	node.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	node.StartTLS()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "now.pem"), filepath.Join(dir, "now.key")
	renew := func(name string) {
		newCert, newKey := writePair(t, dir, name)
		if err := errors.Join(os.Rename(newCert, cert), os.Rename(newKey, key)); err != nil {
			t.Fatal(err)
		}
	}
	renew("first")
	r := proxyTrusting(t, node, fmt.Sprintf(`{"ca": %q, "cert": %q, "key": %q}`, authorityOf(t, node), cert, key), "", "")
	for _, name := range []string{"first", "second"} {
		renew(name)
		if code, _, body := r.send(t, "GET", "/v1/x", ""); code != http.StatusOK {
			t.Fatalf("%s: status %d: %s", name, code, body)
		}
		if got := <-names; got != name {
			t.Errorf("the certificate is that of %s, want %s", got, name)
		}
	}
}

// A file without a certificate is a mistake in the config, rather than an error for each request.
func TestProxyTrustInNobody(t *testing.T) {
	empty := writeFile(t, t.TempDir(), "ca.pem", "nothing\n")
	ctx, end := newContext(t)
	defer end()
	for _, scheme := range []string{"http", "https"} {
		_, err := newProxyTransport(ctx, scheme, &TLS{CA: empty})
		wantError(t, err, "ca", "no PEM certificate")
	}
}

// Whoever turns verification off is told so, of the proxy as well.
func TestProxyWarnsOfNoVerification(t *testing.T) {
	r := proxyTrusting(t, served(func(http.ResponseWriter, *http.Request) {}), `{"insecure_skip_verify": true}`, "", "")
	if lines := r.logged(t, "the proxy does not verify"); len(lines) != 1 {
		t.Errorf("logged %d times", len(lines))
	}
}

// net/http would send a write with such a header twice by itself.
func TestProxyKeepsIdempotencyToItself(t *testing.T) {
	got := make(chan http.Header, 1)
	r := proxyTo(t, served(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }), "", "")
	req := r.request(t.Context(), t, "POST", "/v1/x", strings.NewReader("a body"))
	req.Header.Set("Idempotency-Key", "1")
	req.Header.Set("X-Idempotency-Key", "1")
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if h := <-got; h.Get("Idempotency-Key") != "" || h.Get("X-Idempotency-Key") != "" || h.Get("X-Vault-Token") != plantedToken {
		t.Errorf("%v", h)
	}
}
