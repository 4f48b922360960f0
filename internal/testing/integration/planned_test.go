// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// After the step-down, which costs what is in flight, nothing of the work on that node costs a read.
func TestPlannedWorkInMaintenance(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{})
	mountKV(t, c)
	caddy := runCaddy(t, "", "http://{ip}:8080 {\n\tvault_redirect "+c.Consuls[0].HTTPAddr+" {\n\t\tscheme http\n\t}\n}")
	site := "http://" + caddy.IP + ":8080"
	old, err := c.WaitActive(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	caddy.awaitTarget(site, old.URL)
	if err := old.StepDown(timeout(t)); err != nil {
		t.Fatal(err)
	}
	next, err := c.WaitActive(timeout(t), old)
	if err != nil {
		t.Fatal(err)
	}
	caddy.awaitTarget(site, next.URL)
	agent := c.Consuls[0].API().Agent()
	r := startReaders(t, c, site)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"nothing", func() error { return nil }},
		{"maintenance", func() error { return agent.EnableServiceMaintenance(old.ServiceID, "by the test") }},
		{"stop", func() error { return old.Stop(timeout(t)) }},
		{"start and unsealing", func() error { return old.Restart(timeout(t)) }},
		{"the end of maintenance", func() error { return agent.DisableServiceMaintenance(old.ServiceID) }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		r.more(t, 300)
		for _, f := range r.take() {
			t.Errorf("%s: a read at %s failed: %v", step.name, f.node, f.err)
		}
		if h := readHealth(t, site); h.RedirectTo != next.URL {
			t.Errorf("%s: %+v, want %s", step.name, h, next.URL)
		}
	}
	t.Logf("%d reads, none failed", r.count.Load())
}
