// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of reloads while the active node leaves its probe unanswered.

package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// A reload does not have a node that hangs taken for one that answers, nor for one of which nothing can be known.
func TestReloadWhileTheActiveNodeHangs(t *testing.T) {
	pair, other := newTLSPair(t, "a", "b", "c"), newTLSPair(t, "a", "b", "c")
	for name, cluster := range map[string]func(t *testing.T) (*network, *watched){
		"trusted":     func(t *testing.T) (*network, *watched) { return probedCluster(t) },
		"not trusted": func(t *testing.T) (*network, *watched) { return untrustedCluster(t, pair, other) },
	} {
		for change, r := range map[string]reload{
			"of the config":    {config: func(c *Config) { c.MaxStale++ }},
			"of the discovery": {discovery: func(s *scripted) { s.key = "another token" }},
		} {
			t.Run(name+", "+change, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, old := cluster(t)
					old.named = "vault"
					settle(2 * time.Second)
					n.node("a").hangs(true)
					settle(time.Second)
					if p := old.State().Phase(); p.Situation != Silent {
						t.Fatalf("phase %v", p)
					}
					next := r.run(t, old)
					next.Start()
					old.release()
					for range 50 {
						settle(100 * time.Millisecond)
						if p := next.State().Phase(); p.Situation == Active {
							t.Fatalf("phase %v", p)
						}
					}
					next.expect(t, "", discovery.ReasonUnhealthy)
					n.node("a").hangs(false)
					settle(time.Second)
					next.expect(t, "a", discovery.ReasonOK)
				})
			})
		}
	}
}

// A node that was believed although it is dead, since discovery insists, is believed on after a reload.
func TestReloadOfABelievedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, old := probedCluster(t)
		for _, host := range []string{"a", "b", "c"} {
			n.node(host).hangs(true)
		}
		settle(30 * time.Second)
		old.expect(t, "a", discovery.ReasonOK)
		next := reload{config: func(c *Config) { c.MaxStale++ }}.run(t, old)
		next.Start()
		old.release()
		for range 100 {
			settle(100 * time.Millisecond)
			if p := next.State().Phase(); p.Situation != Active {
				t.Fatalf("phase %v", p)
			}
		}
	})
}
