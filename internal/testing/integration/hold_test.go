// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of requests that wait out a failover, over every version of HTTP and many at once.

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestHoldOverAllOfHTTP(t *testing.T) {
	t.Parallel()
	consul := standinConsul(t, standin.Active("vault-1", standin.Address("10.0.0.1")))
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
	plain := "http://" + caddy.ip + ":8080"
	caddy.awaitTarget(plain, "https://10.0.0.1:8200")
	root := filepath.Join(caddy.dataDir, "caddy", "pki", "authorities", "local", "root.crt")
	pem, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	trust := &tls.Config{RootCAs: pool}
	h3 := &http3.Transport{TLSClientConfig: trust.Clone()}
	t.Cleanup(func() { h3.Close() })
	clients := map[string]http.RoundTripper{
		"HTTP/1.1": &http.Transport{DisableKeepAlives: true},
		"HTTP/2.0": &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true},
		"HTTP/3.0": h3,
	}
	site := func(proto string) string {
		if proto == "HTTP/1.1" {
			return plain
		}
		return "https://" + caddy.ip + ":8443"
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
		await(t, proto+" works", func() bool { _, err := ask(proto); return err == nil })
	}

	consul.Set("vault", standin.Standby("vault-1", standin.Address("10.0.0.1")))
	caddy.awaitReason(plain, "no_active")
	var group sync.WaitGroup
	var waiting atomic.Int64
	for proto := range clients {
		group.Go(func() {
			waiting.Add(1)
			got, err := ask(proto)
			waiting.Add(-1)
			if want := proto + " 307 https://10.0.0.2:8200/v1/x"; err != nil || got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
	await(t, "all wait", func() bool { return waiting.Load() == int64(len(clients)) })
	// A reload in the gap does not turn them away.
	if code, body := caddy.admin("POST", "/config/logging", "application/json", `{}`); code != http.StatusOK {
		t.Errorf("status %d: %s", code, body)
	}
	consul.Set("vault", standin.Active("vault-2", standin.Address("10.0.0.2")))
	group.Wait()
}

// The end of the process does not wait for the next node, and neither do its requests.
func TestHoldEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	consul := standinConsul(t, standin.Active("vault-1"))
	caddy := runCaddy(t, "", "http://{ip}:8080 {\n\tvault_redirect "+consul.Addr()+" {\n\t\thold 1h\n\t}\n}")
	site := "http://" + caddy.ip + ":8080"
	caddy.await("healthy", func() bool { return readHealth(t, site).Healthy })
	consul.Set("vault", standin.Standby("vault-1"))
	caddy.awaitReason(site, "no_active")
	got := make(chan string, 1)
	conn, err := net.Dial("tcp", caddy.ip+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /v1/x HTTP/1.1\r\nHost: " + caddy.ip + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 1024)
		n, _ := conn.Read(buf)
		got <- string(buf[:n])
	}()
	select {
	case answer := <-got:
		t.Fatalf("it did not wait: %s", answer)
	case <-time.After(300 * time.Millisecond):
	}
	if err := caddy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if answer := <-got; !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "Retry-After: 1") {
		t.Errorf("answer %q", answer)
	}
}

// plainCaddy builds a Caddy without the race detector, whose memory can be measured.
func plainCaddy(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "caddy")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/caddy")
	cmd.Dir = "../../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// rss returns the resident memory of a process in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Skip("no /proc here")
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestHoldTenThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("builds Caddy")
	}
	const clients = 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < clients+1000 {
		t.Skipf("only %d open files are allowed", limit.Max)
	}
	bin := plainCaddy(t)
	consul := standinConsul(t, standin.Active("vault-1", standin.Address("10.0.0.1")))
	ip := loopback(t)
	file := filepath.Join(t.TempDir(), "Caddyfile")
	caddyfile := "{\n\tdefault_bind " + ip + "\n}\nhttp://" + ip + ":8080 {\n\tvault_redirect " + consul.Addr() + " {\n\t\thold 2m\n\t\thold_max 10000\n\t}\n}\n"
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	caddy := startProgram(t, bin, ip, nil, "run", "--config", file, "--adapter", "caddyfile")
	site := "http://" + ip + ":8080"
	caddy.await("it answers", func() bool { return answers(site) })
	caddy.awaitTarget(site, "https://10.0.0.1:8200")
	start := rss(t, caddy.cmd.Process.Pid)

	// Raw connections: the clients are to cost less than what they measure. Each has been answered once, so that what is
	// measured later is the waiting and not the connection, which Go's server holds for every client that keeps one.
	const request = "GET /v1/x HTTP/1.1\r\nHost: %s\r\nX-Vault-Token: hvs.x\r\n\r\n"
	conns := make([]net.Conn, clients)
	each := func(do func(i int) error) {
		t.Helper()
		var group sync.WaitGroup
		slots := make(chan struct{}, 64)
		for i := range conns {
			slots <- struct{}{}
			group.Go(func() {
				defer func() { <-slots }()
				if err := do(i); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	})
	// redirected reads an answer, which is to be a redirect to the address.
	redirected := func(c net.Conn, address string) error {
		buf := make([]byte, 512)
		n, err := c.Read(buf)
		if text := string(buf[:n]); err != nil || !strings.HasPrefix(text, "HTTP/1.1 307 ") || !strings.Contains(text, "\r\nLocation: https://"+address+":8200/v1/x\r\n") {
			return fmt.Errorf("answer %q, error %v", text, err)
		}
		return nil
	}
	each(func(i int) error {
		conn, err := new(net.Dialer).DialContext(timeout(t), "tcp", ip+":8080")
		if err != nil {
			return err
		}
		conns[i] = conn
		if _, err := fmt.Fprintf(conn, request, ip); err != nil {
			return err
		}
		return redirected(conn, "10.0.0.1")
	})
	idle := rss(t, caddy.cmd.Process.Pid)
	consul.Set("vault", standin.Standby("vault-1"))
	caddy.awaitReason(site, "no_active")
	each(func(i int) error {
		_, err := fmt.Fprintf(conns[i], request, ip)
		return err
	})
	// One goroutine each, as Caddy's own profile shows.
	caddy.await("all wait", func() bool {
		_, profile := caddy.admin("GET", "/debug/pprof/goroutine?debug=1", "", "")
		waiting := 0
		for stack := range strings.SplitSeq(profile, "\n\n") {
			if strings.Contains(stack, "(*Active).current") {
				n, _ := strconv.Atoi(strings.Fields(stack)[0])
				waiting += n
			}
		}
		return waiting == clients
	})
	waiting := rss(t, caddy.cmd.Process.Pid)

	began := time.Now()
	consul.Set("vault", standin.Active("vault-2", standin.Address("10.0.0.2")))
	var group sync.WaitGroup
	for _, c := range conns {
		group.Go(func() {
			_ = c.SetReadDeadline(began.Add(60 * time.Second))
			if err := redirected(c, "10.0.0.2"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	t.Logf("%d clients: connections %d MB, waiting %d MB more; all answered within %s", clients, (idle-start)>>20, (waiting-idle)>>20, took)
	if waiting-idle > 200<<20 {
		t.Errorf("waiting cost %d MB, want less than 200", (waiting-idle)>>20)
	}
	if took > 20*time.Second {
		t.Errorf("the last answer came after %s", took)
	}
}
