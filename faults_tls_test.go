// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func faultsOfTheCertificate(t *testing.T) {
	const ip = "127.0.0.1"
	tomorrow := time.Now().Add(24 * time.Hour)
	ca := certs.New("test CA")
	file := writeFile(t, t.TempDir(), "ca.pem", string(ca.CertPEM()))
	sign := func(authority *certs.Pair, ip string, until time.Time) *tls.Certificate {
		cert := authority.Issue(until.Add(-48*time.Hour), until, "consul", ip).TLS()
		return &cert
	}
	good, expired, early := sign(ca, ip, tomorrow), sign(ca, ip, time.Now().Add(-time.Minute)), sign(ca, ip, time.Now().Add(72*time.Hour))
	wrong, unknown := sign(ca, "192.0.2.1", tomorrow), sign(certs.New("other CA"), ip, tomorrow)
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
		newSite(t, consul, fmt.Sprintf(`, "tls": {"ca": %q}`, file)).
			suffer(t, fault{begin: show(row.cert), end: show(good), reason: discovery.ReasonConsulUnreachable, detail: row.detail})
	})
}

func faultsOfTheName(t *testing.T) {
	const here, there = "127.0.0.1", "127.0.0.2"
	type row struct {
		begin  func(*dnsName)
		detail string
	}
	together(t, map[string]row{
		"does not exist": {func(n *dnsName) { n.set("") }, "no such host"},
		"is not told":    {(*dnsName).hush, "no answer in time"},
		"leads nowhere":  {func(n *dnsName) { n.set(there) }, "refused"},
	}, func(t *testing.T, row row) {
		consul := standin.RunConsul(t, truthBefore()...)
		s, name := siteByName(t, consul, here)
		s.suffer(t, fault{
			begin:  func(c *standin.Consul) { row.begin(name); c.Reset() },
			end:    func(*standin.Consul) { name.set(here) },
			reason: discovery.ReasonConsulUnreachable, detail: row.detail,
		})
	})

	// The agent moves: its old address refuses, and then the name leads to the new one.
	t.Run("moves", func(t *testing.T) {
		consul := standin.RunConsul(t, truthBefore()...)
		_, port, _ := net.SplitHostPort(consul.Addr())
		moved, err := standin.NewConsul(net.JoinHostPort(there, port))
		if err != nil {
			t.Skipf("no second loopback address: %v", err)
		}
		t.Cleanup(moved.Close)
		moved.Set("vault", truthAfter()...)
		s, name := siteByName(t, consul, here)
		s.suffer(t, fault{
			begin: (*standin.Consul).Refuse, end: func(*standin.Consul) { name.set(there) },
			reason: discovery.ReasonConsulUnreachable, detail: "refused",
		})
	})
	t.Run("does not exist at the start", func(t *testing.T) {
		s, name := siteByName(t, standin.RunConsul(t, truthBefore()...), "")
		until(t, s.h, "no such name", func(st *engine.State) bool { return st.ReasonAt(time.Now()) == discovery.ReasonConsulUnreachable })
		if code, d := readHealth(t, s.h); code != 503 || d.Healthy || d.LastConsulPoll != nil || d.StaleSince != nil {
			t.Errorf("status %d, document %+v", code, d)
		}
		since := time.Now()
		name.set(here)
		s.follows(t, since, "vault-1", 1)
	})
}

// siteByName returns a site that asks Consul by a name, and the name, which leads to an address, or to none.
func siteByName(t *testing.T, consul *standin.Consul, ip string) (*site, *dnsName) {
	t.Helper()
	host := fmt.Sprintf("consul-%d.example.test", sites.Add(1))
	name := dns.register(t, host)
	name.set(ip)
	_, port, _ := net.SplitHostPort(consul.Addr())
	return newSite(t, consul, fmt.Sprintf(`, "address": %q`, net.JoinHostPort(host, port))), name
}

var sites atomic.Int64
