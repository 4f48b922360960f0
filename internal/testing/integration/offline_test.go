// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the test that looking at a config does not use the network.

package integration

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

// exampleConfigs returns the examples that are configs of Caddy.
func exampleConfigs(t *testing.T) (files []string) {
	t.Helper()
	for _, pattern := range []string{"*.Caddyfile", "*/*.Caddyfile", "config*.json"} {
		found, err := filepath.Glob(filepath.Join("../../../examples", pattern))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			t.Errorf("no example is %s", pattern)
		}
		for _, file := range found {
			if strings.HasPrefix(filepath.Base(file), "events-") { // their handlers are modules of others
				continue
			}
			files = append(files, file)
		}
	}
	return files
}

// TestValidateAndAdaptUseNoNetwork counts connections to where Consul would be.
func TestValidateAndAdaptUseNoNetwork(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connections atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			conn.Close()
		}
	}()

	dir := t.TempDir()
	write := func(name string, text []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	server := httptest.NewTLSServer(nil) // has a certificate
	defer server.Close()
	pair := server.TLS.Certificates[0]
	keyDER, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	key := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	token := write("token", []byte("00000000-0000-0000-0000-000000000000\n"))
	env := []string{
		"CONSUL_HTTP_ADDR=" + l.Addr().String(), "VAULT_REDIRECT_CONSUL=https://" + l.Addr().String(),
		"VAULT_REDIRECT_PASSWORD_HASH=$2a$14$g4VWYh4L2fAc1aP3fLFzjuHpX1iK/OAn2bzdrWFRqpIbxMsRqGvsG", "VAULT_REDIRECT_CERT=" + cert, "VAULT_REDIRECT_KEY=" + key, "VAULT_REDIRECT_CONSUL_CA=" + cert, "VAULT_REDIRECT_VAULT_CA=" + cert, "VAULT_REDIRECT_CONSUL_TOKEN_FILE=" + token,
	}
	here := strings.NewReplacer("127.0.0.1:8501", l.Addr().String(), "127.0.0.1:8500", l.Addr().String(),
		"/etc/vault-redirect/consul-token", token, "/etc/vault-redirect/consul-ca.pem", cert, "/etc/vault-redirect/vault-ca.pem", cert,
		"/etc/vault-redirect/consul-client.pem", cert, "/etc/vault-redirect/consul-client-key.pem", key)

	for _, example := range exampleConfigs(t) {
		text, err := os.ReadFile(example)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(example)
		file := write(name, []byte(here.Replace(string(text))))
		commands := [][]string{{"validate", "--config", file}}
		if strings.HasSuffix(name, ".Caddyfile") {
			commands = [][]string{
				{"validate", "--config", file, "--adapter", "caddyfile"},
				{"adapt", "--config", file, "--adapter", "caddyfile"},
				{"adapt", "--config", file, "--adapter", "caddyfile", "--validate"},
			}
		}
		for _, args := range commands {
			t.Run(name+" "+args[0]+" "+strings.Join(args[min(5, len(args)):], ""), func(t *testing.T) {
				cmd := harness.Prepare(t, harness.Options{Args: args, Env: env}).Command(t.Context(), args...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if n := connections.Load(); n != 0 {
					t.Errorf("%d connections to Consul", n)
				}
			})
		}
	}

	// The same address is asked when a config is run: the count would have risen.
	caddy := runCaddy(t, "", "http://{ip}:8001 {\n\tvault_redirect\n}", "CONSUL_HTTP_ADDR="+l.Addr().String())
	caddy.await("a connection to Consul", func() bool { return connections.Load() > 0 })
}
