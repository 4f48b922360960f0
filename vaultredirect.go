// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package vaultredirect is a Caddy HTTP handler that knows which node of a HashiCorp Vault cluster is active and answers
// every request with a 307 Temporary Redirect to that node.
//
// This package has the options, the Caddyfile and the life cycle. The active node is found by internal/engine, with the nodes that
// a module of package discovery returns.
package vaultredirect

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/fastlane"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/match"
	"github.com/vault-redirector/caddy-vault-redirect/internal/metrics"
	"github.com/vault-redirector/caddy-vault-redirect/internal/proxy"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	_ "github.com/vault-redirector/caddy-vault-redirect/statuspage" // so that importing this package registers every module
)

func init() { caddy.RegisterModule(Handler{}) }

// Handler answers every request with a 307 Temporary Redirect to the same path and query on the active node of a
// HashiCorp Vault cluster. Clients then talk to Vault directly: Vault sees their IP address, and its answers do not pass through
// Caddy. It stores nothing, so any number of instances may run behind a load balancer.
//
// During a failover, requests wait for the next active node. While there is none, it answers 503 with a Retry-After header, in the
// form of Vault's errors, or passes the request on to the next handler if PassThru is set.
type Handler struct {
	// Name of the cluster, in metrics, status and events. Default: the name of the service in Consul, or the host of the
	// first URL.
	Name string `json:"name,omitempty"`
	// DiscoveryRaw is the module that finds the Vault nodes. Default: Consul, as its environment variables say, else at
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
	// - leader: the address that the active node itself returns at /v1/sys/leader; needs probes, and is auto if they have
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
	// Hold is how long requests wait for the next active node when one is lost, before they are rejected with 503: a request
	// waits no longer than this, and until this time after the loss at most. Requests do not wait if the cluster never had an
	// active node. With probes, requests also wait while the active node does not answer a probe. A request stops waiting when
	// its client leaves. 0 turns waiting off, except for up to 1s at the start.
	// Default: 50s, which is longer than a failover on Consul storage takes, and shorter than the 60s after which Vault's
	// clients give up.
	Hold *caddy.Duration `json:"hold,omitempty"`
	// HoldMax is how many requests may wait at once at this handler; more are rejected. One client address may use a tenth of
	// these places, and so may all requests together whose clients could leave unnoticed. Each request that waits costs about
	// 10 KiB of memory, besides the 20 KiB of its connection in Go's server. Default: 10000.
	HoldMax int `json:"hold_max,omitempty"`
	// Probe asks the nodes themselves whether they are active. Default: mode auto.
	Probe *Probe `json:"probe,omitempty"`

	// HealthPath is the path of the health endpoint, compared as a whole and as this handler sees it. It answers GET and HEAD
	// with 200 if a request would be redirected now, with 503 if not or if this process is shutting down, and with a JSON
	// document that says why.
	// Below it are /ready, which is 503 only if another instance of the redirector may do better (this one is shutting down,
	// or its discovery fails), and /live, which is 200 while requests are answered at all. "off" turns all three off.
	// Default: /vault-redirector-health.
	HealthPath string `json:"health_path,omitempty"`
	// LogHealth logs requests for the health endpoints like others. Without it, the access log has one line, at level WARN, when
	// such an answer changes from 200 to 503, and no others. Default: false.
	LogHealth bool `json:"log_health,omitempty"`
	// RetryAfter is the value of the Retry-After header of a 503, rounded up to whole seconds. Default: 1s.
	RetryAfter caddy.Duration `json:"retry_after,omitempty"`

	// Proxy selects requests that are proxied instead of redirected. Default: none.
	Proxy *Proxy `json:"proxy,omitempty"`
	// Standby selects requests that a standby may answer, which are redirected to one. Default: none.
	Standby *Standby `json:"standby,omitempty"`
	// PassThru gives requests to the next handler that would get 503 otherwise, after they have waited as hold says: to
	// another vault_redirect, for a cluster in another datacenter, or to an error page. The bodies of such requests are not read while
	// they wait. Requests for the health endpoints, those that are no path (400) and redirect loops (508) are not passed on, nor
	// is a proxied request of whose body something was read. If no handler answers it, the request gets its 503.
	// Default: false.
	PassThru bool `json:"pass_thru,omitempty"`

	discoverer discovery.Discoverer
	redirector *redirect.Redirector
	proxied    *proxy.Proxy // nil: no request is
	release    func()       // releases the view, once
	logger     *zap.Logger
	healthPath string
	last       *lastReported
}

// Defaults and special values.
const (
	defaultHealthPath = "/vault-redirector-health"
	healthOff         = "off"
	defaultRetryAfter = time.Second
	defaultMaxStale   = 5 * time.Minute
	defaultHold       = 50 * time.Second
	defaultHoldMax    = 10000
)

// pool has the clusters and views of the process, which outlive configs.
var pool = engine.NewPool()

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.vault_redirect",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler. It does not use the network: the app starts the watcher once the config is run.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger, h.last = ctx.Logger(), new(lastReported)
	if h.healthPath = cmp.Or(h.HealthPath, defaultHealthPath); h.healthPath == healthOff {
		h.healthPath = ""
	}
	config, err := h.complete(ctx)
	if err != nil {
		return err
	}
	h.warn(config)
	if h.Standby != nil {
		if err := h.Standby.provision(ctx); err != nil {
			return fmt.Errorf("standby: %w", err)
		}
	}
	if err := h.acquire(ctx, config); err != nil {
		return err
	}
	if h.Proxy != nil {
		if err := h.Proxy.provision(ctx, h); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
	}
	lane := fastlane.Handler{Redirector: h.redirector, Owns: func(path []byte) bool {
		return bytes.HasPrefix(path, []byte(h.healthPath)) && h.healthEndpoint(string(path)) != nil
	}}
	if h.Proxy != nil || h.Standby != nil {
		lane.KindOf, lane.OnlyByPath = h.kindOf, h.onlyByPath()
	}
	return fastlane.Join(ctx, lane)
}

// complete loads the discovery and completes the config. It acquires nothing that must be released.
func (h *Handler) complete(ctx caddy.Context) (engine.Config, error) {
	config := engine.Config{MaxStale: orDefault(h.MaxStale, defaultMaxStale), Standbys: h.Standby != nil}
	var err error
	if config.Addressing, err = engine.NewAddressing(h.Scheme, h.RedirectTo, h.Port); err != nil {
		return config, err
	}
	if h.discoverer, err = h.loadDiscovery(ctx); err != nil {
		return config, fmt.Errorf("discovery: %w", err)
	}
	if d, ok := h.discoverer.(discovery.SchemeChecker); ok {
		if err := d.CheckScheme(h.Scheme); err != nil {
			return config, err
		}
	}
	if config.Probe, err = cmp.Or(h.Probe, new(Probe)).engine(h.discoverer.Selection().Mode); err != nil {
		return config, fmt.Errorf("probe: %w", err)
	}
	if config.Addressing.Leader() && config.Probe.Mode == engine.ProbeOff {
		return config, errors.New("redirect_to: leader needs probes: only the nodes themselves know it")
	}
	if err := h.Standby.check(h); err != nil {
		return config, err
	}
	if err := checkSelection(h.discoverer); err != nil {
		return config, fmt.Errorf("discovery: %w", err)
	}
	config.Name = cmp.Or(h.Name, discovery.ClusterName(h.discoverer))
	return config, nil
}

func orDefault(d *caddy.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return time.Duration(*d)
}

// warn logs what is dangerous about a valid config.
func (h *Handler) warn(c engine.Config) {
	if u, ok := h.discoverer.(discovery.Unverified); ok && u.Unverified() {
		h.logger.Warn("discovery does not verify the certificate of its server: a man in the middle can redirect clients, and their tokens, to any host",
			zap.String("source", discovery.SourceName(h.discoverer)), zap.String("endpoint", h.discoverer.Endpoint()))
	}
	if !c.Probe.Verifies() {
		h.logger.Warn("the probes do not verify the certificates of the Vault nodes: a man in the middle can redirect clients, and their tokens, to any host")
	}
}

// acquire acquires the view, which the app starts with the config.
func (h *Handler) acquire(ctx caddy.Context, config engine.Config) error {
	app, err := ctx.App(appID)
	if err != nil {
		return err
	}
	if err := metrics.Register(ctx); err != nil {
		return err
	}
	view, err := pool.Acquire(h.discoverer, config, h.logger)
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	retryAfter := cmp.Or(time.Duration(h.RetryAfter), defaultRetryAfter)
	h.redirector = &redirect.Redirector{
		View:       view,
		Queue:      &engine.Queue{Hold: orDefault(h.Hold, defaultHold), Most: int64(cmp.Or(h.HoldMax, defaultHoldMax))},
		RetryAfter: []string{strconv.FormatInt(int64((retryAfter+time.Second-1)/time.Second), 10)},
		Log:        h.logger,
	}
	user := &registry.User{View: view, Queue: h.redirector.Queue, Config: app}
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		user.Server, h.redirector.AccessLog = server.Name(), server.Logs != nil
		server.RegisterOnShutdown(func() {
			// When the process ends, no request of any config may wait any more. After a reload, requests go on waiting.
			if caddy.Exiting() {
				pool.End()
			}
		})
	}
	remove := registry.Add(user)
	h.release = sync.OnceFunc(func() {
		remove()
		view.Release(h.logger)
	})
	a := app.(*App)
	a.views = append(a.views, view) // Caddy provisions modules one after another
	return nil
}

// checkSelection checks the mode of a discovery, which may be another plugin's module.
func checkSelection(d discovery.Discoverer) error {
	by := d.Selection().Mode
	if !slices.Contains([]string{discovery.ByAuto, discovery.ByTag, discovery.ByCheck, discovery.ByProbe}, by) {
		return fmt.Errorf("%T selects by %q, which is not auto, tag, check or probe", d, by)
	}
	return nil
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

// Validate checks the options.
func (h *Handler) Validate() error {
	if err := checkHealthPath(cmp.Or(h.HealthPath, defaultHealthPath)); err != nil {
		return err
	}
	switch {
	case h.RetryAfter < 0:
		return fmt.Errorf("retry_after: %s is negative", time.Duration(h.RetryAfter))
	case h.MaxStale != nil && *h.MaxStale < 0:
		return fmt.Errorf("max_stale: %s is negative (0 drops the last known node at the first failure)", time.Duration(*h.MaxStale))
	case h.Hold != nil && *h.Hold < 0:
		return fmt.Errorf("hold: %s is negative (0 rejects requests at once)", time.Duration(*h.Hold))
	case h.HoldMax < 0:
		return fmt.Errorf("hold_max: %d is negative (hold 0 turns waiting off)", h.HoldMax)
	}
	return nil
}

func checkHealthPath(path string) error {
	switch {
	case path == healthOff:
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("health_path: %q is neither a path that begins with / nor off", path)
	case path == "/", path == "/v1", strings.HasPrefix(path, "/v1/"):
		return fmt.Errorf("health_path: %q would hide that path of Vault's own API", path)
	}
	return nil
}

// Cleanup releases what Provision acquired. Requests may still be running and read the view; the engine keeps it while any wait.
func (h *Handler) Cleanup() error {
	if h.release != nil {
		h.release()
	}
	return h.proxied.Cleanup()
}

// ServeHTTP answers the request. It writes the answer itself and returns nil, unless it passes the request on: then it returns what the
// next handler returns.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !h.PassThru {
		next = nil
	}
	if r.ProtoMajor < 3 && caddy.Exiting() { // over HTTP/3, an answer with this header would be malformed
		redirect.CloseConnection(w.Header())
	}
	redirect.CloseIfReplaced(w, r)
	if serve := h.healthEndpoint(r.URL.Path); serve != nil {
		return serve(w, r)
	}
	path, ok := redirect.RequestPath(r)
	if !ok {
		return h.redirector.RefuseBad(w, r, "the request target is not a path: there is nothing to redirect to")
	}
	kind, err := h.kindOf(r)
	if h.Proxy != nil || h.Standby != nil {
		redirect.CloseIfReplaced(w, r) // a matcher may have done it
	}
	switch {
	case err != nil: // it is not known whether the request must be proxied
		return h.redirector.RefuseBad(w, r, "the request could not be matched")
	case kind == redirect.ToProxy:
		return h.proxied.Serve(w, r, next)
	}
	return h.redirector.Redirect(w, r, path, kind, next)
}

// kindOf returns how a request gets to a node. An error means that it is not known whether it must be proxied.
func (h *Handler) kindOf(r *http.Request) (redirect.Kind, error) {
	proxied, err := h.Proxy.matches(r)
	switch {
	case proxied || err != nil:
		return redirect.ToProxy, err
	case h.Standby.matches(r):
		return redirect.ToStandby, nil
	}
	return redirect.ToRedirect, nil
}

// onlyByPath returns an error if no request is redirected, or if how one gets to a node depends on more than its path and method.
func (h *Handler) onlyByPath() error {
	if h.Proxy != nil {
		if h.Proxy.All {
			return errors.New("proxy all: no request is redirected")
		}
		if err := match.OnlyByPath(h.Proxy.matchers); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
	}
	if h.Standby != nil {
		if err := match.OnlyByPath(h.Standby.matchers); err != nil {
			return fmt.Errorf("standby: %w", err)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
