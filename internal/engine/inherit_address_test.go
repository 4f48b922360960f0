// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of reloads to a config that has no address for the active node.

package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// A config that has no address for the node that is stale holds requests no longer than hold.
func TestReloadToAConfigWithoutAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		old.fail(errors.New("no"))
		settle(time.Second)
		next := reload{config: func(c *Config) { c.Addressing = to(t, "tagged:wan") }}.run(t, old)
		for range 2 { // before and after it runs
			if got := request(t.Context(), next.View, holding()); got.active != "" || got.after > 5*time.Second {
				t.Errorf("%+v", got)
			}
		}
	})
}

// A config that has no address for the active node is the end of an active node as any other: it is told, counted and
// remembered, and so is that it is over.
func TestReloadToAConfigWithoutAnAddressIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		settle(time.Second)
		wrong := reload{config: func(c *Config) { c.Addressing = to(t, "tagged:wan") }}.run(t, old)
		wrong.Start()
		old.release()
		settle(time.Second)
		if n := wrong.lines("no active node"); n != 1 {
			t.Errorf("%d lines, want one", n)
		}
		if h := wrong.History(); len(h) != 2 || h[0].Active || h[0].Reason != discovery.ReasonBadAddress || h[0].Previous != "a" {
			t.Errorf("the history, the newest first: %+v", h)
		}
		right := reload{config: func(c *Config) { c.Addressing = to(t, ToNodeName) }}.run(t, wrong)
		right.Start()
		wrong.release()
		settle(time.Second)
		if h := right.History(); len(h) != 3 || !h[0].Active || h[0].Gap != time.Second {
			t.Errorf("the history, the newest first: %+v", h)
		}
		if n, without := right.Stats().Losses(discovery.ReasonBadAddress), right.WithoutActive(time.Now()); n != 1 || without != time.Second {
			t.Errorf("%d losses, %s without", n, without)
		}
	})
}
