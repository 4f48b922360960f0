// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// The active node leaves the probes unanswered, as behind a firewall, and Consul calls it active and passing: requests
// wait, then are led to it again, and never elsewhere.
func TestCutOffFromTheActiveNode(t *testing.T) {
	t.Parallel()
	cluster := standin.RunCluster(t, 3)
	caddy := runCaddy(t, "", "http://{ip}:8080 {\n\tvault_redirect "+cluster.Consul.Addr()+" {\n\t\tscheme http\n\t}\n}")
	site, active := "http://"+caddy.IP+":8080", cluster.Active()
	caddy.awaitTarget(site, active.URL())

	began := time.Now()
	active.Hang(true)
	t.Cleanup(func() { active.Hang(false) })
	caddy.awaitReason(site, "unhealthy")
	_, location, body := get(t, site+"/v1/x")
	if location != active.URL()+"/v1/x" {
		t.Errorf("led to %q, want the node that Consul insists on: %s", location, body)
	}
	// It was dead after three probes of a second each, and is believed again 15 s later.
	if waited := time.Since(began); waited < 15*time.Second {
		t.Errorf("believed again after %s", waited)
	}
	// What is logged may be written a little later than it is so.
	caddy.await("the log says why", func() bool {
		return strings.Contains(caddy.Log(), "Consul reports it healthy") && strings.Contains(caddy.Log(), "no answer in time")
	})
	if h := readHealth(t, site); !h.Healthy || h.RedirectTo != active.URL() {
		t.Errorf("health %+v", h)
	}
}
