// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// clientsOf returns a client for each version of HTTP, which trust the internal authority of a Caddy. That of HTTP/1.1 goes
// without TLS.
func clientsOf(t *testing.T, caddy *server) map[string]http.RoundTripper {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(caddy.DataDir, "caddy", "pki", "authorities", "local", "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	trust := &tls.Config{RootCAs: pool}
	h3 := &http3.Transport{TLSClientConfig: trust.Clone()}
	t.Cleanup(func() { h3.Close() })
	return map[string]http.RoundTripper{
		"HTTP/1.1": &http.Transport{DisableKeepAlives: true},
		"HTTP/2.0": &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true},
		"HTTP/3.0": h3,
	}
}

func TestHoldOverAllOfHTTP(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := runCaddy(t, "\tskip_install_trust\n\tauto_https disable_redirects", `
https://{ip}:8443 {
	tls internal
	vault_redirect `+consul.Addr()+` {
		hold 30s
	}
}
http://{ip}:8080 {
	vault_redirect `+consul.Addr()+` {
		hold 30s
	}
}`)
	plain := "http://" + caddy.IP + ":8080"
	caddy.awaitTarget(plain, "https://127.10.0.1:8200")
	clients := clientsOf(t, caddy)
	site := func(proto string) string {
		if proto == "HTTP/1.1" {
			return plain
		}
		return "https://" + caddy.IP + ":8443"
	}
	ask := func(proto string) (string, error) {
		req, err := http.NewRequestWithContext(timeout(t), "GET", site(proto)+"/v1/x", nil)
		if err != nil {
			return "", err
		}
		resp, err := clients[proto].RoundTrip(req)
		if err != nil {
			return "", err
		}
		resp.Body.Close()
		return fmt.Sprintf("%s %d %s", resp.Proto, resp.StatusCode, resp.Header.Get("Location")), nil
	}
	for proto := range clients {
		wait.Until(t, proto+" works", func() bool { _, err := ask(proto); return err == nil })
	}

	consul.Set("vault", standin.Standby("vault-1", standin.Address("127.10.0.1")))
	caddy.awaitReason(plain, "no_active")
	var group sync.WaitGroup
	for proto := range clients {
		group.Go(func() {
			got, err := ask(proto)
			if want := proto + " 307 https://127.10.0.2:8200/v1/x"; err != nil || got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
	caddy.await("all wait", func() bool { return caddy.goroutines().In(inHandler) == len(clients) })
	// A reload in the gap does not turn them away.
	if code, body := caddy.admin("POST", "/config/logging", "application/json", `{}`); code != http.StatusOK {
		t.Errorf("status %d: %s", code, body)
	}
	consul.Set("vault", standin.Active("vault-2", standin.Address("127.10.0.2")))
	group.Wait()
}

// The end of the process does not wait for the next node, and neither do its requests.
func TestHoldEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, standin.Active("vault-1"))
	caddy := runCaddy(t, "", "http://{ip}:8080 {\n\tvault_redirect "+consul.Addr()+" {\n\t\thold 1h\n\t}\n}")
	site := "http://" + caddy.IP + ":8080"
	caddy.await("healthy", func() bool { return readHealth(t, site).Healthy })
	consul.Set("vault", standin.Standby("vault-1"))
	caddy.awaitReason(site, "no_active")
	got := make(chan string, 1)
	conn, err := net.Dial("tcp", caddy.IP+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /v1/x HTTP/1.1\r\nHost: " + caddy.IP + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 1024)
		n, _ := conn.Read(buf)
		got <- string(buf[:n])
	}()
	caddy.await("it waits", func() bool {
		select {
		case answer := <-got:
			t.Fatalf("it did not wait: %s", answer)
		default:
		}
		return caddy.goroutines().In(inHandler) == 1
	})
	if err := caddy.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if answer := <-got; !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "Retry-After: 1") {
		t.Errorf("answer %q", answer)
	}
}
