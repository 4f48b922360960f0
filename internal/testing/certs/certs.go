// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package certs makes certificates and authorities for tests.
package certs

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Pair is a certificate and its key. It may be that of an authority.
type Pair struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// New makes an authority: a certificate that signs itself. Given hosts, names or IP addresses, it can be a server's as well. It is valid in
// synthetic time, too.
func New(name string, hosts ...string) *Pair {
	return sign(nil, &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		NotBefore: time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC),
	}, name, hosts)
}

// Issue makes a certificate that the authority signs, for servers and clients.
func (p *Pair) Issue(from, until time.Time, name string, hosts ...string) *Pair {
	return sign(p, &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: from, NotAfter: until,
	}, name, hosts)
}

func sign(authority *Pair, t *x509.Certificate, name string, hosts []string) *Pair {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	t.SerialNumber = must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)))
	t.Subject = pkix.Name{CommonName: name}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	by := cmp.Or(authority, &Pair{t, key})
	der := must(x509.CreateCertificate(rand.Reader, t, by.Cert, key.Public(), by.Key))
	return &Pair{must(x509.ParseCertificate(der)), key}
}

// must is for what fails for no certificate of this package.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TLS returns the pair for a [tls.Config].
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key, Leaf: p.Cert}
}

// Server returns the settings of a server with the pair.
func (p *Pair) Server() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{p.TLS()}} }

// CertPEM returns the certificate for a file.
func (p *Pair) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Cert.Raw})
}

// KeyPEM returns the key for a file.
func (p *Pair) KeyPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(p.Key))})
}

// Write writes the pair into two files.
func (p *Pair) Write(dir, name string) (cert, key string, err error) {
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	return cert, key, errors.Join(os.WriteFile(cert, p.CertPEM(), 0o600), os.WriteFile(key, p.KeyPEM(), 0o600))
}
