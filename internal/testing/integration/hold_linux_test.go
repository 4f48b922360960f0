// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// crowd is very many clients, each with a connection that it keeps. They are raw connections: the clients are to cost
// less than what they measure.
type crowd struct {
	*testing.T
	ip    string
	conns []net.Conn
}

// each does something for all clients, 64 at a time.
func (c *crowd) each(do func(i int) error) {
	c.Helper()
	var group sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range c.conns {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := do(i); err != nil {
				c.Error(err)
			}
		})
	}
	group.Wait()
	if c.Failed() {
		c.FailNow()
	}
}

func (c *crowd) dial(ctx context.Context) {
	c.Helper()
	c.Cleanup(func() {
		for _, conn := range c.conns {
			if conn != nil {
				conn.Close()
			}
		}
	})
	c.each(func(i int) (err error) {
		// From twenty addresses: none may have more than a tenth of the places.
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 77, 0, byte(1+i%20))}}
		c.conns[i], err = dialer.DialContext(ctx, "tcp", c.ip+":8080")
		return err
	})
}

func (c *crowd) ask() {
	c.Helper()
	c.each(func(i int) error {
		_, err := fmt.Fprintf(c.conns[i], "GET /v1/x HTTP/1.1\r\nHost: %s\r\nX-Vault-Token: hvs.x\r\n\r\n", c.ip)
		return err
	})
}

// redirected reads an answer for each, which is to be a redirect to the address.
func (c *crowd) redirected(address string) {
	c.Helper()
	deadline := time.Now().Add(time.Minute)
	c.each(func(i int) error {
		_ = c.conns[i].SetReadDeadline(deadline)
		buf := make([]byte, 512)
		n, err := c.conns[i].Read(buf)
		if text := string(buf[:n]); err != nil || !strings.HasPrefix(text, "HTTP/1.1 307 ") || !strings.Contains(text, "\r\nLocation: https://"+address+":8200/v1/x\r\n") {
			return fmt.Errorf("answer %q, error %v", text, err)
		}
		return nil
	})
}

func TestHoldTenThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("builds Caddy: left out with -short (make test-quick)")
	}
	const clients = 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < clients+1000 {
		t.Skipf("only %d open files are allowed", limit.Max)
	}
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := run(t, harness.Options{
		Program:   plainCaddy(t), // the race detector would be measured as well
		Caddyfile: "{\n\tdefault_bind {ip}\n}\nhttp://{ip}:8080 {\n\tvault_redirect " + consul.Addr() + " {\n\t\thold 2m\n\t\thold_max 10000\n\t}\n}\n",
	})
	site := "http://" + caddy.IP + ":8080"
	caddy.awaitTarget(site, "https://127.10.0.1:8200")
	memory := func() int {
		t.Helper()
		bytes, err := caddy.Memory()
		if err != nil {
			t.Fatal(err)
		}
		return bytes >> 20
	}
	start := memory()

	// Each is answered once, so that what is measured later is the waiting and not the connection, which Go's server
	// holds for every client that keeps one.
	c := &crowd{T: t, ip: caddy.IP, conns: make([]net.Conn, clients)}
	c.dial(timeout(t))
	c.ask()
	c.redirected("127.10.0.1")
	idle := memory()
	consul.Set("vault", standin.Standby("vault-1"))
	caddy.awaitReason(site, "no_active")
	c.ask()
	// One goroutine each, as Caddy's own profile shows.
	caddy.await("all wait", func() bool { return caddy.goroutines().In(inHandler) == clients })
	waiting := memory()

	began := time.Now()
	consul.Set("vault", standin.Active("vault-2", standin.Address("127.10.0.2")))
	c.redirected("127.10.0.2")
	t.Logf("%d clients: connections %d MB, waiting %d MB more; all answered within %s", clients, idle-start, waiting-idle, time.Since(began))
	if waiting-idle > 200 {
		t.Errorf("waiting cost %d MB, want less than 200", waiting-idle)
	}
}
