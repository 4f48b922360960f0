// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the modules have in common that need the active node: their options, and their life cycle.

package vaultredirect

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Defaults.
const (
	defaultMaxStale = 5 * time.Minute
	defaultHold     = 50 * time.Second
	defaultHoldMax  = 10000
)

// pool has the views of the process, which outlive configs.
var pool = engine.NewPool()

// provisionView completes the config and acquires a view of the cluster.
func (h *Handler) provisionView(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.queue = &engine.Queue{Hold: orDefault(h.Hold, defaultHold), Most: int64(cmp.Or(h.HoldMax, defaultHoldMax))}
	config, err := h.complete(ctx)
	if err != nil {
		return err
	}
	h.warn(config)
	return h.acquire(ctx, config)
}

// complete loads the discovery and completes the config. It takes nothing that would have to be given back.
func (h *Handler) complete(ctx caddy.Context) (engine.Config, error) {
	config := engine.Config{MaxStale: orDefault(h.MaxStale, defaultMaxStale)}
	var err error
	if config.Addressing, err = engine.NewAddressing(h.Scheme, h.RedirectTo, h.Port); err != nil {
		return config, err
	}
	if h.discoverer, err = h.loadDiscovery(ctx); err != nil {
		return config, fmt.Errorf("discovery: %w", err)
	}
	if d, ok := h.discoverer.(interface{ checkScheme(scheme string) error }); ok {
		if err := d.checkScheme(h.Scheme); err != nil {
			return config, err
		}
	}
	if config.Probe, err = cmp.Or(h.Probe, new(Probe)).engine(h.discoverer.Selection().Mode); err != nil {
		return config, fmt.Errorf("probe: %w", err)
	}
	if config.Addressing.Leader() && config.Probe.Mode == engine.ProbeOff {
		return config, errors.New("redirect_to: leader needs probes: only the nodes themselves know it")
	}
	if err := checkSelection(h.discoverer); err != nil {
		return config, fmt.Errorf("discovery: %w", err)
	}
	config.Name = cmp.Or(h.Name, clusterName(h.discoverer))
	return config, nil
}

func orDefault(d *caddy.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return time.Duration(*d)
}

// clusterName is the default name of the cluster that a discovery watches.
func clusterName(d discovery.Discoverer) string {
	if named, ok := d.(interface{ clusterName() string }); ok {
		return named.clusterName()
	}
	return d.Endpoint()
}

// warn says what is dangerous about a config that is right.
func (h *Handler) warn(c engine.Config) {
	if d, ok := h.discoverer.(interface{ unverified() bool }); ok && d.unverified() {
		h.logger.Warn("the certificate of Consul is not verified: who sits in between can send clients, and their tokens, anywhere",
			zap.String("consul", h.discoverer.Endpoint()))
	}
	if c.Probe.TLS != nil && c.Probe.TLS.InsecureSkipVerify {
		h.logger.Warn("the certificates of the Vault nodes are not verified by the probes: who sits in between can send clients, and their tokens, anywhere")
	}
}

// acquire takes the view, and has it started with the config.
func (h *Handler) acquire(ctx caddy.Context, config engine.Config) error {
	app, err := ctx.App(appID)
	if err != nil {
		return err
	}
	if err := registerMetrics(ctx); err != nil {
		return err
	}
	view, err := pool.Acquire(h.discoverer, config, h.logger)
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	h.view, h.app = view, app.(*App)
	addFront(h)
	h.release = sync.OnceFunc(func() {
		removeFront(h)
		view.Release(h.logger)
	})
	h.app.use(view)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		h.server, h.logged = server.Name(), server.Logs != nil
		server.RegisterOnShutdown(func() {
			// At the end of the process, nobody is to wait any more, of whatever config. With a mere reload, the node that
			// requests wait for is the same.
			if caddy.Exiting() {
				pool.End()
			}
		})
	}
	return nil
}

// checkSelection checks what a discovery, which may be somebody else's module, says of what marks the active node.
func checkSelection(d discovery.Discoverer) error {
	switch by := d.Selection().Mode; {
	case by == discovery.ByAuto, by == discovery.ByTag, by == discovery.ByCheck, by == discovery.ByProbe:
		return nil
	default:
		return fmt.Errorf("%T selects by %q, which is not auto, tag, check or probe", d, by)
	}
}

// loadDiscovery returns the discovery of the config, or Consul if it names none.
func (h *Handler) loadDiscovery(ctx caddy.Context) (discovery.Discoverer, error) {
	if len(h.DiscoveryRaw) == 0 {
		c := new(Consul)
		return c, c.Provision(ctx)
	}
	mod, err := ctx.LoadModule(h, "DiscoveryRaw")
	if err != nil {
		return nil, err
	}
	d, ok := mod.(discovery.Discoverer)
	if !ok {
		return nil, fmt.Errorf("module %T is not a discovery of Vault nodes", mod)
	}
	return d, nil
}

// validateView checks what can be wrong by itself.
func (h *Handler) validateView() error {
	switch {
	case h.MaxStale != nil && *h.MaxStale < 0:
		return fmt.Errorf("max_stale: %s is negative (0 drops the last known node at the first failure)", time.Duration(*h.MaxStale))
	case h.Hold != nil && *h.Hold < 0:
		return fmt.Errorf("hold: %s is negative (0 turns requests away at once)", time.Duration(*h.Hold))
	case h.HoldMax < 0:
		return fmt.Errorf("hold_max: %d is negative (hold 0 turns waiting off)", h.HoldMax)
	}
	return nil
}

// cleanupView gives back the view, if there is one. Requests may still be under way, and read it; the engine keeps it for
// those that wait.
func (h *Handler) cleanupView() error {
	if h.release != nil {
		h.release()
	}
	return nil
}
