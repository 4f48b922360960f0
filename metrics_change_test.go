// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
)

// TestMetricsAfterAFailedReload: Caddy's admin endpoint shows the registry of the config that failed, without the metrics
// of its HTTP app. Ours are there, and right.
func TestMetricsAfterAFailedReload(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "failed", node("vault-0", true))
	h := redirector(s, map[string]any{"name": "vault"})
	c.mustLoad(c.config(nil, h))
	c.awaitReason(discovery.ReasonOK)
	c.ask("/v1/x")
	was := registry.Clusters()[0].Users[0].Config
	for _, change := range []func(config map[string]any){
		func(config map[string]any) {
			config["apps"].(map[string]any)["vault_redirect_test_failing"] = map[string]any{"in": "provision"}
		},
		func(config map[string]any) {
			config["apps"].(map[string]any)["http"] = map[string]any{"servers": map[string]any{"srv0": map[string]any{"listen": []string{"nonsense:1:2"}}}}
		},
		// Remote administration without an identity fails when everything has been started, and nothing is stopped then.
		func(config map[string]any) {
			config["admin"].(map[string]any)["remote"] = map[string]any{"listen": "127.0.0.1:0"}
		},
	} {
		config := c.config(nil, h)
		change(config)
		if err := c.load(config); err == nil {
			t.Fatal("it did not fail")
		}
		if registry.Clusters()[0].Users[0].Config != was {
			t.Error("after a failed reload: another config is taken for the one that runs")
		}
		list := c.samples()
		if list[`active{cluster="vault"}`] != 1 || list[`requests_total{cluster="vault",result="redirected"}`] < 1 {
			t.Errorf("after a failed reload: %v", list)
		}
		if d := c.status(); len(d.Clusters) != 1 || !d.Clusters[0].Healthy {
			t.Errorf("after a failed reload: %+v", d)
		}
	}
	c.ask("/v1/x")
	if n := c.samples()[`requests_total{cluster="vault",result="redirected"}`]; n < 2 {
		t.Errorf("%v requests counted after a failed reload", n)
	}
}

// TestMetricsOfALoss follows a failover, and the end of max_stale, which nothing but the clock tells of.
func TestMetricsOfALoss(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "loss", node("vault-0", true), node("vault-1", false))
	c.mustLoad(c.config(nil, redirector(s, map[string]any{"name": "vault", "max_stale": "50ms"})))
	c.awaitReason(discovery.ReasonOK)
	s.Say(nil, node("vault-0", false), node("vault-1", false))
	c.awaitReason(discovery.ReasonNoActive)
	s.Say(nil, node("vault-0", false), at(node("vault-1", true), "other.invalid"))
	c.awaitReason(discovery.ReasonOK)
	list := c.samples()
	for series, want := range map[string]float64{
		`changes_total{cluster="vault"}`:                                                    2,
		`losses_total{cluster="vault",reason="no_active"}`:                                  1,
		`failover_duration_seconds_count{cluster="vault"}`:                                  1,
		`active_node_info{cluster="vault",node="vault-1",url="https://other.invalid:8200"}`: 1,
		`node_state{cluster="vault",node="vault-1",state="active"}`:                         1,
		`discovery_up{cluster="vault"}`:                                                     1,
		`stale_expiry_timestamp_seconds{cluster="vault"}`:                                   0,
		`reason{cluster="vault",reason="ok"}`:                                               1,
		`candidates{cluster="vault"}`:                                                       1,
		`held_requests_limit{cluster="vault"}`:                                              0, // hold is off
	} {
		if got, ok := list[series]; !ok || got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	gap := list[`without_active_seconds_total{cluster="vault"}`]
	if sum := list[`failover_duration_seconds_sum{cluster="vault"}`]; gap <= 0 || sum != gap {
		t.Errorf("without a node for %vs, failovers took %vs", gap, sum)
	}
	if last := list[`last_change_timestamp_seconds{cluster="vault"}`]; time.Since(time.UnixMilli(int64(last*1000))) > time.Minute {
		t.Errorf("last change at %v", last)
	}

	s.Say(unreachable)
	c.awaitReason(discovery.ReasonStaleExpired)
	c.await("the loss is counted", func() bool {
		return c.samples()[`losses_total{cluster="vault",reason="stale_expired"}`] == 1
	})
	c.await("the time counts", func() bool { return c.samples()[`without_active_seconds_total{cluster="vault"}`] > gap })
	if list := c.samples(); list[`discovery_up{cluster="vault"}`] != 0 || list[`active{cluster="vault"}`] != 0 {
		t.Errorf("after max_stale: %v", list)
	}
}
