// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/events"
)

// maxEvents is how many events may wait for their handlers.
const maxEvents = 64

// blockHandlers makes handlers of events block until unblockHandlers.
func blockHandlers() {
	recorded.Lock()
	defer recorded.Unlock()
	recorded.block = make(chan struct{})
}

func unblockHandlers() {
	recorded.Lock()
	defer recorded.Unlock()
	close(recorded.block)
	recorded.block = nil
}

// manyNodes is the i-th answer of many nodes: the active one is at host, and all others have another state each time.
func manyNodes(i int, host string) []discovery.Node {
	list := []discovery.Node{at(node("vault-0", true), host)}
	for j := range maxEvents {
		n := node(fmt.Sprintf("other-%d", j), false)
		if i%2 == 0 {
			n.Checks = []discovery.Check{{ID: "c", Status: discovery.StatusCritical, Service: true}}
		}
		list = append(list, n)
	}
	return list
}

// TestEventsHandlerThatBlocks has a handler that does not return: nothing waits for it, and what is too much is dropped
// and counted.
func TestEventsHandlerThatBlocks(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "event-block", node("vault-0", true))
	apps := record(t)
	blockHandlers()
	config := func(i int) map[string]any {
		return c.config(maps.Clone(apps), redirector(s, map[string]any{"name": "prod", "max_stale": fmt.Sprintf("%dm", 1+i)}))
	}
	c.mustLoad(config(0))
	c.await("the handler blocks", func() bool { return len(heard("vault_active_changed")) == 1 })
	before := events.Dropped()
	const changes = 4
	slowest := time.Duration(0)
	for i := 1; i <= changes; i++ {
		host := fmt.Sprintf("host-%d.invalid", i)
		s.Say(nil, manyNodes(i, host)...)
		c.await("redirects follow", func() bool {
			began := time.Now()
			code, location := c.ask("/v1/x")
			slowest = max(slowest, time.Since(began))
			return code == http.StatusTemporaryRedirect && location == "https://"+host+":8200/v1/x"
		})
		if i == changes/2 {
			began := time.Now()
			c.mustLoad(config(1))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the reload took %s", took)
			}
		}
	}
	t.Logf("slowest redirect: %s", slowest)
	if slowest > 2*time.Second {
		t.Errorf("a redirect took %s", slowest)
	}
	dropped := events.Dropped() - before
	if least := uint64((changes-2)*maxEvents - 3); dropped < least {
		t.Errorf("%d events dropped, want at least %d", dropped, least)
	}
	if got := c.samples()["events_dropped_total"]; got != float64(before+dropped) {
		t.Errorf("events_dropped_total is %v, want %v", got, before+dropped)
	}
	c.awaitReason(discovery.ReasonOK)
	// Handlers that come to themselves get what has waited.
	unblockHandlers()
	c.await("what waited is told", func() bool {
		recorded.Lock()
		defer recorded.Unlock()
		return len(recorded.events) > maxEvents
	})
}
