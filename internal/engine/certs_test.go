// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
)

// tlsPair is the settings of a node, and those of a client that trusts it.
type tlsPair struct{ server, client *tls.Config }

// newTLSPair returns settings with a certificate that signs itself, for some names. It is valid in synthetic time, too.
func newTLSPair(t *testing.T, names ...string) *tlsPair {
	t.Helper()
	pair, err := certs.New(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Cert)
	return &tlsPair{
		server: &tls.Config{Certificates: []tls.Certificate{pair.TLS()}},
		client: &tls.Config{RootCAs: roots},
	}
}

// toTLS is the addressing of nodes by their names and https.
func toTLS(t testing.TB) Addressing {
	t.Helper()
	a, err := NewAddressing("https", ToNodeName, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
