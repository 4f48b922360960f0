// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// asks probes a node once, and closes the connection.
func asks(t *testing.T, d *dialer, base string, broken func()) ProbeOutcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	l := d.newConn(time.Second, broken)
	defer l.close()
	return l.ask(ctx, base, false)
}

// What certificates are trusted is what crypto/tls would trust.
func TestTrust(t *testing.T) {
	pair, other := newTLSPair(t, "a", "vault.example.com"), newTLSPair(t, "a")
	client := func(change func(*tls.Config)) *tls.Config {
		c := pair.client.Clone()
		change(c)
		return c
	}
	for name, row := range map[string]struct {
		config *tls.Config
		server string // name that the certificate is to have
		want   Result
	}{
		"trusted":               {pair.client, "a", ResultActive},
		"another name":          {pair.client, "vault.example.com", ResultActive},
		"name of the config":    {client(func(c *tls.Config) { c.ServerName = "vault.example.com" }), "b", ResultActive},
		"wrong name":            {pair.client, "b", ResultTLS},
		"wrong name, configed":  {client(func(c *tls.Config) { c.ServerName = "b" }), "a", ResultTLS},
		"no name":               {pair.client, "", ResultTLS},
		"another authority":     {other.client, "a", ResultTLS},
		"defaults":              {nil, "a", ResultTLS},
		"not to be verified":    {client(func(c *tls.Config) { c.InsecureSkipVerify, c.RootCAs = true, nil }), "b", ResultActive},
		"version not in common": {client(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11; c.MinVersion = tls.VersionTLS10 }), "a", ResultTLS},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				n.node("a").set(func(v *vault) { v.code, v.tls = 200, pair.server })
				d := newDialer(p.dial, row.config, row.server)
				for range 3 { // the session of the first is resumed by the others: it is trusted no more than that
					f := asks(t, d, "https://a:8200", func() {})
					if f.Result != row.want || f.Result == ResultTLS && f.Detail == "" {
						t.Errorf("%+v, want %s", f, row.want)
					}
				}
				synctest.Wait()
				if errs := n.node("a").tlsErrs; len(errs) > 0 && name != "version not in common" {
					t.Errorf("the node saw %v", errs)
				}
			})
		})
	}
}

// Where one side speaks http and the other https, the outcome says so. Go's server answers as Vault's does.
func TestWrongScheme(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })
	plain, secure := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	defer plain.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for base, want := range map[string]ProbeOutcome{
		"https" + strings.TrimPrefix(plain.URL, "http"): {Result: ResultTLS, Detail: "the node answers http, and is asked by https"},
		"http" + strings.TrimPrefix(secure.URL, "https"): {
			Result: ResultInvalid, Code: http.StatusBadRequest, Detail: "400: the node answers https, and is asked by http",
		},
	} {
		if f := asks(t, newDialer(new(net.Dialer).DialContext, nil, "127.0.0.1"), base, func() {}); !f.same(want) {
			t.Errorf("%s: %+v, want %+v", base, f, want)
		}
	}
}

// Probes resume sessions, so that a new connection for each costs little.
func TestSessionsAreResumed(t *testing.T) {
	pair := newTLSPair(t, "a")
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		resumed := 0
		server := pair.server.Clone()
		server.VerifyConnection = func(s tls.ConnectionState) error {
			if s.DidResume {
				resumed++
			}
			return nil
		}
		n.node("a").set(func(v *vault) { v.code, v.tls = 200, server })
		d := newDialer(p.dial, pair.client, "a")
		for range 5 {
			asks(t, d, "https://a:8200", func() {})
			synctest.Wait()
		}
		if resumed != 4 || n.tries() != 5 {
			t.Errorf("%d of %d connections resumed a session, want 4 of 5", resumed, n.tries())
		}
	})
}

// A certificate that a node has replaced is looked at, though sessions, and with them the old one, are resumed for a while.
func TestReplacedCertificatesAreLookedAt(t *testing.T) {
	wrong, right := newTLSPair(t, "b"), newTLSPair(t, "a")
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		var serves atomic.Pointer[tls.Certificate]
		server := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return serves.Load(), nil }}
		n.node("a").set(func(v *vault) { v.code, v.tls = 200, server })
		d := newDialer(p.dial, right.client, "a")
		for _, row := range []struct {
			pair *tlsPair
			want Result
		}{{wrong, ResultTLS}, {right, ResultActive}, {wrong, ResultTLS}} {
			serves.Store(&row.pair.server.Certificates[0])
			for range 3 { // the first of which has sessions to resume
				time.Sleep(sessionAge / 2)
				asks(t, d, "https://a:8200", func() {})
			}
			if f := asks(t, d, "https://a:8200", func() {}); f.Result != row.want {
				t.Errorf("%+v, want %s", f, row.want)
			}
		}
	})
}

// Closing a connection is no break of it, and a break is told once.
func TestBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		n.node("a").answers(200)
		d, told := newDialer(p.dial, nil, "a"), 0
		asks(t, d, "http://a:8200", func() { told++ })
		synctest.Wait()
		if told != 0 || n.node("a").connections() != 0 {
			t.Errorf("told %d times, %d connections left", told, n.node("a").connections())
		}
		l := d.newConn(time.Second, func() { told++ })
		if f := l.ask(t.Context(), "http://a:8200", false); f.Result != ResultActive || l.broke.Load() {
			t.Errorf("%+v, broken: %v", f, l.broke.Load())
		}
		n.node("a").cut()
		synctest.Wait()
		if told != 1 || !l.broke.Load() {
			t.Errorf("told %d times, want once", told)
		}
		l.close()
		(*probeConn)(nil).close()
	})
}

// Over real sockets: what fails is told without any address, of which each connection has another.
func TestOutcomesOfSockets(t *testing.T) {
	listen := func(serve func(net.Conn)) string { return "http://" + standin.Serve(t, serve).Addr().String() }
	for name, row := range map[string]struct {
		base string
		want Result
	}{
		"refused": {"http://127.0.0.1:1", ResultRefused}, // a closed port, which is never assigned
		"reset":   {listen(func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }), ResultRefused},
		"closed":  {listen(func(net.Conn) {}), ResultRefused},
		"banner":  {listen(func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n") }), ResultInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			first := ProbeOutcome{}
			for i := range 5 {
				d := newDialer(new(net.Dialer).DialContext, nil, "127.0.0.1")
				f := asks(t, d, row.base, func() {})
				if name == "banner" && f.Result == ResultRefused {
					continue // closed with a request unread: the banner may be lost
				}
				if f.Result != row.want || strings.Contains(f.Detail, "127.0.0.1") || f.Detail == "" {
					t.Errorf("%+v, want %s", f, row.want)
				}
				if i > 0 && first.Result != "" && !f.same(first) {
					t.Errorf("%+v, before %+v", f, first)
				}
				first = f
			}
		})
	}
}
