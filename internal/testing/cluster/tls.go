// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
)

// authority signs certificates for one trust domain; a cluster has one for Vault and another for Consul, so that a
// client that mixes them up fails.
type authority struct {
	*certs.Pair
	dir  string
	file string // its own certificate, PEM
}

func newAuthority(dir, name string) (*authority, error) {
	a := &authority{certs.New(name), dir, filepath.Join(dir, name+".pem")}
	return a, os.WriteFile(a.file, a.CertPEM(), 0o600)
}

// issue signs a certificate for hosts, names or IP addresses, good for servers and clients, and returns its files.
func (a *authority) issue(name string, hosts ...string) (certFile, keyFile string, err error) {
	// Clocks of containers differ.
	pair := a.Issue(time.Now().Add(-time.Hour), time.Now().Add(7*24*time.Hour), name, hosts...)
	// Tests may ask for the same name twice: with other hosts, or in parallel.
	return pair.Write(a.dir, fmt.Sprintf("%s-%x", strings.Map(fileName, name), pair.Cert.SerialNumber))
}

func fileName(r rune) rune {
	if r == '-' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
		return r
	}
	return '_'
}
