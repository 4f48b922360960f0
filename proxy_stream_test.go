// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// What the node has written so far arrives before it writes more.
func TestProxyStreamsAnswers(t *testing.T) {
	read := make(chan struct{})
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		flush(w, "first ")
		select {
		case <-read:
			flush(w, "second")
		case <-r.Context().Done():
		}
	}), "", "")
	resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "GET", "/v1/sys/monitor", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len("first "))
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	close(read)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(first)+string(rest) != "first second" {
		t.Errorf("%q%q, %v", first, rest, err)
	}
}

// What the client has sent so far arrives before it sends more.
func TestProxyStreamsBodies(t *testing.T) {
	arrived := make(chan string)
	r := proxyTo(t, served(func(_ http.ResponseWriter, r *http.Request) {
		reader := bufio.NewReader(r.Body)
		for range 2 {
			line, _ := reader.ReadString('\n')
			arrived <- line
		}
	}), "", "")
	body, writer := io.Pipe()
	answered := make(chan error, 1)
	go func() {
		resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "POST", "/v1/x", body))
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	for _, line := range []string{"first\n", "second\n"} {
		if _, err := io.WriteString(writer, line); err != nil {
			t.Fatal(err)
		}
		if got := <-arrived; got != line {
			t.Errorf("%q arrived, want %q", got, line)
		}
	}
	writer.Close()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// A snapshot is large in either direction.
func TestProxyOfLargeBodies(t *testing.T) {
	content := make([]byte, 8<<20)
	_, _ = rand.Read(content)
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = w.Write(content)
			return
		}
		sum := sha256.New()
		_, _ = io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%x", sum.Sum(nil))
	}), "", "")
	if code, _, body := r.send(t, "GET", "/v1/sys/storage/raft/snapshot", ""); code != http.StatusOK || body != string(content) {
		t.Errorf("down: status %d, %d bytes", code, len(body))
	}
	want := fmt.Sprintf("%x", sha256.Sum256(content))
	if code, _, body := r.send(t, "POST", "/v1/sys/storage/raft/snapshot", string(content)); code != http.StatusOK || body != want {
		t.Errorf("up: status %d: %s", code, body)
	}
	// Of unknown length.
	resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "POST", "/v1/x", io.MultiReader(bytes.NewReader(content))))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
		t.Errorf("in chunks: %s, %v", body, err)
	}
}

// Events of Vault are a websocket.
func TestProxyOfWebsockets(t *testing.T) {
	token := make(chan string, 1)
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		token <- r.Header.Get("X-Vault-Token")
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Key") == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(conn, rw) // an echo
	}), "", "")
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/sys/events/subscribe/kv HTTP/1.1\r\nHost: vault.example.com\r\nX-Vault-Token: %s\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n\r\n", plantedToken)
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || <-token != plantedToken {
		t.Fatalf("status %d, or another token arrived", resp.StatusCode)
	}
	for _, message := range []string{"to and fro\n", "and again\n"} {
		if _, err := io.WriteString(conn, message); err != nil {
			t.Fatal(err)
		}
		if got, err := reader.ReadString('\n'); err != nil || got != message {
			t.Errorf("%q came back, %v", got, err)
		}
	}
	conn.Close()
	wait.Until(t, "it is counted", func() bool { return answered(engine.Proxied) == 1 })
}

// An answer that breaks off is one to the client, too; it is counted, and no log has the token.
func TestProxyOfABrokenAnswer(t *testing.T) {
	r := proxyTo(t, served(func(w http.ResponseWriter, _ *http.Request) {
		flush(w, "half")
		panic(http.ErrAbortHandler)
	}), "", "")
	resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "GET", "/v1/x", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil || string(body) != "half" {
		t.Errorf("%q, %v: it looks complete", body, err)
	}
	wait.Until(t, "it is counted", func() bool { return answered(engine.Proxied) == 1 })
}

// Vault gets to know the client's address, and only Caddy's word counts for it: not what the client says, unless the server
// trusts it.
func TestProxySaysForWhom(t *testing.T) {
	for _, row := range []struct{ name, server, want string }{
		{"of a client", "", "127.0.0.1"},
		{"of a trusted balancer", `, "trusted_proxies": {"source": "static", "ranges": ["127.0.0.1/32"]}`, "203.0.113.7, 127.0.0.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got http.Header
			r := proxyTo(t, served(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }), "", row.server)
			req := r.request(t.Context(), t, "GET", "/v1/x", nil)
			req.Header.Set("X-Forwarded-For", "203.0.113.7")
			resp, err := new(http.Transport).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if f := got["X-Forwarded-For"]; len(f) != 1 || f[0] != row.want {
				t.Errorf("X-Forwarded-For %q, want %q", f, row.want)
			}
			for _, name := range secretHeaders {
				if got.Get(name) != plantedToken {
					t.Errorf("%s did not arrive", name)
				}
			}
		})
	}
}

// The proxy trusts the certificates that the probes trust, unless proxy_tls says otherwise. What it does not trust it does not talk to, and it
// does not wait for that to change.
func TestProxyTrust(t *testing.T) {
	pair := certs.New("vault-1", "127.0.0.1")
	ca := writeFile(t, t.TempDir(), "ca.pem", string(pair.CertPEM()))
	v := standin.RunVaultTLS(t, "vault-1", pair.Server())
	host, port := hostPortOf(t, v.Addr())
	right := fmt.Sprintf(`{"ca": %q}`, ca)
	wrong := fmt.Sprintf(`{"ca": %q, "server_name": "other.example.org"}`, ca)
	for _, row := range []struct {
		name, probe, proxy string
		trusted            bool
	}{
		{"none", "{}", "null", false},
		{"of the probes", right, "null", true},
		{"of the probes, for another name", wrong, "null", false},
		{"its own", "{}", right, true},
		{"its own, and another of the probes", right, wrong, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address(host), standin.Port(port)))
			r := run(t, "", func(int) string {
				return fmt.Sprintf(`{"handler": "vault_redirect", "hold": "5m", "discovery": {"source": "consul", "address": %q},
					"probe": {"tls": %s}, "proxy": {"match": [{"path": ["/v1/*"]}], "tls": %s}}`, consul.Addr(), row.probe, row.proxy)
			})
			code, _, body := r.send(t, "POST", "/v1/secret/data/x", `{"data":{"a":"b"}}`)
			if row.trusted && code != http.StatusOK {
				t.Errorf("status %d: %s", code, body)
			}
			const refusal = `{"errors":["the proxy and the active Vault node do not agree on TLS`
			if !row.trusted && (code != http.StatusBadGateway || !strings.Contains(body, refusal)) {
				t.Errorf("status %d: %s", code, body)
			}
			if lines := r.logged(t, plantedToken); len(lines) > 0 {
				t.Errorf("the token is logged: %s", lines[0])
			}
		})
	}
}

// What is proxied is told apart from what is redirected, in the metrics and in the access log.
func TestProxyIsCountedApart(t *testing.T) {
	c := standin.RunCluster(t, 1)
	r := proxying(t, c, `{"path": ["/v1/proxied/*"]}`, "")
	for range 3 {
		r.send(t, "GET", "/v1/proxied/x", "")
	}
	for range 2 {
		r.send(t, "GET", "/v1/redirected/x", "")
	}
	wait.Until(t, "3 are counted as proxied, 2 as redirected", func() bool { // after the answer
		return answered(engine.Proxied) == 3 && answered(engine.Redirected) == 2
	})
	wait.Until(t, "5 lines", func() bool { return len(r.logged(t, "handled request")) == 5 })
	if p, f := len(r.logged(t, `"vault_result":"proxied"`)), len(r.logged(t, `"vault_result":"redirected"`)); p != 3 || f != 2 {
		t.Errorf("%d lines of proxied and %d of redirected requests, want 3 and 2", p, f)
	}
}
