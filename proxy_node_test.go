// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// An address of loopback that a node on another machine has registered would be this machine here.
func TestProxyToLoopbackOfAnotherMachine(t *testing.T) {
	var asked atomic.Int32
	r := proxyTo(t, served(func(http.ResponseWriter, *http.Request) { asked.Add(1) }), "", "")
	here, port := hostPortOf(t, registry.Clusters()[0].View.State().Target.Authority)
	r.consul.Set("vault", standin.Active("vault-2", standin.Address("192.0.2.1"), standin.ServiceAddress(here), standin.Port(port)))
	wait.Until(t, "the other machine", func() bool { return registry.Clusters()[0].View.State().Node.Name == "vault-2" })
	code, _, body := r.send(t, "GET", "/v1/x", "")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, redirect.Explain(discovery.ReasonBadAddress)) || asked.Load() > 0 {
		t.Errorf("status %d: %s; asked %d times", code, body, asked.Load())
	}
}

// A node that takes connections and does not answer delays no request for longer than the next one takes to become active.
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
	wait.Until(t, "the one that hangs", func() bool { return registry.Clusters()[0].View.State().Node.Name == "vault-0" })
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
		wait.Until(t, "the request has ended", func() bool { return answered(engine.Proxied)+answered(engine.Unavailable) == uint64(i+1) })
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

// A warning is logged if verification is off for the proxy, too.
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

// A file without a certificate is a mistake in the config, rather than an error for each request.
func TestProxyTrustInNobody(t *testing.T) {
	empty := writeFile(t, t.TempDir(), "ca.pem", "nothing\n")
	ctx, end := newContext(t)
	defer end()
	_, err := ctx.LoadModuleByID(handlerID, fmt.Appendf(nil, `{"probe": {"mode": "off"}, "proxy": {"match": [{"path": ["*"]}], "tls": {"ca": %q}}}`, empty))
	wantError(t, err, "proxy", "ca", "no PEM certificate")
}
