// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the faults on the way to Consul: its certificate, and its name.

package vaultredirect

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// signer is a certificate authority.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign makes a certificate for an IP address, signed by itself if s is nil.
func (s *signer) sign(t *testing.T, ip string, end time.Time) (*signer, *tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: end.Add(-48 * time.Hour), NotAfter: end,
		IPAddresses: []net.IP{net.ParseIP(ip)}, IsCA: s == nil, BasicConstraintsValid: true,
	}
	if s == nil {
		s = &signer{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &signer{c, key}, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: c}
}

func faultsOfTheCertificate(t *testing.T) {
	const ip = "127.0.0.1"
	tomorrow := time.Now().Add(24 * time.Hour)
	ca, _ := (*signer)(nil).sign(t, ip, tomorrow)
	other, _ := (*signer)(nil).sign(t, ip, tomorrow)
	file := writeFile(t, t.TempDir(), "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})))
	_, good := ca.sign(t, ip, tomorrow)
	_, expired := ca.sign(t, ip, time.Now().Add(-time.Minute))
	_, early := ca.sign(t, ip, time.Now().Add(72*time.Hour))
	_, wrong := ca.sign(t, "192.0.2.1", tomorrow)
	_, unknown := other.sign(t, ip, tomorrow)
	type row struct {
		cert   *tls.Certificate
		detail string
	}
	together(t, map[string]row{
		"expired":    {expired, "expired"},
		"too early":  {early, "not yet valid"},
		"wrong name": {wrong, "valid for 192.0.2.1, not 127.0.0.1"},
		"unknown CA": {unknown, "unknown authority"},
	}, func(t *testing.T, row row) {
		var shown atomic.Pointer[tls.Certificate]
		shown.Store(good)
		show := func(cert *tls.Certificate) func(*standin.Consul) {
			return func(c *standin.Consul) { shown.Store(cert); c.Reset() }
		}
		consul, err := standin.NewConsulTLS("", &tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(consul.Close)
		consul.Set("vault", truthBefore()...)
		newSite(t, consul, fmt.Sprintf(`, "tls": {"ca": %q}`, file), nil).
			suffer(t, fault{begin: show(row.cert), end: show(good), reason: ReasonConsulUnreachable, detail: row.detail})
	})
}

// names is a DNS server that has one address for all names.
type names struct {
	address atomic.Pointer[net.IP] // nil: there is no such name
	silent  atomic.Bool
}

func (n *names) set(ip string) {
	address := net.ParseIP(ip).To4()
	n.address.Store(&address)
}

// dial connects to the server, with DNS over TCP on a pipe: each message after its length.
func (n *names) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		for {
			var length uint16
			if binary.Read(server, binary.BigEndian, &length) != nil {
				return
			}
			query := make([]byte, length)
			if _, err := io.ReadFull(server, query); err != nil {
				return
			}
			if n.silent.Load() {
				_, _ = server.Read(query) // until the client goes
				return
			}
			answer := n.answer(query)
			if _, err := server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
				return
			}
		}
	}()
	return client, nil
}

// answer answers a query: see RFC 1035, section 4.1.
func (n *names) answer(query []byte) []byte {
	const header = 12
	end := header
	for query[end] != 0 { // labels
		end += 1 + int(query[end])
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	end += 5 // the root, type and class
	a := append([]byte(nil), query[:end]...)
	a[2] |= 0x80                                // a response
	copy(a[6:header], []byte{0, 0, 0, 0, 0, 0}) // no records so far
	address := n.address.Load()
	switch {
	case address == nil:
		a[3] = a[3]&0xf0 | 3 // no such name
	case kind == 1: // one record A: the name above, type, class, TTL 0, four bytes
		a[7] = 1
		a = append(append(a, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), *address...)
	}
	return a
}

func faultsOfTheName(t *testing.T) {
	const here, there = "127.0.0.1", "127.0.0.2"
	type row struct {
		begin  func(*names, *standin.Consul)
		detail string
	}
	resetting := func(f func(*names)) func(*names, *standin.Consul) {
		return func(n *names, c *standin.Consul) { f(n); c.Reset() }
	}
	together(t, map[string]row{
		"does not exist": {resetting(func(n *names) { n.address.Store(nil) }), "no such host"},
		"is not told":    {resetting(func(n *names) { n.silent.Store(true) }), "no answer in time"},
		"leads nowhere":  {resetting(func(n *names) { n.set(there) }), "refused"},
	}, func(t *testing.T, row row) {
		consul := newConsul(t, truthBefore()...)
		dns := new(names)
		dns.set(here)
		siteByName(t, consul, dns).suffer(t, fault{
			begin:  func(c *standin.Consul) { row.begin(dns, c) },
			end:    func(*standin.Consul) { dns.set(here); dns.silent.Store(false) },
			reason: ReasonConsulUnreachable, detail: row.detail,
		})
	})

	// The agent moves: its old address refuses, and then the name leads to the new one.
	t.Run("moves", func(t *testing.T) {
		consul := newConsul(t, truthBefore()...)
		_, port, _ := net.SplitHostPort(consul.Addr())
		moved, err := standin.NewConsul(net.JoinHostPort(there, port))
		if err != nil {
			t.Skipf("no second loopback address: %v", err)
		}
		t.Cleanup(moved.Close)
		moved.Set("vault", truthAfter()...)
		dns := new(names)
		dns.set(here)
		siteByName(t, consul, dns).suffer(t, fault{
			begin: (*standin.Consul).Refuse, end: func(*standin.Consul) { dns.set(there) },
			reason: ReasonConsulUnreachable, detail: "refused",
		})
	})
	t.Run("does not exist at the start", func(t *testing.T) {
		consul, dns := newConsul(t, truthBefore()...), new(names)
		s := siteByName(t, consul, dns)
		until(t, s.h, "no such name", func(st *state) bool { return st.reason == ReasonConsulUnreachable })
		if code, d := readHealth(t, s.h); code != 503 || d.Healthy || d.LastConsulPoll != nil || d.StaleSince != nil {
			t.Errorf("status %d, document %+v", code, d)
		}
		since := time.Now()
		dns.set(here)
		s.follows(t, since, "vault-1", 1)
	})
}

// siteByName returns a site that asks Consul by a name.
func siteByName(t *testing.T, consul *standin.Consul, dns *names) *site {
	t.Helper()
	_, port, _ := net.SplitHostPort(consul.Addr())
	return newSite(t, consul, fmt.Sprintf(`, "address": %q`, net.JoinHostPort("consul.example.test", port)), func(c *consulSource) {
		c.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: dns.dial}
		c.transport.Proxy = nil
	})
}
