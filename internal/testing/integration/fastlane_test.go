// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// TestFastLaneEnds ends a Caddy with the lane and one without while clients are connected, and checks that both do the same.
func TestFastLaneEnds(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	said := map[bool]string{}
	for _, lane := range []bool{false, true} {
		config := draining(consul, "3s")
		if lane {
			config = strings.Replace(config, "{\n", "{\n\tservers {\n\t\tlistener_wrappers {\n\t\t\tvault_redirect\n\t\t}\n\t}\n", 1)
		}
		said[lane] = endWithClients(t, config, lane)
	}
	if said[true] != said[false] {
		t.Errorf("with the lane:\n%s\nwithout:\n%s", said[true], said[false])
	}
}

// endWithClients ends a Caddy and returns what a kept connection was told before and while it drained.
func endWithClients(t *testing.T, config string, lane bool) string {
	caddy := run(t, harness.Options{Caddyfile: config})
	site := caddy.IP + ":8080"
	caddy.await("it redirects", func() bool {
		code, _, _ := get(t, "http://"+site+"/v1/x")
		return code == http.StatusTemporaryRedirect
	})
	const ask = "GET /v1/x HTTP/1.1\r\nHost: vault.example.com\r\n\r\n"
	kept, idle, slow := dialSite(t, site), dialSite(t, site), dialSite(t, site)
	var said strings.Builder
	for range 2 {
		said.WriteString(kept.ask(t, ask))
		idle.ask(t, ask)
	}
	slow.send(t, "PUT /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
	if g, err := caddy.Goroutines(t.Context()); err != nil || lane != (g.In("http1.(*conn).run") >= 3) {
		t.Errorf("lane %t: %d connections on it, %v", lane, g.In("http1.(*conn).run"), err)
	}
	if err := caddy.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	caddy.await("it drains", func() bool {
		code, _, _ := get(t, "http://"+site+harness.HealthPath+"/ready")
		return code == http.StatusServiceUnavailable
	})
	said.WriteString(kept.ask(t, ask)) // tells the client to leave
	said.WriteString(kept.rest(t))
	if rest := idle.rest(t); rest != "" { // until the listener closes
		t.Errorf("lane %t: an idle connection was told %q", lane, rest)
	}
	slow.send(t, "cd")
	if answer := slow.rest(t); !strings.HasPrefix(answer, "HTTP/1.1 307 ") {
		t.Errorf("lane %t: a request that had begun was answered %q", lane, answer)
	}
	if code, err := caddy.Wait(t.Context()); code != 0 || err != nil {
		t.Errorf("lane %t: the process ended with %d, %v", lane, code, err)
	}
	return said.String()
}

// rawClient is a connection.
type rawClient struct {
	net.Conn
	reader *bufio.Reader
}

func dialSite(t *testing.T, address string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return &rawClient{c, bufio.NewReader(c)}
}

func (c *rawClient) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Error(err)
	}
}

var dateLine = regexp.MustCompile(`Date: [^\r]*\r\n`)

// ask sends a request and returns the header of the answer but for the date.
func (c *rawClient) ask(t *testing.T, request string) string {
	t.Helper()
	c.send(t, request)
	var b strings.Builder
	for {
		line, err := c.reader.ReadString('\n')
		if b.WriteString(line); err != nil {
			t.Errorf("%q: %v", b.String(), err)
			return b.String()
		}
		if line == "\r\n" {
			return dateLine.ReplaceAllString(b.String(), "")
		}
	}
}

// rest returns what comes until the connection ends.
func (c *rawClient) rest(t *testing.T) string {
	t.Helper()
	b, err := io.ReadAll(c.reader)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	return string(b)
}
