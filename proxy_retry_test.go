// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// proxied is a Caddy that proxies everything to one node, which a test writes, and logs at DEBUG.
type proxied struct {
	*liveCaddy
	consul *standin.Consul
	node   *api.ServiceEntry
}

// proxyTo runs a Caddy that proxies to a node. more is JSON of the handler, and server of the server, both with a comma in
// front. No line of the log may hold a token.
func proxyTo(t *testing.T, node *httptest.Server, more, server string) *proxied {
	t.Helper()
	return proxyTrusting(t, node, "null", more, server)
}

// proxyTrusting is proxyTo with the proxy's own trust, as JSON.
func proxyTrusting(t *testing.T, node *httptest.Server, trust, more, server string) *proxied {
	t.Helper()
	t.Cleanup(node.Close)
	host, port := hostPortOf(t, node.Listener.Addr().String())
	p := &proxied{node: standin.Active("vault-1", standin.Address(host), standin.Port(port))}
	p.consul = standin.RunConsul(t, p.node)
	scheme := "http"
	if node.TLS != nil {
		scheme = "https"
	}
	p.liveCaddy = run(t, server, func(int) string {
		return fmt.Sprintf(`{"handler": "vault_redirect", "scheme": %q, "discovery": {"source": "consul", "address": %q} %s,
			"proxy": {"match": [{"path": ["*"]}], "tls": %s}}`, scheme, p.consul.Addr(), unprobed(more), trust)
	})
	t.Cleanup(func() {
		if lines := p.logged(t, plantedToken); len(lines) > 0 {
			t.Errorf("the token is logged: %s", lines[0])
		}
	})
	awaitActive(t)
	return p
}

// served is a node that answers with a function.
func served(answer http.HandlerFunc) *httptest.Server { return httptest.NewServer(answer) }

// lose leaves no active node, so that requests wait.
func (p *proxied) lose(t *testing.T) {
	t.Helper()
	p.consul.Set("vault", standin.Standby("vault-1"))
	wait.Until(t, "lost", func() bool { return waits(registry.Clusters()[0].View.State()) })
}

// secretHeaders are headers that may hold a token. The last one is one of OpenBao's inline authentication.
var secretHeaders = append(slices.Clone(sanitize.SecretHeaders), "X-Vault-Inline-Auth-Parameter-Token")

// request returns a request with a token in each header that may hold one.
func (r *liveCaddy) request(ctx context.Context, t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range secretHeaders {
		req.Header.Set(name, plantedToken)
	}
	return req
}

// answered counts the requests of the running config that were answered in a way.
func answered(a engine.Answer) (n uint64) {
	for _, c := range registry.Clusters() {
		n += c.View.Stats().Answers.Count(a)
	}
	return n
}

// proxyWaiting waits until so many requests wait in the running config.
func proxyWaiting(t *testing.T, n int64) {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%d requests wait", n), func() bool { return registry.Clusters()[0].Users[0].Queue.Waiting() == n })
}

// A node that dies after it has got a request may have carried it out. So only reads are sent again.
func TestProxySendsAgainOnlyReads(t *testing.T) {
	for _, row := range []struct {
		method, body string
		again        bool
	}{
		{"GET", "", true},
		{"HEAD", "", true},
		{"LIST", "", true},
		{"GET", "a body", false},
		{"POST", "", false},
		{"POST", "a body", false},
		{"PUT", strings.Repeat("x", maxBuffered+1), false},
		{"PATCH", "a body", false},
		{"DELETE", "", false},
	} {
		t.Run(fmt.Sprintf("%s with %d bytes", row.method, len(row.body)), func(t *testing.T) {
			var times atomic.Int32
			r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if times.Add(1) == 1 {
					panic(http.ErrAbortHandler) // closes the connection without an answer
				}
				_, _ = io.WriteString(w, "answer")
			}), "", "")
			code, header, body := r.send(t, row.method, "/v1/secret/data/x", row.body)
			if row.again {
				if code != http.StatusOK || times.Load() != 2 {
					t.Errorf("status %d after %d times, want 200 after 2: %s", code, times.Load(), body)
				}
				return
			}
			if code != http.StatusBadGateway || times.Load() != 1 {
				t.Errorf("status %d after %d times, want 502 after 1", code, times.Load())
			}
			if !strings.Contains(body, `{"errors":["the active Vault node broke the connection before it answered, and may have carried out the request`) ||
				header.Get("Content-Type") != "application/json" {
				t.Errorf("answer: %v %s", header, body)
			}
		})
	}
}

// A read that breaks each connection is not tried for as long as hold.
func TestProxyGivesUpOnARead(t *testing.T) {
	var times atomic.Int32
	r := proxyTo(t, served(func(http.ResponseWriter, *http.Request) {
		times.Add(1)
		panic(http.ErrAbortHandler)
	}), `, "hold": "5m"`, "")
	if code, _, body := r.send(t, "GET", "/v1/x", ""); code != http.StatusBadGateway || times.Load() != 1+maxRepeats {
		t.Errorf("status %d after %d times, want 502 after %d: %s", code, times.Load(), 1+maxRepeats, body)
	}
}

// Where no connection can be made, nothing has been sent, and any request is tried again, with its body in one piece.
func TestProxyTriesAgainWithTheBody(t *testing.T) {
	for _, size := range []int{0, 10, maxBuffered, maxBuffered + 1, 5 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			var got []byte
			node := served(func(_ http.ResponseWriter, r *http.Request) { got, _ = io.ReadAll(r.Body) })
			addr := node.Listener.Addr().String()
			r := proxyTo(t, node, `, "hold": "5m"`, "")
			node.Listener.Close()
			want := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			answer := make(chan error, 1)
			go func() {
				resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "POST", "/v1/x", bytes.NewReader(want)))
				if err == nil && resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
				answer <- err
			}()
			wait.Until(t, "a try", func() bool { return len(r.logged(t, "connection refused")) > 0 })
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			go node.Config.Serve(l) // until node is closed
			if err := <-answer; err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d arrived, or others", len(got), len(want))
			}
		})
	}
}

// A connection that was kept, and which the node has closed since, costs no request.
func TestProxySurvivesClosedConnections(t *testing.T) {
	c := standin.RunCluster(t, 1)
	r := proxying(t, c, `{"path": ["/v1/*"]}`, `, "hold": "1m"`)
	for range 5 {
		if code, _, body := r.send(t, "POST", "/v1/secret/data/x", `{"data":{"a":"b"}}`); code >= 300 {
			t.Fatalf("status %d: %s", code, body)
		}
		c.Vaults[0].Kill()
		if err := c.Vaults[0].Start(); err != nil {
			t.Fatal(err)
		}
		_ = wait.Sleep(t.Context(), 100*time.Millisecond) // what is written before the end of the connection was noticed may have arrived
	}
}

// A write is not carried out after its client has given up while it waited.
func TestProxyForgetsWhoLeaves(t *testing.T) {
	var writes, reads atomic.Int32
	r := proxyTo(t, served(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			reads.Add(1)
		} else {
			writes.Add(1)
		}
	}), `, "hold": "5m"`, "")
	r.lose(t)

	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := new(http.Transport).RoundTrip(r.request(ctx, t, "POST", "/v1/secret/data/x", strings.NewReader("old")))
		left <- err
	}()
	proxyWaiting(t, 1)
	leave()
	if err := <-left; err == nil {
		t.Fatal("an answer came although there is no node")
	}
	proxyWaiting(t, 0)
	r.consul.Set("vault", r.node)
	if code, _, body := r.send(t, "GET", "/v1/secret/data/x", ""); code != http.StatusOK {
		t.Errorf("status %d: %s", code, body)
	}
	if err := caddy.Stop(); err != nil { // waits for all requests
		t.Error(err)
	}
	if reads.Load() != 1 || writes.Load() != 0 {
		t.Errorf("%d reads and %d writes, want 1 and 0", reads.Load(), writes.Load())
	}
}

// When hold is over, the answer is the 503 that a redirect would have had.
func TestProxyWaitsNoLongerThanHold(t *testing.T) {
	r := proxyTo(t, served(func(http.ResponseWriter, *http.Request) {}), `, "hold": "1s"`, "")
	r.lose(t)
	code, header, body := r.send(t, "POST", "/v1/x", "a body")
	if code != http.StatusServiceUnavailable || header.Get("Retry-After") != "1" || !strings.Contains(body, `{"errors":["no active Vault node: `) {
		t.Errorf("status %d, %v: %s", code, header, body)
	}
	if got := answered(engine.Unavailable); got != 1 {
		t.Errorf("%d requests counted as unavailable, want 1", got)
	}
}

// A request that is tried for most of hold before its node is lost waits for the rest of it, and not for another whole hold.
func TestProxyHasOneDeadline(t *testing.T) {
	node := served(func(http.ResponseWriter, *http.Request) {})
	r := proxyTo(t, node, `, "hold": "4s"`, "")
	node.Close() // Consul still names it
	began := time.Now()
	time.AfterFunc(3*time.Second, func() { r.consul.Set("vault", standin.Standby("vault-1")) })
	code, _, body := r.send(t, "GET", "/v1/x", "")
	if took := time.Since(began); code != http.StatusServiceUnavailable || took < 3*time.Second || took > 6*time.Second {
		t.Errorf("status %d after %s, want 503 after 4s: %s", code, took, body)
	}
}
