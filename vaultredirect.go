// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the handler: its config, its life cycle, and the answers to requests.

// Package vaultredirect is a Caddy HTTP handler that knows which node of a HashiCorp Vault cluster is active and answers
// every request with a 307 Temporary Redirect to that node.
//
// This package is what Caddy sees: options, Caddyfile, answers to requests. Who is active is known by internal/engine, from
// what a module of the contract in package discovery tells it.
package vaultredirect

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

func init() { caddy.RegisterModule(Handler{}) }

// Handler answers every request with a 307 Temporary Redirect to the same path and query on the active node of a
// HashiCorp Vault cluster. Clients then talk to Vault directly: Vault sees their IP address, and its answers pass through
// nothing in between. It keeps no state of its own, so any number of instances may stand behind a load balancer.
//
// While a failover goes on, requests wait for the next active node. While there is none, it answers 503 with a Retry-After
// header, in the form in which Vault reports errors. It never passes a request on to the next handler.
type Handler struct {
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
	// HoldMax is how many requests may wait at once at this handler; those beyond are turned away. Of these places, one client
	// address has at most a tenth, as have, in all, those whose client could leave unnoticed. Each request that waits costs
	// about 10 KiB of memory, on top of the 20 KiB that Go's server takes for a connection. Default: 10000.
	HoldMax int `json:"hold_max,omitempty"`
	// Probe has the nodes themselves asked whether they are active. Default: mode auto.
	Probe *Probe `json:"probe,omitempty"`

	// HealthPath is the path of the health endpoint, compared as a whole and as this handler sees it. It answers GET and
	// HEAD with 200 if a request would be redirected now and with 503 if not, or when this process is about to end, and with
	// a JSON document that says why.
	// Below it are /ready, which is 503 only where another copy of the redirector may do better (this one is about to end,
	// or cannot ask discovery), and /live, which is 200 while requests are answered at all. "off" turns all three off.
	// Default: /vault-redirector-health.
	HealthPath string `json:"health_path,omitempty"`
	// LogHealth has requests for the health endpoints logged like others. Without it, the access log has one line when such
	// an answer changes from 200 to 503, at level WARN, and no others. Default: false.
	LogHealth bool `json:"log_health,omitempty"`
	// RetryAfter is what the Retry-After header of a 503 says, rounded up to whole seconds. Default: 1s.
	RetryAfter caddy.Duration `json:"retry_after,omitempty"`

	// Proxy has some requests proxied instead of redirected. Default: none.
	Proxy *Proxy `json:"proxy,omitempty"`

	healthPath string
	retryAfter []string
	memory     *memory
	discoverer discovery.Discoverer
	view       *engine.View
	queue      *engine.Queue
	release    func() // gives the view back, once
	logger     *zap.Logger
	app        *App   // of the same config
	server     string // name of the server that it belongs to
	logged     bool   // the server has access logs
}

// memory is what a handler remembers of requests.
type memory struct {
	last    atomic.Pointer[placeholders] // of the last one that did not wait
	unwell  atomic.Bool                  // the last check of health was answered with 503,
	unready atomic.Bool                  // or that of readiness
}

// Defaults and special values.
const (
	defaultHealthPath = "/vault-redirector-health"
	healthOff         = "off"
	defaultRetryAfter = time.Second
)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.vault_redirect",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler. It does not use the network: the app starts the watcher once the config is run.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.healthPath = cmp.Or(h.HealthPath, defaultHealthPath); h.healthPath == healthOff {
		h.healthPath = ""
	}
	h.memory = new(memory)
	retryAfter := cmp.Or(time.Duration(h.RetryAfter), defaultRetryAfter)
	h.retryAfter = []string{strconv.FormatInt(int64((retryAfter+time.Second-1)/time.Second), 10)}
	if err := h.provisionView(ctx); err != nil {
		return err
	}
	if h.Proxy != nil {
		if err := h.Proxy.provision(ctx, h); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
	}
	return joinLane(ctx, h)
}

// Validate checks what can be wrong by itself.
func (h *Handler) Validate() error {
	if err := checkHealthPath(cmp.Or(h.HealthPath, defaultHealthPath)); err != nil {
		return err
	}
	if h.RetryAfter < 0 {
		return fmt.Errorf("retry_after: %s is negative", time.Duration(h.RetryAfter))
	}
	return h.validateView()
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

// Cleanup releases what Provision took.
func (h *Handler) Cleanup() error {
	err := h.cleanupView()
	if h.Proxy != nil {
		err = errors.Join(err, h.Proxy.cleanup())
	}
	return err
}

// ServeHTTP answers the request. It always writes the answer itself and returns nil.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if r.ProtoMajor < 3 && caddy.Exiting() { // over HTTP/3, an answer with that header is malformed
		closeConnection(w.Header())
	}
	if h.isHealth(r.URL.Path) {
		if serve := h.healthEndpoint(r.URL.Path[len(h.healthPath):]); serve != nil {
			refuseBody(w, r)
			return serve(w, r)
		}
	}
	path, ok := requestPath(r)
	if !ok {
		refuseBody(w, r)
		h.note(r, outcome{state: h.view.State(), answer: engine.BadRequest})
		return writeErrors(w, http.StatusBadRequest, "the request target is not a path: there is nothing to redirect to")
	}
	if proxied, err := h.Proxy.matches(r); err != nil || proxied {
		if err != nil { // a matcher's own failure decides nothing
			refuseBody(w, r)
			h.note(r, outcome{state: h.view.State(), answer: engine.BadRequest})
			return writeErrors(w, http.StatusBadRequest, "the request could not be matched")
		}
		return h.serveProxied(w, r)
	}
	refuseBody(w, r)
	take(w, r)
	o := h.await(r)
	s := o.state
	var proven bool
	o.answer, proven = decide(s, r)
	h.note(r, o)
	switch {
	case o.answer == engine.Loop:
		return h.serveLoop(w, s, proven)
	case o.answer == engine.Unavailable && s.Active():
		return h.serveUnavailable(w, discovery.ReasonBadAddress)
	case o.answer == engine.Unavailable:
		return h.serveUnavailable(w, s.ReasonAt(time.Now()))
	}
	return redirect(w, r, &s.Target, path)
}

// isHealth reports whether a path may be that of a health endpoint.
func (h *Handler) isHealth(path string) bool {
	return h.healthPath != "" && strings.HasPrefix(path, h.healthPath)
}

// closeConnection makes an answer over HTTP/1 or 2 the last one on its connection.
func closeConnection(header http.Header) { header.Set("Connection", "close") }

// decide says how a request that may be redirected is answered in a state. proven says that a loop is certain.
func decide(s *engine.State, r *http.Request) (answer engine.Answer, proven bool) {
	switch loop, certain := leadsBack(&s.Target, r); {
	case !s.Active():
		return engine.Unavailable, false
	case loop:
		return engine.Loop, certain
	case onlyLocal(&s.Target, r):
		return engine.Unavailable, false
	}
	return engine.Redirected, false
}

// await returns the state for a request, which may wait for it, and how long it waited.
func (h *Handler) await(r *http.Request) outcome {
	s := h.view.State()
	switch p := s.Phase(); {
	case p.Situation == engine.Active, p.Situation == engine.Stale, p.Situation == engine.None && p.Time.IsZero():
		return outcome{state: s}
	}
	came, end := time.Now(), func() {}
	defer func() { end() }()
	s = h.view.Await(r.Context(), h.queue, engine.Waiter{Client: clientAddress(r), Came: came, Unseen: undrainable(r), Begin: func() { end = drain(r) }})
	return outcome{state: s, held: heldSince(came)}
}

// serveUnavailable answers while no node is active.
func (h *Handler) serveUnavailable(w http.ResponseWriter, reason discovery.Reason) error {
	w.Header()["Retry-After"] = h.retryAfter
	return writeErrors(w, http.StatusServiceUnavailable, noActiveNode(reason))
}

// noActiveNode is what clients are told while there is none.
func noActiveNode(reason discovery.Reason) string { return "no active Vault node: " + explain(reason) }

// explain says in words what a reason means.
func explain(r discovery.Reason) string {
	switch r {
	case discovery.ReasonStarting:
		return "discovery has not answered yet"
	case discovery.ReasonNoService:
		return "no instance of the service is registered in Consul, or the token cannot see any"
	case discovery.ReasonNoActive:
		return "no node reports itself active, and none is marked active in Consul"
	case discovery.ReasonUnhealthy:
		return "the node that should be active is in maintenance, fails its health checks or does not answer"
	case discovery.ReasonBadAddress:
		return "the active node is registered with an address that clients cannot use: correct api_addr in Vault's configuration"
	case discovery.ReasonACLDenied:
		return "Consul refuses the redirector's token"
	case discovery.ReasonACLFiltered:
		return "Consul hides the nodes from the redirector's token"
	case discovery.ReasonConsulUnreachable:
		return "Consul cannot be reached"
	case discovery.ReasonConsulError:
		return "Consul gives no usable answer"
	case discovery.ReasonStaleExpired:
		return "Consul cannot be asked, and the last known node is older than max_stale"
	}
	return string(r)
}

// serveLoop answers where the redirect would lead back to this very site. What a client says of where it came in can be
// made up, so only a proven loop is logged.
func (h *Handler) serveLoop(w http.ResponseWriter, s *engine.State, proven bool) error {
	if proven {
		s.LoopSeen.Do(func() {
			h.logger.Warn("redirect loop: the active node is registered with the address of this site",
				zap.String("node", s.Node.Name), zap.String("url", s.Target.URL))
		})
	}
	return writeErrors(w, http.StatusLoopDetected, loopText(s.Target.URL))
}

func loopText(url string) string {
	return "the active Vault node is registered as " + url + ", which is the address of this redirector: correct api_addr in Vault's configuration"
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
