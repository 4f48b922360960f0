// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
)

// authority signs certificates for one trust domain; a cluster has one for Vault and another for Consul, so that a
// client that mixes them up fails.
type authority struct {
	dir  string
	file string // its own certificate, PEM
	pair *certs.Pair
}

func newAuthority(dir, name string) (*authority, error) {
	tmpl := template(name)
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	pair, err := certs.New(tmpl, nil)
	if err != nil {
		return nil, fmt.Errorf("certificate authority %s: %w", name, err)
	}
	a := &authority{dir: dir, file: filepath.Join(dir, name+".pem"), pair: pair}
	return a, os.WriteFile(a.file, pair.CertPEM(), 0o600)
}

// issue signs a certificate for hosts, names or IP addresses, good for servers and clients, and returns its files.
func (a *authority) issue(name string, hosts ...string) (certFile, keyFile string, err error) {
	tmpl := template(name)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, host)
		}
	}
	pair, err := certs.New(tmpl, a.pair)
	if err != nil {
		return "", "", fmt.Errorf("certificate for %s: %w", name, err)
	}
	// One name may be asked for twice: with other hosts, or by tests in parallel.
	base := filepath.Join(a.dir, fmt.Sprintf("%s-%x", strings.Map(fileName, name), tmpl.SerialNumber.Bytes()[:4]))
	certFile, keyFile = base+".pem", base+".key"
	return certFile, keyFile, errors.Join(os.WriteFile(certFile, pair.CertPEM(), 0o600), os.WriteFile(keyFile, pair.KeyPEM(), 0o600))
}

func template(name string) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	serial[0] = serial[0]&0x3f | 0x40
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour), // clocks of containers differ
		NotAfter:     time.Now().Add(7 * 24 * time.Hour),
	}
}

func fileName(r rune) rune {
	if r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
		return r
	}
	return '_'
}

// pem is the authority's own certificate.
func (a *authority) pem() string {
	return string(a.pair.CertPEM())
}
