// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// awaitReason waits for the first cluster to have a reason.
func (c *testCaddy) awaitReason(reason discovery.Reason) {
	c.t.Helper()
	c.await("reason "+string(reason), func() bool {
		d := c.status()
		return len(d.Clusters) > 0 && d.Clusters[0].Reason == reason
	})
}

// await waits for something to be so.
func (c *testCaddy) await(what string, ok func() bool) {
	c.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			c.t.Fatal("not in time: " + what)
		}
	}
}

// ask sends a request to the site.
func (c *testCaddy) ask(path string) (code int, location string) {
	c.t.Helper()
	resp, _ := c.do("GET", "http://"+c.site+path)
	return resp.StatusCode, resp.Header.Get("Location")
}

// samples returns the samples of our metrics by name and labels, as Caddy's admin endpoint shows them.
func (c *testCaddy) samples() map[string]float64 {
	c.t.Helper()
	resp, body := c.do("GET", "http://admin/metrics")
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("/metrics: status %d: %s", resp.StatusCode, body)
	}
	list := map[string]float64{}
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, "caddy_vault_redirect_"); ok {
			i := strings.LastIndex(rest, " ")
			var value float64
			if _, err := fmt.Sscan(rest[i:], &value); err != nil {
				c.t.Fatalf("%s: %v", line, err)
			}
			list[rest[:i]] = value
		}
	}
	return list
}
