// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
)

func testConsul(t *testing.T) (*Consul, *api.Client) {
	t.Helper()
	c, err := NewConsul("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, testClient(t, c.URL())
}

func testClient(t *testing.T, url string) *api.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := api.NewClient(&api.Config{Address: url, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

type result struct {
	entries []*api.ServiceEntry
	meta    *api.QueryMeta
	err     error
}

// query asks in the background, so that the test can act while it blocks.
func query(ctx context.Context, client *api.Client, index uint64, wait time.Duration) <-chan result {
	ch := make(chan result, 1)
	go func() {
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: wait}).WithContext(ctx)
		entries, meta, err := client.Health().Service("vault", "", false, q)
		ch <- result{entries, meta, err}
	}()
	return ch
}

func (r result) want(t *testing.T, index uint64, names ...string) {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	if r.meta.LastIndex != index {
		t.Errorf("index %d, want %d", r.meta.LastIndex, index)
	}
	var got []string
	for _, e := range r.entries {
		got = append(got, e.Node.Node)
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("nodes %q, want %q", got, names)
	}
}

func await(t *testing.T, c interface {
	Await(context.Context, func() bool) error
}, cond func() bool,
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Await(ctx, cond); err != nil {
		t.Fatal(err)
	}
}

func blocked(t *testing.T, c *Consul, n int) {
	t.Helper()
	await(t, c, func() bool { return c.Open() == n })
}

func TestConsulAnswers(t *testing.T) {
	c, client := testConsul(t)
	(<-query(t.Context(), client, 0, 0)).want(t, 1)
	c.Set("vault", Active("vault-1", Index(7)), Standby("vault-2", Check(SealedCheckID("127.10.0.2", 8200), api.HealthCritical)), Node("vault-3"))
	r := <-query(t.Context(), client, 0, 0)
	r.want(t, 2, "vault-1", "vault-2", "vault-3")
	if !r.meta.KnownLeader || r.meta.LastContact != 0 {
		t.Errorf("meta %+v", r.meta)
	}
	s := r.entries[0].Service
	if s.ID != "vault:127.10.0.1:8200" || s.Address != "127.10.0.1" || s.Port != 8200 || s.ModifyIndex != 7 || strings.Join(s.Tags, ",") != "active,initialized" {
		t.Errorf("service %+v", s)
	}
	if got := r.entries[0].Checks.AggregatedStatus(); got != api.HealthPassing {
		t.Errorf("status %s", got)
	}
	if checks := r.entries[1].Checks; len(checks) != 2 || checks.AggregatedStatus() != api.HealthCritical {
		t.Errorf("checks %+v", checks)
	}
	if r.entries[2].Service.Tags == nil {
		t.Error("tags are null")
	}
	if c.Queries() != 2 || len(c.Requests()) != 2 || c.Requests()[0].Path != "/v1/health/service/vault" {
		t.Errorf("requests %+v", c.Requests())
	}
}

func TestUnknownServiceIsAnEmptyList(t *testing.T) {
	c, _ := testConsul(t)
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest("GET", "/v1/health/service/none", nil))
	if w.Body.String() != "[]" || w.Header().Get("X-Consul-Index") != "1" {
		t.Errorf("%q %v", w.Body, w.Header())
	}
	for _, raw := range []string{"index=x", "wait=x", "index=-1"} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest("GET", "/v1/health/service/none?"+raw, nil))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", raw, w.Code)
		}
	}
}

func TestBlocking(t *testing.T) {
	for _, tt := range []struct {
		name  string
		index uint64
		wait  time.Duration
		act   func(c *Consul)
		want  uint64
		nodes []string
	}{
		{"set", 1, time.Minute, func(c *Consul) { c.Set("vault", Active("vault-1")) }, 2, []string{"vault-1"}},
		{"wait over", 1, 20 * time.Millisecond, nil, 1, nil},
		{"wait over ahead of the index", 100, 20 * time.Millisecond, nil, 1, nil},
		{"index raised", 1, time.Minute, func(c *Consul) { c.SetIndex(9) }, 9, nil},
		{"index goes back", 1, time.Minute, func(c *Consul) { c.SetIndex(0) }, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, client := testConsul(t)
			q := query(t.Context(), client, tt.index, tt.wait)
			if tt.act != nil {
				blocked(t, c, 1)
				tt.act(c)
			}
			(<-q).want(t, tt.want, tt.nodes...)
			blocked(t, c, 0)
		})
	}
}

func TestBlockedQueryLeavesWithItsClient(t *testing.T) {
	c, client := testConsul(t)
	ctx, cancel := context.WithCancel(t.Context())
	q := query(ctx, client, 1, time.Minute)
	blocked(t, c, 1)
	if r := c.Requests()[0]; r.Index != 1 || r.Wait != time.Minute {
		t.Errorf("request %+v", r)
	}
	cancel()
	if r := <-q; !errors.Is(r.err, context.Canceled) {
		t.Error(r.err)
	}
	blocked(t, c, 0)
	await(t, c, func() bool { return c.Connections() == 0 })
}

func TestRefuseAndAccept(t *testing.T) {
	c, client := testConsul(t)
	addr := c.Addr()
	q := query(t.Context(), client, 1, time.Minute)
	blocked(t, c, 1)
	c.Refuse()
	if r := <-q; r.err == nil {
		t.Error("a blocked query outlived the agent")
	}
	blocked(t, c, 0)
	if r := <-query(t.Context(), client, 0, 0); !errors.Is(r.err, syscall.ECONNREFUSED) {
		t.Error(r.err)
	}
	c.Set("vault", Node("vault-1"))
	for range 2 {
		if err := c.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	if c.Addr() != addr {
		t.Errorf("%s became %s", addr, c.Addr())
	}
	(<-query(t.Context(), client, 0, 0)).want(t, 2, "vault-1")
	c.Close()
	if err := c.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestReset(t *testing.T) {
	c, client := testConsul(t)
	q := query(t.Context(), client, 1, time.Minute)
	blocked(t, c, 1)
	c.Reset()
	if r := <-q; !errors.Is(r.err, syscall.ECONNRESET) {
		t.Error(r.err)
	}
	blocked(t, c, 0)
	(<-query(t.Context(), client, 0, 0)).want(t, 1)
}

func TestHandle(t *testing.T) {
	c, client := testConsul(t)
	q := query(t.Context(), client, 1, time.Minute)
	blocked(t, c, 1)
	declined := make(chan struct{}, 1)
	c.Handle(func(http.ResponseWriter, *http.Request) bool { declined <- struct{}{}; return false })
	<-declined
	if c.Open() != 1 {
		t.Error("a declined query did not go on waiting")
	}
	c.Handle(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "no cluster leader", http.StatusInternalServerError)
		return true
	})
	if r := <-q; r.err == nil || !strings.Contains(r.err.Error(), "no cluster leader") {
		t.Error(r.err)
	}
	c.Handle(nil)
	c.Header(func(h http.Header) { h.Del("X-Consul-Index"); h.Set("X-Consul-Results-Filtered-By-ACLs", "true") })
	if r := <-query(t.Context(), client, 0, 0); r.err != nil || r.meta.LastIndex != 0 || !r.meta.ResultsFilteredByACLs {
		t.Errorf("%+v", r)
	}
}

func TestHijackedGarbageAndClose(t *testing.T) {
	c, client := testConsul(t)
	c.Handle(func(w http.ResponseWriter, _ *http.Request) bool {
		nc, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		_, _ = io.WriteString(nc, "garbage\r\n\r\n")
		_ = nc.Close()
		return true
	})
	if r := <-query(t.Context(), client, 0, 0); r.err == nil {
		t.Error("garbage was understood")
	}
	c.Handle(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	q := query(t.Context(), client, 0, 0)
	blocked(t, c, 1)
	c.Close()
	c.Close()
	if r := <-q; r.err == nil {
		t.Error("a hanging query was answered")
	}
	if c.Open() != 0 || c.Connections() != 0 {
		t.Errorf("%d queries and %d connections after Close", c.Open(), c.Connections())
	}
}

func TestTLS(t *testing.T) {
	pair := certs.New("consul", "127.0.0.1")
	c := RunConsulTLS(t, pair.Server())
	roots := x509.NewCertPool()
	roots.AddCert(pair.Cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(c.URL() + "/v1/health/service/vault")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != "[]" {
		t.Errorf("%s", body)
	}
}

// A server ends its connections with the test, and waits for what serves them.
func TestServe(t *testing.T) {
	var c net.Conn
	served := false
	t.Run("server", func(t *testing.T) {
		l := Serve(t, func(c net.Conn) {
			_, _ = io.Copy(c, c)
			served = true
		})
		var err error
		if c, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		_, _ = io.WriteString(c, "echo")
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "echo" {
			t.Errorf("%q, %v", got, err)
		}
	})
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || !served {
		t.Errorf("after the end: %d bytes, %v, served: %v", n, err, served)
	}
}
