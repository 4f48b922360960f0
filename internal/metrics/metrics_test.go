// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package metrics

import (
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// serveCluster makes the running config serve a cluster of two nodes.
func serveCluster(t *testing.T) {
	t.Helper()
	addressing, err := engine.NewAddressing("https", engine.ToAuto, 0)
	if err != nil {
		t.Fatal(err)
	}
	known, log := &standin.Given{
		Nodes: []discovery.Node{
			{Name: "vault-0", ID: "0", ServiceAddress: "vault.invalid", Port: 8200, Tags: []string{"active"}},
			{Name: "vault-1", ID: "1", ServiceAddress: "other.invalid", Port: 8200, Tags: []string{"standby"}},
		},
		By: discovery.Selection{Mode: discovery.ByTag, Tag: "active", Service: "vault"},
	}, zap.NewNop()
	view, err := engine.NewPool().Acquire(known, engine.Config{Name: "vault", Addressing: addressing}, log)
	if err != nil {
		t.Fatal(err)
	}
	view.Start()
	t.Cleanup(func() { view.Release(log) })
	for changed := view.Changed(); !view.State().Active(); changed = view.Changed() {
		<-changed
	}
	t.Cleanup(registry.Add(&registry.User{View: view, Queue: new(engine.Queue), Config: t}))
	registry.Run(t)
	t.Cleanup(func() { registry.Forget(t) })
}

// TestMetricsAreWellFormed is testutil.GatherAndLint, without another module in go.mod.
func TestMetricsAreWellFormed(t *testing.T) {
	serveCluster(t)
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(collector{}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	slices.Sort(names)
	if want := metricNames(); !slices.Equal(names, want) {
		t.Errorf("gathered %q, described %q", names, want)
	}
}

// metricNames returns the names of all metrics.
func metricNames() []string {
	var names []string
	for _, d := range descriptions {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestMetricsOfOneRegistry: the collector is registered by the admin module and by each handler, in whatever order.
func TestMetricsOfOneRegistry(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	for range 3 {
		if err := Register(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
