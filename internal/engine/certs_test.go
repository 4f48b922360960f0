// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
)

// tlsPair is the settings of a node, and those of a client that trusts it.
type tlsPair struct{ server, client *tls.Config }

// newTLSPair returns settings with a certificate that signs itself, for some names. It is valid in synthetic time, too.
func newTLSPair(t *testing.T, names ...string) *tlsPair {
	t.Helper()
	pair := certs.New("test", names...)
	roots := x509.NewCertPool()
	roots.AddCert(pair.Cert)
	return &tlsPair{
		server: pair.Server(),
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
