// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestCheckCertificates(t *testing.T) {
	noConsulEnv(t)
	ca := newTestCA(t)
	for _, row := range []struct {
		name           string
		cert           tls.Certificate
		trusted        bool
		code           int
		severity       doctor.Severity
		detail, remedy string
	}{
		{"good", ca.issue(t, "127.0.0.1", 90*24*time.Hour), true, 0, doctor.OK, "trusted, for 127.0.0.1, 89 days left", ""},
		{"soon over", ca.issue(t, "127.0.0.1", 10*24*time.Hour), true, 0, doctor.Warning, "9 days left", "renew"},
		{"expired", ca.issue(t, "127.0.0.1", -time.Hour), true, 2, doctor.Wrong, "expired on", "renew"},
		{"other name", ca.issue(t, "vault.test", 90*24*time.Hour), true, 2, doctor.Wrong, "not for 127.0.0.1 but for vault.test", "issue it for 127.0.0.1"},
		{"untrusted", ca.issue(t, "127.0.0.1", 90*24*time.Hour), false, 0, doctor.Warning, "not trusted here", "probe { tls { ca FILE } }"},
	} {
		t.Run(row.name, func(t *testing.T) {
			consul := standin.RunConsul(t)
			vault := standin.RunVaultTLS(t, "vault-0", &tls.Config{Certificates: []tls.Certificate{row.cert}})
			consul.Set("vault", standin.Active("vault-0", standin.Address("127.0.0.1"), portOf(vault)))
			probe := ""
			if row.trusted {
				probe = "probe {\n\t\t\ttls {\n\t\t\t\tca " + ca.file + "\n\t\t\t}\n\t\t}"
			}
			list, code := findingsOf(t, "--config", configFile(t, consul.Addr(), strings.Replace(localSite, "scheme http", probe, 1)))
			wantFinding(t, list, "certificate", row.severity, "vault-0", row.detail, row.remedy)
			if code != row.code {
				t.Errorf("exit %d, want %d:\n%s", code, row.code, dump(list))
			}
			if !row.trusted {
				wantFinding(t, list, "probe", doctor.Warning, "vault", "liveness only (certificate not trusted)", "probe { tls { ca FILE } }")
			}
			// To what speaks https, redirects by http are of no use.
			list, _ = findingsOf(t, "--scheme", "http", consul.Addr())
			wantFinding(t, list, "scheme", doctor.Wrong, "vault-0", "the node answers https", "--scheme https")
		})
	}
}

// testCA is a certificate authority made on the spot.
type testCA struct {
	file string
	pair *certs.Pair
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	form := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(10000 * time.Hour),
	}
	pair, err := certs.New(form, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pair.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return &testCA{file, pair}
}

// issue issues a certificate for a name or an address that ends in so long.
func (ca *testCA) issue(t *testing.T, host string, in time.Duration) tls.Certificate {
	t.Helper()
	form := &x509.Certificate{
		Subject:  pkix.Name{CommonName: fmt.Sprint("node ", host)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-100 * time.Hour), NotAfter: time.Now().Add(in),
	}
	if ip := net.ParseIP(host); ip != nil {
		form.IPAddresses = []net.IP{ip}
	} else {
		form.DNSNames = []string{host}
	}
	pair, err := certs.New(form, ca.pair)
	if err != nil {
		t.Fatal(err)
	}
	return pair.TLS()
}
