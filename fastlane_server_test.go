// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// loadTLS runs a Caddy with the lane, over TLS, whose active node is known.
func loadTLS(t *testing.T, port, consul string) {
	t.Helper()
	cert, key := writePair(t, t.TempDir(), "vault.example.com")
	config := laneServer(port, handlerJSON(consul, ""), `, "tls_connection_policies": [{}]`)
	config = fmt.Appendf(nil, `%s, "tls": {"certificates": {"load_files": [{"certificate": %q, "key": %q}]}}}}`, strings.TrimSuffix(string(config), "}}"), cert, key)
	if !json.Valid(config) {
		t.Fatalf("%s", config)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	awaitActive(t)
}

// dialLane returns a connection that is on the lane, the only one. Right after a reload, Linux may have put one into the queue
// of the old config's socket, which is reset: then there is another try.
func dialLane(t *testing.T, address string) (c net.Conn) {
	wait.Until(t, "a connection on the lane", func() bool {
		if c == nil {
			var err error
			if c, err = net.Dial("tcp", address); err != nil {
				return false
			}
		}
		if onLane() == 1 {
			return true
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			_ = c.Close()
			c = nil
		}
		return false
	})
	_ = c.SetReadDeadline(time.Time{})
	return c
}

// onGoAway opens an idle connection of HTTP/2, and returns a function that waits until the server has said to all of them that
// it shuts down, which it never says to later ones. A reload may return when the server has not even begun to.
func onGoAway(t *testing.T, address string) (wait func()) {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: "vault.example.com", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	const settings, goAway = 4, 7
	until := func(kind byte) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		for frame := make([]byte, 9); frame[3] != kind; {
			if _, err := io.ReadFull(c, frame); err != nil {
				t.Fatalf("wait for a frame of type %d: %v", kind, err)
			}
			if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(frame[:4])>>8)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := c.Write(slices.Concat(preface, []byte{3: settings, 8: 0})); err != nil { // and an empty frame
		t.Fatal(err)
	}
	until(settings)
	return func() { until(goAway) }
}

// TestFastLaneReloadsInHandshake reloads, and ends Caddy, while a connection is in its TLS handshake.
func TestFastLaneReloadsInHandshake(t *testing.T) {
	clearConsulEnv(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("vault-1.example.com")))
	for _, row := range []struct {
		proto string
		end   func(port string)
	}{
		{"HTTP/2.0", func(port string) { loadTLS(t, port, consul.Addr()) }},
		{"HTTP/1.1", func(port string) { loadTLS(t, port, consul.Addr()) }},
		{"HTTP/2.0", func(string) { _ = caddy.Stop() }},
		{"HTTP/1.1", func(string) { _ = caddy.Stop() }},
	} {
		port := harness.Port(t) // for each another one, so that no connection is an old config's
		loadTLS(t, port, consul.Addr())
		shutDown := onGoAway(t, "127.0.0.1:"+port)
		c := dialLane(t, "127.0.0.1:"+port)
		row.end(port)
		shutDown()
		var protocols http.Protocols
		protocols.SetHTTP1(row.proto == "HTTP/1.1")
		protocols.SetHTTP2(row.proto == "HTTP/2.0")
		used := false
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "vault.example.com"}, Protocols: &protocols,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				if used {
					return nil, errors.New("a second connection is wanted")
				}
				used = true
				return c, nil
			},
		}
		res, err := transport.RoundTrip(newRequest(t, "https://127.0.0.1:"+port+"/a"))
		if err != nil {
			t.Errorf("%s: %v", row.proto, err)
			continue
		}
		drainBody(res)
		if location := res.Header.Get("Location"); res.Proto != row.proto || location != "https://vault-1.example.com:8200/a" {
			t.Errorf("%s %s, to %q", res.Proto, res.Status, location)
		}
		transport.CloseIdleConnections()
	}
	wait.Until(t, "the end of connections", func() bool { return onLane() == 0 })
}

// TestFastLaneOfClientsElsewhere has a target on loopback, and a proxy on this machine that says that the client is elsewhere.
func TestFastLaneOfClientsElsewhere(t *testing.T) {
	clearConsulEnv(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("127.0.0.8")))
	port := harness.Port(t)
	if err := caddy.Load(laneServer(port, handlerJSON(consul.Addr(), `, "hold": 0`), ""), true); err != nil {
		t.Fatal(err)
	}
	awaitActive(t)
	for header, want := range map[string]int{
		"X-Other: 203.0.113.7": http.StatusTemporaryRedirect, "X-Forwarded-For: 203.0.113.7": http.StatusServiceUnavailable,
		"X-Real-IP: 203.0.113.7": http.StatusServiceUnavailable, "forwarded: for=203.0.113.7": http.StatusServiceUnavailable,
		"X-Real-IP: 127.0.0.1": http.StatusTemporaryRedirect,
	} {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(c, strings.Replace(last, "\r\n\r\n", "\r\n"+header+"\r\n\r\n", 1)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != want {
			t.Errorf("%s: %v %v, want %d", header, res, err, want)
		}
		_ = c.Close()
	}
}

// TestFastLaneOfUnknownClients has a target on loopback, to which only clients on this machine may be sent, and clients that
// are unknown: Caddy's server trusts a proxy on a unix socket, which does not give their addresses.
func TestFastLaneOfUnknownClients(t *testing.T) {
	clearConsulEnv(t)
	t.Cleanup(func() { _ = caddy.Stop() })
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("127.0.0.8")))
	for more, want := range map[string]int{"": http.StatusTemporaryRedirect, `, "trusted_proxies_unix": true`: http.StatusServiceUnavailable} {
		socket := filepath.Join(t.TempDir(), "s")
		config := strings.Replace(string(laneServer("0", handlerJSON(consul.Addr(), `, "hold": 0`), more)), "127.0.0.1:0", "unix/"+socket, 1)
		if err := caddy.Load([]byte(config), true); err != nil {
			t.Fatal(err)
		}
		awaitActive(t)
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(c, last); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != want {
			t.Errorf("%s: %v %v, want %d", more, res, err, want)
		}
		_ = c.Close()
	}
}
