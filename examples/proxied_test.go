// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// The header in which Vault can be told to take a client certificate from a proxy does not come from a client.
func TestProxyExampleRemovesForwardedCertificate(t *testing.T) {
	for _, example := range []string{"proxy.Caddyfile", "proxy-all.Caddyfile"} {
		t.Run(example, func(t *testing.T) { removesForwardedCertificate(t, example) })
	}
}

func removesForwardedCertificate(t *testing.T, example string) {
	got := make(chan http.Header, 1)
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/sys/") {
			_, _ = io.WriteString(w, `{"initialized": true, "sealed": false, "standby": false, "version": "1.21.0"}`)
			return
		}
		got <- r.Header
	}))
	node.Config.ErrorLog = log.New(io.Discard, "", 0)
	node.StartTLS()
	defer node.Close()
	site := runProxyExample(t, node, example)

	roots := x509.NewCertPool()
	own, err := os.ReadFile(os.Getenv("VAULT_REDIRECT_CERT"))
	if err != nil || !roots.AppendCertsFromPEM(own) {
		t.Fatal("the certificate of the site cannot be read", err)
	}
	for _, h2 := range []bool{false, true} {
		client := &http.Client{
			Timeout:       30 * time.Second,
			Transport:     &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "vault.example.com"}},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		req, err := http.NewRequestWithContext(t.Context(), "POST", site+"/v1/auth/cert/login", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header["X-Vault-Proxy"] = []string{"yes"}
		req.Header["X-Vault-Token"] = []string{"of-the-client"}
		req.Header["x-forwarded-for-CLIENT-cert"] = []string{"forged", "twice"}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("HTTP/2 %t: status %d", h2, resp.StatusCode)
		}
		header := <-got
		if header.Get("X-Vault-Token") != "of-the-client" || header.Get("X-Forwarded-For") != "127.0.0.1" {
			t.Errorf("HTTP/2 %t: the node got %v", h2, header)
		}
		for name := range header {
			if strings.Contains(strings.ToLower(name), "cert") {
				t.Errorf("HTTP/2 %t: the node got %s: %s", h2, name, header[name])
			}
		}
	}
}

// The websocket of events is proxied in each namespace, however deep it is. Types of events may have a slash.
func TestProxyExampleMatchesEventsInNamespaces(t *testing.T) {
	site, client := runProxyExample(t, newNode(t), "proxy.Caddyfile"), newClient()
	for path, want := range map[string]int{
		"/v1/sys/events/subscribe/kv-v2/data-write":            http.StatusOK,
		"/v1/team-a/sys/events/subscribe/kv-v2/data-write":     http.StatusOK,
		"/v1/team-a/nested/sys/events/subscribe/kv*?json=true": http.StatusOK,
		"/v1/sys/storage/raft/snapshot":                        http.StatusOK,
		"/v1/team-a/sys/events/subscriptions/x":                http.StatusTemporaryRedirect,
		"/v1/secret/data/events":                               http.StatusTemporaryRedirect,
	} {
		resp, err := client.Get(site + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, resp.StatusCode, want)
		}
	}
}

// newNode returns an active node, over TLS.
func newNode(t *testing.T) *httptest.Server {
	t.Helper()
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"initialized": true, "sealed": false, "standby": false, "version": "1.21.0"}`)
	}))
	node.Config.ErrorLog = log.New(io.Discard, "", 0)
	node.StartTLS()
	t.Cleanup(node.Close)
	return node
}

// entryOf registers a node as active.
func entryOf(t *testing.T, name string, node *httptest.Server) *api.ServiceEntry {
	t.Helper()
	host, text, err := net.SplitHostPort(node.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return standin.Active(name, standin.Address(host), standin.Port(port))
}

// newClient returns a client that follows no redirects and asks for vault.example.com.
func newClient() *http.Client {
	return &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "vault.example.com"}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// trustNode makes the examples trust the certificate of a node.
func trustNode(t *testing.T, node *httptest.Server) {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "vault-ca.pem")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: node.Certificate().Raw})))
	t.Setenv("VAULT_REDIRECT_VAULT_CA", ca)
}

// runProxyExample has Caddy, in this process, run an example for a node, and returns the URL of the site.
func runProxyExample(t *testing.T, node *httptest.Server, example string) string {
	t.Helper()
	setFiles(t)
	trustNode(t, node)
	t.Setenv("VAULT_REDIRECT_CONSUL", standin.RunConsul(t, entryOf(t, "vault-1", node)).Addr())
	return "https://" + runExample(t, page(t, "examples/"+example))
}

// runExample has Caddy, in this process, run an example, and returns the address of its site, which has no port of its own, or 8080.
func runExample(t *testing.T, text string) (address string) {
	t.Helper()
	// Its own address and ports, and nothing that is logged or kept.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	listener.Close()
	_, own, _ := net.SplitHostPort(address)
	https := own
	if plain := strings.Replace(text, "\n:8080 {", "\n:"+own+" {", 1); plain != text {
		text, https = plain, "2"
	}
	example := strings.Replace(text, "\n{\n", "\n{\n\tadmin off\n\tpersist_config off\n\tdefault_bind 127.0.0.1\n\thttp_port 1\n\thttps_port "+https+
		"\n\tstorage file_system "+t.TempDir()+"\n\tlog {\n\t\toutput discard\n\t}\n", 1)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(example), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	return address
}
