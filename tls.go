// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
)

// TLS has the settings of a TLS client: which certificates it trusts, and its own.
type TLS struct {
	// CA is a file of PEM certificates, or a folder of such files, that are trusted instead of the system's.
	// It is read when the config is loaded. Default: the system's.
	CA string `json:"ca,omitempty"`
	// Cert is a PEM file with the client certificate (and its chain) for mutual TLS; needs key. It is read again for each
	// new connection, so that a renewed certificate is used without a reload.
	Cert string `json:"cert,omitempty"`
	// Key is a PEM file with the private key of cert.
	Key string `json:"key,omitempty"`
	// ServerName is the name that the server's certificate must have. Default: the host of the address.
	ServerName string `json:"server_name,omitempty"`
	// InsecureSkipVerify turns verification off: a man in the middle can then redirect clients, and their tokens, to any host.
	// For trying things out only. Default: false.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}

// load completes the settings, nil for none, and returns what config returns.
func (t *TLS) load() (*tls.Config, [sha256.Size]byte, error) {
	settings := *cmp.Or(t, new(TLS))
	if err := settings.expand(caddy.NewReplacer()); err != nil {
		return nil, [sha256.Size]byte{}, err
	}
	return settings.config()
}

// expand fills the placeholders in the settings.
func (t *TLS) expand(repl *caddy.Replacer) error {
	for name, field := range map[string]*string{"ca": &t.CA, "cert": &t.Cert, "key": &t.Key, "server_name": &t.ServerName} {
		var err error
		if *field, err = repl.ReplaceOrErr(*field, true, true); err != nil {
			return fmt.Errorf("tls %s: %w", name, err)
		}
	}
	return nil
}

// config returns the settings for crypto/tls, and a key that is the same for equal settings and equal contents of the CA files.
func (t TLS) config() (*tls.Config, [sha256.Size]byte, error) {
	digest := sha256.Sum256(fmt.Appendf(nil, "%#v", t))
	c := &tls.Config{ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := readCA(t.CA)
		if err != nil {
			return nil, digest, fmt.Errorf("tls ca: %w", err)
		}
		digest = sha256.Sum256(append(digest[:], pem...))
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, digest, fmt.Errorf("tls ca: no PEM certificate in %s", t.CA)
		}
	}
	if err := t.checkPair(); err != nil {
		return nil, digest, err
	}
	if t.Cert != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
			if err != nil {
				return nil, fmt.Errorf("tls cert %s, key %s: %w", t.Cert, t.Key, err)
			}
			return &pair, nil
		}
		if _, err := load(nil); err != nil {
			return nil, digest, err
		}
		c.GetClientCertificate = load
	}
	return c, digest, nil
}

func (t TLS) checkPair() error {
	if (t.Cert == "") != (t.Key == "") {
		return errors.New("tls: cert and key must be given together")
	}
	return nil
}

// readCA reads a PEM file, or all files of a folder.
func readCA(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return os.ReadFile(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, e := range entries {
		file := filepath.Join(path, e.Name())
		if info, err := os.Stat(file); err != nil || info.IsDir() { // follows symbolic links, which such folders have
			continue
		}
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		all = append(append(all, pem...), '\n')
	}
	return all, nil
}
