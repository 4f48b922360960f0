// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// The connection of the probes breaks with the node's process: nothing waits for the next probe.
func TestProbesNoticeDeathAtOnce(t *testing.T) {
	c := standin.RunCluster(t, 1)
	h := provision(t, c.Consul, `, "scheme": "http", "hold": 0, "probe": {"interval": "1h"}`)
	until(t, h, "active", (*engine.State).Active)
	c.Vaults[0].Kill() // Consul goes on saying that it is active
	until(t, h, "not active", func(s *engine.State) bool { return !s.Active() })
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
	h := provision(t, standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.0.0.1"))), fmt.Sprintf(
		`, "scheme": "http", "port": %d, "probe": {"interval": %q}`, s.Listener.Addr().(*net.TCPAddr).Port, interval))
	until(t, h, "active", (*engine.State).Active)
	const probes = 40
	begin := <-asked
	var last time.Time
	for range probes {
		last = <-asked
	}
	if took, least := last.Sub(begin), (probes/2-2)*interval*9/10; took < least {
		t.Errorf("%d probes within %s, want at least %s", probes, took, least)
	}
	if !h.redirector.View.State().Active() {
		t.Error("the node is no longer active")
	}
}

// While the active node leaves its probe unanswered, requests wait; without hold, they do not.
func TestHoldWhileActiveNodeIsMute(t *testing.T) {
	for _, row := range []struct {
		name string
		then func(a, b *standin.Vault)
		next int // where requests go
	}{
		{"it was merely slow", func(a, _ *standin.Vault) { a.Hang(false) }, 0},
		{"it stepped down", func(a, b *standin.Vault) {
			a.SetActive(false)
			b.SetActive(true)
			a.Hang(false)
		}, 1},
		{"it was killed", func(a, b *standin.Vault) {
			b.SetActive(true)
			a.Kill()
		}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := standin.RunCluster(t, 2)
			const probe = `, "scheme": "http", "probe": {"interval": "50ms", "timeout": "1m"}, "hold": `
			h, hasty := provision(t, c.Consul, probe+`"1m"`), provision(t, c.Consul, probe+`0`)
			until(t, h, "active", (*engine.State).Active)
			c.Vaults[0].Hang(true)
			until(t, h, "mute", waits)
			if got := ask(t, hasty, "GET", "http://r.example.com/x").Header.Get("Location"); got != c.Vaults[0].URL()+"/x" {
				t.Errorf("without hold: Location %q", got)
			}
			location := make(chan string)
			go func() { location <- ask(t, h, "GET", "http://r.example.com/x").Header.Get("Location") }()
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for h.redirector.Queue.Waiting() == 0 {
				select {
				case got := <-location:
					t.Fatalf("Location %q at once", got)
				case <-tick.C:
				}
			}
			if changes := h.redirector.View.State().Changes; changes != 1 {
				t.Errorf("%d changes of the active node", changes)
			}
			row.then(c.Vaults[0], c.Vaults[1])
			if got := <-location; got != c.Vaults[row.next].URL()+"/x" {
				t.Errorf("Location %q, want that of %s", got, c.Vaults[row.next].Name())
			}
		})
	}
}
