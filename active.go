// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the modules have in common that need the active node: their options, and their life cycle.

package vaultredirect

import (
	"cmp"
	"encoding/json"
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

// Active says how the active node of a Vault cluster is found.
type Active struct {
	// Name of the cluster, in metrics, status and events. Default: the name of the service in Consul, or the host of the
	// first URL.
	Name string `json:"name,omitempty"`
	// DiscoveryRaw says where the Vault nodes are found. Default: Consul, as its environment variables say, else at
	// 127.0.0.1:8500.
	DiscoveryRaw json.RawMessage `json:"discovery,omitempty" caddy:"namespace=http.vault_redirect.discovery inline_key=source"`
	// Scheme of the redirect: https, or http for a Vault without TLS. Vault's own client follows no redirect from https
	// to http. Default: https; with discovery vault, that of the URL.
	Scheme string `json:"scheme,omitempty"`
	// RedirectTo says which address of the node to redirect to:
	//
	// - auto: the service address that Vault registered (the host of its api_addr), else the node's name
	// - node_name: the name of Consul's node
	// - node_address: the address of Consul's node
	// - service_address: the service address, else the address of the node
	// - tagged:KEY: a tagged address of the service or of the node, such as tagged:wan
	// - leader: the address that the active node itself gives at /v1/sys/leader; needs probes, and is auto where they
	//   never reached the node or do not trust its certificate
	// - a template with {node}, {node_address}, {service_address}, {datacenter}, {id} or {meta.KEY}, such as
	//   {node}.vault.example.com
	//
	// A node whose address is not a host name or an IP address is not redirected to, and one whose address is a loopback
	// address only for clients on this machine. Default: auto.
	RedirectTo string `json:"redirect_to,omitempty"`
	// Port of the redirect. Default: the one that is registered, or that of the address which redirect_to names by tagged:KEY
	// or leader; with discovery vault, that of the URL.
	Port int `json:"port,omitempty"`
	// MaxStale is how long the last known node is used while Consul cannot be asked, from the first query that failed;
	// after that, requests get 503. 0 drops the node at the first failure. A node that answers its probes and says that it
	// is active is used for as long as it does. Default: 5m.
	MaxStale *caddy.Duration `json:"max_stale,omitempty"`
	// Hold is how long requests wait for the next active node when one is lost, instead of being turned away with 503:
	// each at most for as long as this, and none later than this after the loss. A cluster that never had an active node,
	// or that lost it longer ago, is not waited for. With probes, requests wait as well while the active node leaves its
	// probe unanswered. A request leaves when its client does. 0 turns waiting off, but for up to 1s at the start.
	// Default: 50s, which is longer than a failover on Consul storage takes, and shorter than the 60s after which Vault's
	// clients give up.
	Hold *caddy.Duration `json:"hold,omitempty"`
	// HoldMax is how many requests may wait at once at this handler; those beyond are turned away. Each costs about 10 KiB
	// of memory, on top of the 20 KiB that Go's server takes for a connection. Default: 10000.
	HoldMax int `json:"hold_max,omitempty"`
	// Probe has the nodes themselves asked whether they are active. Default: mode auto.
	Probe *Probe `json:"probe,omitempty"`

	discoverer discovery.Discoverer
	view       *engine.View
	queue      *engine.Queue
	release    func() // gives the view back, once
	logger     *zap.Logger
	app        *App   // of the same config
	server     string // name of the server that it belongs to
	logged     bool   // the server has access logs
}

// Defaults.
const (
	defaultMaxStale = 5 * time.Minute
	defaultHold     = 50 * time.Second
	defaultHoldMax  = 10000
)

// pool has the views of the process, which outlive configs.
var pool = engine.NewPool()

// selfProbing is a discovery that knows nothing of who is active: its nodes must be probed, by the scheme that it knows.
type selfProbing interface {
	probing() *Probing
	checkScheme(scheme string) error
}

// provision completes the config and acquires a view of the cluster.
func (a *Active) provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.queue = &engine.Queue{Hold: orDefault(a.Hold, defaultHold), Most: int64(cmp.Or(a.HoldMax, defaultHoldMax))}
	config, err := a.complete(ctx)
	if err != nil {
		return err
	}
	a.warn(config)
	return a.acquire(ctx, config)
}

// complete loads the discovery and completes the config. It takes nothing that would have to be given back.
func (a *Active) complete(ctx caddy.Context) (engine.Config, error) {
	config := engine.Config{MaxStale: orDefault(a.MaxStale, defaultMaxStale)}
	var err error
	if config.Addressing, err = engine.NewAddressing(a.Scheme, a.RedirectTo, a.Port); err != nil {
		return config, err
	}
	if a.discoverer, err = a.loadDiscovery(ctx); err != nil {
		return config, fmt.Errorf("discovery: %w", err)
	}
	if own, ok := a.discoverer.(selfProbing); ok {
		if err := own.checkScheme(a.Scheme); err != nil {
			return config, err
		}
	}
	if config.Probe, err = a.engineProbe(); err != nil {
		return config, fmt.Errorf("probe: %w", err)
	}
	if config.Addressing.Leader() && config.Probe.Mode == engine.ProbeOff {
		return config, errors.New("redirect_to: leader needs probes: only the nodes themselves know it")
	}
	if err := checkSelection(a.discoverer, config.Probe.Mode); err != nil {
		return config, fmt.Errorf("discovery: %w", err)
	}
	config.Name = cmp.Or(a.Name, clusterName(a.discoverer))
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
func (a *Active) warn(c engine.Config) {
	if d, ok := a.discoverer.(interface{ unverified() bool }); ok && d.unverified() {
		a.logger.Warn("the certificate of Consul is not verified: who sits in between can send clients, and their tokens, anywhere",
			zap.String("consul", a.discoverer.Endpoint()))
	}
	if c.Probe.TLS != nil && c.Probe.TLS.InsecureSkipVerify {
		a.logger.Warn("the certificates of the Vault nodes are not verified by the probes: who sits in between can send clients, and their tokens, anywhere")
	}
}

// acquire takes the view, and has it started with the config.
func (a *Active) acquire(ctx caddy.Context, config engine.Config) error {
	app, err := ctx.App(appID)
	if err != nil {
		return err
	}
	if err := registerMetrics(ctx); err != nil {
		return err
	}
	view, err := pool.Acquire(a.discoverer, config, a.logger)
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	a.view, a.app = view, app.(*App)
	addFront(a)
	a.release = sync.OnceFunc(func() {
		removeFront(a)
		view.Release(a.logger)
	})
	a.app.use(view)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		a.server, a.logged = server.Name(), server.Logs != nil
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
func checkSelection(d discovery.Discoverer, mode engine.Mode) error {
	switch by := d.Selection().Mode; {
	case by == discovery.ByAuto, by == discovery.ByTag, by == discovery.ByCheck, by == discovery.ByProbe && mode == engine.ProbeStrict:
		return nil
	case by == discovery.ByProbe:
		return errors.New("only the nodes themselves can tell which is active: it needs probe strict")
	default:
		return fmt.Errorf("%T selects by %q, which is not auto, tag, check or probe", d, by)
	}
}

// loadDiscovery returns the discovery of the config, or Consul if it names none.
func (a *Active) loadDiscovery(ctx caddy.Context) (discovery.Discoverer, error) {
	if len(a.DiscoveryRaw) == 0 {
		c := new(Consul)
		return c, c.Provision(ctx)
	}
	mod, err := ctx.LoadModule(a, "DiscoveryRaw")
	if err != nil {
		return nil, err
	}
	d, ok := mod.(discovery.Discoverer)
	if !ok {
		return nil, fmt.Errorf("module %T is not a discovery of Vault nodes", mod)
	}
	return d, nil
}

// engineProbe returns the settings of the probes as the engine takes them.
func (a *Active) engineProbe() (engine.Probe, error) {
	own, ok := a.discoverer.(selfProbing)
	switch {
	case ok && a.Probe != nil:
		return engine.Probe{}, errors.New("this discovery probes by itself: put interval, timeout, fall and tls there")
	case ok:
		return own.probing().engine(engine.ProbeStrict)
	}
	probe := a.Probe
	if probe == nil {
		probe = new(Probe)
	}
	mode, err := probe.mode()
	if err != nil {
		return engine.Probe{}, err
	}
	return probe.engine(mode)
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

// cleanup gives back the view, if there is one. Requests may still be under way, and read it; the engine keeps it for
// those that wait.
func (a *Active) cleanup() error {
	if a.release != nil {
		a.release()
	}
	return nil
}
