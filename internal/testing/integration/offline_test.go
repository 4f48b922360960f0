// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
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
			if name := filepath.Base(file); strings.HasPrefix(name, "events-") || name == "acme-dns.Caddyfile" { // with modules of others
				continue
			}
			files = append(files, file)
		}
	}
	return files
}

// countingListener takes connections and counts them.
func countingListener(t *testing.T) (address string, connections *atomic.Int32) {
	t.Helper()
	connections = new(atomic.Int32)
	return standin.Serve(t, func(net.Conn) { connections.Add(1) }).Addr().String(), connections
}

// exampleFiles are the files that examples name, in a folder of the test.
type exampleFiles struct {
	dir              string
	cert, key, token string
}

func writeExampleFiles(t *testing.T) *exampleFiles {
	t.Helper()
	f := &exampleFiles{dir: t.TempDir()}
	var err error
	if f.cert, f.key, err = certs.New("vault.example.com", "vault.example.com").Write(f.dir, "vault"); err != nil {
		t.Fatal(err)
	}
	f.token = f.write(t, "token", []byte("00000000-0000-0000-0000-000000000000\n"))
	return f
}

func (f *exampleFiles) write(t *testing.T, name string, text []byte) string {
	t.Helper()
	file := filepath.Join(f.dir, name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// env is the environment that examples expect, with Consul at an address.
func (f *exampleFiles) env(consul string) []string {
	return []string{
		"CONSUL_HTTP_ADDR=" + consul, "VAULT_REDIRECT_CONSUL=https://" + consul,
		"VAULT_REDIRECT_PASSWORD_HASH=$2a$14$g4VWYh4L2fAc1aP3fLFzjuHpX1iK/OAn2bzdrWFRqpIbxMsRqGvsG",
		"VAULT_REDIRECT_CERT=" + f.cert, "VAULT_REDIRECT_KEY=" + f.key, "VAULT_REDIRECT_CONSUL_CA=" + f.cert,
		"VAULT_REDIRECT_VAULT_CA=" + f.cert, "VAULT_REDIRECT_CONSUL_TOKEN_FILE=" + f.token,
	}
}

// copy writes a copy of an example that names the files, and Consul at an address.
func (f *exampleFiles) copy(t *testing.T, example, consul string) (file string) {
	t.Helper()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("127.0.0.1:8501", consul, "127.0.0.1:8500", consul,
		"/etc/vault-redirect/consul-token", f.token, "/etc/vault-redirect/consul-ca.pem", f.cert, "/etc/vault-redirect/vault-ca.pem", f.cert,
		"/etc/vault-redirect/consul-client.pem", f.cert, "/etc/vault-redirect/consul-client-key.pem", f.key)
	return f.write(t, filepath.Base(example), []byte(here.Replace(string(text))))
}

// TestValidateAndAdaptUseNoNetwork counts connections to where Consul would be.
func TestValidateAndAdaptUseNoNetwork(t *testing.T) {
	t.Parallel()
	consul, connections := countingListener(t)
	files := writeExampleFiles(t)
	env := files.env(consul)
	for _, example := range exampleConfigs(t) {
		name, file := filepath.Base(example), files.copy(t, example, consul)
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
	caddy := runCaddy(t, "", "http://{ip}:8001 {\n\tvault_redirect\n}", "CONSUL_HTTP_ADDR="+consul)
	caddy.await("a connection to Consul", func() bool { return connections.Load() > 0 })
}
