// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the modules have in common that need the active node: their config, and how a request waits for one.

package vaultredirect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// Active says how the active node of a Vault cluster is found.
type Active struct {
	// DiscoveryRaw says where the Vault nodes are found. Default: Consul, as its environment variables say, else at
	// 127.0.0.1:8500.
	DiscoveryRaw json.RawMessage `json:"discovery,omitempty" caddy:"namespace=http.vault_redirect.discovery inline_key=source"`
	// Scheme of the redirect: https, or http for a Vault without TLS. Vault's own client follows no redirect from https
	// to http. Default: https.
	Scheme string `json:"scheme,omitempty"`
	// RedirectTo says which address of the node to redirect to:
	//
	// - auto: the service address that Vault registered (the host of its api_addr), else the node's name
	// - node_name: the name of Consul's node
	// - node_address: the address of Consul's node
	// - service_address: the service address, else the address of the node
	// - tagged:KEY: a tagged address of the service or of the node, such as tagged:wan
	// - a template with {node}, {node_address}, {service_address}, {datacenter}, {id} or {meta.KEY}, such as
	//   {node}.vault.example.com
	//
	// A node whose address is not a host name or an IP address is not redirected to. Default: auto.
	RedirectTo string `json:"redirect_to,omitempty"`
	// Port of the redirect. Default: the one that is registered.
	Port int `json:"port,omitempty"`
	// MaxStale is how long the last known node is used while Consul cannot be asked, from the first query that failed;
	// after that, requests get 503. 0 drops the node at the first failure. Default: 5m.
	MaxStale *caddy.Duration `json:"max_stale,omitempty"`
	// Hold is how long after the loss of the active node requests wait for the next one instead of being turned away. A
	// request waits at most until then, and leaves when its client does. A cluster that never had an active node, or that
	// lost it longer ago, is not waited for. With probes, requests wait as well while the active node does not answer them.
	// 0 turns it off. Default: 5s.
	Hold *caddy.Duration `json:"hold,omitempty"`
	// HoldMax is how many requests may wait at once; those beyond are turned away. Each costs about 20 KiB of memory.
	// Default: 1024.
	HoldMax int `json:"hold_max,omitempty"`
	// Probe has the nodes themselves asked whether they are active. Default: they are not, unless the discovery is vault.
	Probe *Probe `json:"probe,omitempty"`

	discovery Discovery
	view      *view
	released  *sync.Once // of the view
	logger    *zap.Logger
	hold      time.Duration
	holdMax   int64
	waiting   *atomic.Int64
	ending    chan struct{} // closed when the process is about to end
}

// Defaults.
const (
	defaultMaxStale = 5 * time.Minute
	defaultHold     = 5 * time.Second
	defaultHoldMax  = 1024
	releasePoll     = 50 * time.Millisecond
)

// selfProbing is a discovery that knows nothing of who is active: its nodes must be probed, by the scheme that it knows.
type selfProbing interface {
	probes() *Probe
	checkScheme(scheme string) error
}

// provision completes the config and acquires a view of the cluster.
func (a *Active) provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.waiting, a.ending = new(atomic.Int64), make(chan struct{})
	maxStale := defaultMaxStale
	if a.MaxStale != nil {
		maxStale = time.Duration(*a.MaxStale)
	}
	a.hold, a.holdMax = defaultHold, defaultHoldMax
	if a.Hold != nil {
		a.hold = time.Duration(*a.Hold)
	}
	if a.HoldMax != 0 {
		a.holdMax = int64(a.HoldMax)
	}
	addressing, err := newAddressing(a.Scheme, a.RedirectTo, a.Port)
	if err != nil {
		return err
	}
	if a.discovery, err = a.loadDiscovery(ctx); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	if own, ok := a.discovery.(selfProbing); ok {
		if err := own.checkScheme(a.Scheme); err != nil {
			return err
		}
	}
	probe, err := a.probeConfig()
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	probing := probe != probeConfig{}
	if probe.leader = addressing.redirectTo == toLeader; probe.leader && !probing {
		return errors.New("redirect_to: leader needs probe, or discovery vault: only the nodes themselves know it")
	}
	if err := a.checkSelection(probing); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	app, err := ctx.App(appID)
	if err != nil {
		return err
	}
	config := viewConfig{policy{a.discovery.Selection(), addressing, probing}, maxStale, probe}
	if a.view, err = acquire(a.discovery, config, a.logger); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	a.released = new(sync.Once)
	app.(*App).use(a.view)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterOnShutdown(sync.OnceFunc(func() {
			// Only at the end of the process: with the next config, the node that is waited for is the same.
			if caddy.Exiting() {
				close(a.ending)
			}
		}))
	}
	return nil
}

// checkSelection checks what a discovery, which may be somebody else's module, says of how to select.
func (a *Active) checkSelection(probing bool) error {
	switch mode := a.discovery.Selection().Mode; {
	case mode == selectAuto, mode == selectTag, mode == selectCheck, mode == selectProbe && probing:
		return nil
	case mode == selectProbe:
		return errors.New("only the nodes themselves can tell which is active: it needs probe")
	default:
		return fmt.Errorf("%T selects by %q, which is not auto, tag, check or probe", a.discovery, mode)
	}
}

// loadDiscovery returns the discovery of the config, or Consul if it names none.
func (a *Active) loadDiscovery(ctx caddy.Context) (Discovery, error) {
	if len(a.DiscoveryRaw) == 0 {
		c := new(Consul)
		return c, c.Provision(ctx)
	}
	mod, err := ctx.LoadModule(a, "DiscoveryRaw")
	if err != nil {
		return nil, err
	}
	d, ok := mod.(Discovery)
	if !ok {
		return nil, fmt.Errorf("module %T is not a discovery of Vault nodes", mod)
	}
	return d, nil
}

// probeConfig returns the settings of the probes, the zero value if there are none.
func (a *Active) probeConfig() (probeConfig, error) {
	own, ok := a.discovery.(selfProbing)
	switch {
	case ok && a.Probe != nil:
		return probeConfig{}, errors.New("this discovery probes by itself: put interval, timeout and tls there")
	case ok:
		return own.probes().config()
	case a.Probe != nil:
		return a.Probe.config()
	}
	return probeConfig{}, nil
}

// validate checks what can be wrong by itself.
func (a *Active) validate() error {
	switch {
	case a.MaxStale != nil && *a.MaxStale < 0:
		return fmt.Errorf("max_stale: %s is negative (0 drops the last known node at the first failure)", time.Duration(*a.MaxStale))
	case a.Hold != nil && *a.Hold < 0:
		return fmt.Errorf("hold: %s is negative (0 turns requests away at once)", time.Duration(*a.Hold))
	case a.HoldMax < 0:
		return fmt.Errorf("hold_max: %d is negative (hold 0 turns waiting off)", a.HoldMax)
	}
	return nil
}

// cleanup releases the view, if there is one. Requests may still be under way, and read it; while some wait, which they do
// for hold at the most, it is kept for them: Caddy does not wait for them when it replaces a config.
func (a *Active) cleanup() error {
	if a.view == nil {
		return nil
	}
	var err error
	a.released.Do(func() {
		if a.waiting.Load() == 0 || caddy.Exiting() {
			err = a.view.release(a.logger)
			return
		}
		go func() {
			for a.waiting.Load() > 0 && !caddy.Exiting() {
				pause(context.Background(), releasePoll)
			}
			_ = a.view.release(a.logger)
		}()
	})
	return err
}

// current returns the state for a request. While the active node has been lost for less than hold, or leaves a probe
// unanswered, it waits for the next one, if not too many do already.
func (a *Active) current(ctx context.Context) *state {
	s := a.view.load(ctx)
	if a.hold == 0 || !s.waits() {
		return s
	}
	left := time.Until(s.waitsSince().Add(a.hold))
	if left <= 0 {
		return s
	}
	if a.waiting.Add(1) > a.holdMax {
		a.waiting.Add(-1)
		return s
	}
	defer a.waiting.Add(-1)
	timer := time.NewTimer(left)
	defer timer.Stop()
	for s.waits() {
		select {
		case <-s.changed: // closed for all who wait, at once
			s = a.view.current.Load()
			timer.Reset(time.Until(s.waitsSince().Add(a.hold))) // a node may be mute first, and then lost
		case <-timer.C:
			return s
		case <-a.ending:
			return s
		case <-ctx.Done():
			return s
		}
	}
	return s
}
