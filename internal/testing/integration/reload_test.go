// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// runJSON runs Caddy with a JSON config that has one server on a unix socket and one handler in it. New connections to a
// TCP listener that Caddy is replacing may be reset by the kernel, whatever the handler; to a unix socket they are not.
func runJSON(t *testing.T, handler string) (s *server, socket string, config func(handler string) string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "reload") // short: a socket's path has at most 108 characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	config = func(handler string) string {
		return fmt.Sprintf(`{
	"admin": {"config": {"persist": false}},
	"apps": {"http": {"servers": {"s": {"listen": ["unix/%s"], "routes": [{"handle": [%s]}]}}}}
}`, socket, handler)
	}
	s = run(t, harness.Options{JSON: config(handler)})
	return s, socket, config
}

// load sends requests from several clients until stopped, and counts the answers.
type load struct {
	stop func()
	mu   sync.Mutex
	seen map[string]int // by status and Location, or error
}

func startLoad(t *testing.T, clients int, socket string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{seen: map[string]int{}}
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			transport := overSocket(socket)
			defer transport.CloseIdleConnections()
			for ctx.Err() == nil {
				what, err := ask(ctx, transport)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					what = err.Error()
				}
				l.mu.Lock()
				l.seen[what]++
				l.mu.Unlock()
			}
		})
	}
	l.stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	t.Cleanup(l.stop)
	return l
}

// ask sends a request and says what came back. As in get, a connection that Caddy closed is no answer: try again.
func ask(ctx context.Context, transport *http.Transport) (what string, err error) {
	for range 3 {
		if what, err = askOnce(ctx, transport); err == nil || ctx.Err() != nil {
			break
		}
	}
	return what, err
}

func askOnce(ctx context.Context, transport *http.Transport) (string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://redirector.example.com/v1/secret/x", nil)
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	return fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("Location")), nil
}

// overSocket returns a transport that dials a unix socket whatever the address.
func overSocket(socket string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
}

// only checks that nothing but the wanted answers was seen.
func (l *load) only(t *testing.T, wanted ...string) {
	t.Helper()
	l.stop()
	total := 0
	for what, n := range l.seen {
		total += n
		if !slices.Contains(wanted, what) {
			t.Errorf("%d times: %s", n, what)
		}
	}
	if total == 0 {
		t.Error("no request was sent")
	}
	t.Logf("%d requests: %v", total, l.seen)
}

func TestConfigChangesUnderLoad(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t,
		standin.Standby("vault-1", standin.Address("127.10.0.1")),
		standin.Active("vault-2", standin.Address("127.10.0.2")))
	handler := func(redirectTo string) string {
		return fmt.Sprintf(`{"handler": "vault_redirect", "redirect_to": %q,
			"discovery": {"source": "consul", "address": %q, "poll_interval": "10m"}}`, redirectTo, consul.Addr())
	}
	caddy, socket, config := runJSON(t, handler("node_address"))
	byAddress, byName := "307 https://127.10.0.2:8200/v1/secret/x", "307 https://vault-2:8200/v1/secret/x"
	if err := consul.Await(timeout(t), func() bool { return consul.Queries() == 2 && consul.Open() == 1 }); err != nil {
		t.Fatal(err)
	}

	l := startLoad(t, 4, socket)
	transport := overSocket(socket)
	transport.DisableKeepAlives = true
	now := func() string {
		t.Helper()
		what, err := ask(t.Context(), transport)
		if err != nil {
			t.Fatal(err)
		}
		return what
	}
	for i := range 20 {
		redirectTo, want := "node_name", byName
		if i%2 == 1 {
			redirectTo, want = "node_address", byAddress
		}
		var code int
		var body string
		if i%4 < 2 {
			code, body = caddy.admin("POST", "/config/apps/http/servers/s/routes/0/handle/0/redirect_to", "application/json", fmt.Sprintf("%q", redirectTo))
		} else {
			code, body = caddy.admin("POST", "/load", "application/json", config(handler(redirectTo)))
		}
		if code != http.StatusOK {
			t.Fatalf("change %d: status %d: %s", i, code, body)
		}
		if got := now(); got != want {
			t.Fatalf("change %d: %s, want %s", i, got, want)
		}
	}
	// Mistakes leave the running config as it is.
	for _, mistake := range []string{`"{nobody}.example.com"`, `"nodename"`, `7`} {
		if code, body := caddy.admin("POST", "/config/apps/http/servers/s/routes/0/handle/0/redirect_to", "application/json", mistake); code == http.StatusOK {
			t.Errorf("%s: status %d: %s", mistake, code, body)
		}
	}
	if got := now(); got != byAddress {
		t.Errorf("after mistakes: %s, want %s", got, byAddress)
	}
	l.only(t, byAddress, byName)
	if consul.Queries() != 2 || consul.Open() != 1 {
		t.Errorf("%d queries at Consul, %d open, want 2 and 1: the first and the one that waits", consul.Queries(), consul.Open())
	}
}
