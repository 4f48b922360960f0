// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of what probes notice between two of them.

package vaultredirect

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/standin"
)

// The connection of the probes breaks with the node's process: nothing waits for the next probe.
func TestProbesNoticeDeathAtOnce(t *testing.T) {
	c, err := standin.NewCluster(1, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := provision(t, c.Consul, `, "scheme": "http", "hold": 0, "probe": {"interval": "1h"}`)
	until(t, h, "active", (*state).active)
	c.Vaults[0].Kill() // Consul goes on saying that it is active
	until(t, h, "not active", func(s *state) bool { return !s.active() })
}

// A node that closes each connection after its answer is not probed in a hot loop.
func TestProbesOfNodeThatClosesConnections(t *testing.T) {
	const interval = 50 * time.Millisecond
	asked := make(chan time.Time, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- time.Now()
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		body := `{"initialized":true,"sealed":false,"standby":false}`
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		conn.Close()
	}))
	t.Cleanup(s.Close)
	h := provision(t, newConsul(t, standin.Active("vault-1", standin.Address("127.0.0.1"))), fmt.Sprintf(
		`, "scheme": "http", "port": %d, "probe": {"interval": %q}`, s.Listener.Addr().(*net.TCPAddr).Port, interval))
	until(t, h, "active", (*state).active)
	const probes = 40
	begin := <-asked
	var last time.Time
	for range probes {
		last = <-asked
	}
	if took, least := last.Sub(begin), (probes/2-2)*interval*9/10; took < least {
		t.Errorf("%d probes within %s, want at least %s", probes, took, least)
	}
	if !h.view.current.Load().active() {
		t.Error("the node is no longer active")
	}
}
