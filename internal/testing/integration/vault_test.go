// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// vaultCLI is the official client, pointed at the redirector.
type vaultCLI struct {
	t   *testing.T
	bin string
	env []string
}

func newVaultCLI(t *testing.T, address, token string, env ...string) vaultCLI {
	t.Helper()
	bin, err := cluster.Program(timeout(t), "vault", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return vaultCLI{t, bin, append([]string{
		"VAULT_ADDR=" + address, "VAULT_TOKEN=" + token, "HOME=" + t.TempDir(), "VAULT_MAX_RETRIES=0", "VAULT_CLIENT_TIMEOUT=30",
	}, env...)}
}

// run runs the client once. It must succeed at the first try.
func (v vaultCLI) run(args ...string) string {
	v.t.Helper()
	cmd := exec.CommandContext(v.t.Context(), v.bin, args...)
	cmd.Env = v.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		v.t.Fatalf("vault %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (v vaultCLI) want(text string, args ...string) {
	v.t.Helper()
	if out := v.run(args...); !strings.Contains(out, text) {
		v.t.Fatalf("vault %s: want %q in\n%s", strings.Join(args, " "), text, out)
	}
}

// everything does what clients do: reads, writes, lists, deletes, tokens, logins, large bodies and wrapped answers.
func (v vaultCLI) everything(big string) {
	v.t.Helper()
	v.run("kv", "put", "secret/team/app", "password=correct horse")
	v.want("correct horse", "kv", "get", "secret/team/app")
	v.want("app", "kv", "list", "secret/team")
	v.run("kv", "put", "secret/team/odd name/x%2Fy", "a=b")
	v.want("x%2Fy", "kv", "list", "secret/team/odd name")
	v.run("kv", "delete", "secret/team/odd name/x%2Fy")
	v.want("client_token", "token", "create", "-ttl=5m", "-format=json")
	v.run("write", "auth/userpass/users/ann", "password=training")
	v.want("token", "write", "-format=json", "auth/userpass/login/ann", "password=training")

	v.run("kv", "put", "secret/big", "value=@"+big)
	out := v.run("kv", "get", "-field=value", "secret/big")
	want, err := os.ReadFile(big)
	if err != nil {
		v.t.Fatal(err)
	}
	if strings.TrimSuffix(out, "\n") != string(want) {
		v.t.Fatalf("the large value came back with %d bytes, want %d", len(out), len(want))
	}

	var wrapped struct {
		WrapInfo struct{ Token string } `json:"wrap_info"`
	}
	if err := json.Unmarshal([]byte(v.run("kv", "get", "-wrap-ttl=60s", "-format=json", "secret/team/app")), &wrapped); err != nil {
		v.t.Fatal(err)
	}
	v.want("correct horse", "unwrap", wrapped.WrapInfo.Token)
	v.run("kv", "delete", "secret/team/app")
}

// largeFile is above the 256 KiB at which Go's server closes a connection with an unread body, and below what raft takes.
func largeFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(file, []byte(strings.Repeat("0123456789abcdef", 700<<10/16)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestVaultClientThroughFailovers(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{})
	caddy := runCaddy(t, "", `
http://{ip}:8080 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		scheme http
	}
}`)
	site := "http://" + caddy.IP + ":8080"
	vault := newVaultCLI(t, site, c.RootToken)
	active, err := c.WaitActive(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	caddy.awaitTarget(site, active.URL)
	vault.run("secrets", "enable", "-path=secret", "kv-v2")
	vault.run("auth", "enable", "userpass")
	// A new kv-v2 mount is upgraded in the background.
	wait.Until(t, "kv-v2 is ready", func() bool {
		return c.Do(t.Context(), nil, "POST", "/v1/secret/data/ready", map[string]any{"data": map[string]any{"a": "b"}}, nil) == nil
	})
	big := largeFile(t)
	vault.everything(big)
	auditClientAddress(t, c, site, "audit")

	// Each node is killed once as the active one, wherever it stands in Consul's list; in between, step-downs.
	for _, victim := range c.Vaults {
		for active != victim {
			if err := active.StepDown(timeout(t)); err != nil {
				t.Fatal(err)
			}
			if active, err = c.WaitActive(timeout(t), active); err != nil {
				t.Fatal(err)
			}
			caddy.awaitTarget(site, active.URL)
			vault.everything(big)
		}
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		if active, err = c.WaitActive(timeout(t), victim); err != nil {
			t.Fatal(err)
		}
		caddy.awaitTarget(site, active.URL)
		vault.everything(big)
		if err := victim.Restart(timeout(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitHealthy(timeout(t)); err != nil {
			t.Fatal(err)
		}
		if active, err = c.Active(timeout(t)); err != nil {
			t.Fatal(err)
		}
		caddy.awaitTarget(site, active.URL)
	}
}

// auditClientAddress checks that Vault's audit log names the address of the client, not that of the redirector.
func auditClientAddress(t *testing.T, c *cluster.Cluster, site, file string) {
	t.Helper()
	file, err := c.EnableAudit(timeout(t), file)
	if err != nil {
		t.Fatal(err)
	}
	const clientIP = "127.0.0.9"
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientIP)}, Timeout: 10 * time.Second}
	bound := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext}}
	defer bound.CloseIdleConnections()
	req, err := http.NewRequest("GET", site+"/v1/auth/token/lookup-self", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", c.RootToken)
	resp, err := bound.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	log, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var entry struct {
			Type    string
			Request struct {
				Path          string
				RemoteAddress string `json:"remote_address"`
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Type == "request" && entry.Request.Path == "auth/token/lookup-self" && entry.Request.RemoteAddress == clientIP {
			return
		}
	}
	t.Errorf("no request from %s in the audit log", clientIP)
}

func TestVaultClientOverTLS(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{TLS: true, Storage: cluster.ConsulStorage, Vaults: 2})
	caddy := runCaddy(t, `
	skip_install_trust
	auto_https disable_redirects`, `
https://{ip}:8443 {
	tls internal
	vault_redirect `+c.Consuls[0].HTTPAddr+`
}
http://{ip}:8080 {
	vault_redirect `+c.Consuls[0].HTTPAddr+`
}`)
	site, plain := "https://"+caddy.IP+":8443", "http://"+caddy.IP+":8080"
	active, err := c.WaitActive(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	caddy.awaitTarget(plain, active.URL)

	// The client trusts two CAs and no other: Vault's and the site's.
	both := filepath.Join(t.TempDir(), "ca.pem")
	siteCA := filepath.Join(caddy.DataDir, "caddy", "pki", "authorities", "local", "root.crt")
	var pem []byte
	for _, file := range []string{c.VaultCA, siteCA} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pem = append(pem, data...)
	}
	if err := os.WriteFile(both, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	httpsClient := trusting(t, both)
	healthy := func(site string) bool {
		resp, err := httpsClient.Get(site + "/vault-redirector-health")
		if err != nil {
			return false // the site's certificate is still being issued
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	for _, s := range []string{site, plain} {
		wait.Until(t, s+" is healthy", func() bool { return healthy(s) })
	}

	vault := newVaultCLI(t, site, c.RootToken, "VAULT_CACERT="+both)
	vault.run("secrets", "enable", "-path=secret", "kv-v2")
	vault.run("auth", "enable", "userpass")
	wait.Until(t, "kv-v2 is ready", func() bool {
		return c.Do(t.Context(), nil, "POST", "/v1/secret/data/ready", map[string]any{"data": map[string]any{"a": "b"}}, nil) == nil
	})
	small := filepath.Join(t.TempDir(), "small") // Consul's storage takes 512 KiB at the most
	if err := os.WriteFile(small, []byte(strings.Repeat("0123456789abcdef", 300<<10/16)), 0o600); err != nil {
		t.Fatal(err)
	}
	vault.everything(small)
	// A site that answers plain http itself works, too: the client follows from http to https.
	newVaultCLI(t, plain, c.RootToken, "VAULT_CACERT="+both).everything(small)

	if err := active.StepDown(timeout(t)); err != nil {
		t.Fatal(err)
	}
	next, err := c.WaitActive(timeout(t), active)
	if err != nil {
		t.Fatal(err)
	}
	caddy.awaitTarget(plain, next.URL)
	vault.everything(small)
}
