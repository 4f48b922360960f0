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
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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
	Active

	// HealthPath is the path of the health endpoint, compared as a whole and as this handler sees it. It answers GET and
	// HEAD with 200 if a request would be redirected now and with 503 if not, and with a JSON document that says why.
	// "off" turns it off. Default: /vault-redirector-health.
	HealthPath string `json:"health_path,omitempty"`
	// RetryAfter is what the Retry-After header of a 503 says, rounded up to whole seconds. Default: 1s.
	RetryAfter caddy.Duration `json:"retry_after,omitempty"`

	healthPath string
	retryAfter []string
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
	retryAfter := cmp.Or(time.Duration(h.RetryAfter), defaultRetryAfter)
	h.retryAfter = []string{strconv.FormatInt(int64((retryAfter+time.Second-1)/time.Second), 10)}
	return h.Active.provision(ctx)
}

// Validate checks what can be wrong by itself.
func (h *Handler) Validate() error {
	if err := checkHealthPath(cmp.Or(h.HealthPath, defaultHealthPath)); err != nil {
		return err
	}
	if h.RetryAfter < 0 {
		return fmt.Errorf("retry_after: %s is negative", time.Duration(h.RetryAfter))
	}
	return h.Active.validate()
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
func (h *Handler) Cleanup() error { return h.Active.cleanup() }

// ServeHTTP answers the request. It always writes the answer itself and returns nil.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if r.URL.Path == h.healthPath && h.healthPath != "" {
		return h.serveHealth(w, r)
	}
	path, ok := requestPath(r)
	if !ok {
		return writeErrors(w, http.StatusBadRequest, "the request target is not a path: there is nothing to redirect to")
	}
	s := h.await(r)
	if !s.Active() {
		return h.serveUnavailable(w, s.ReasonAt(time.Now()))
	}
	if loop, proven := leadsBack(&s.Target, r); loop {
		return h.serveLoop(w, s, proven)
	}
	if onlyLocal(&s.Target, r) {
		return h.serveUnavailable(w, discovery.ReasonBadAddress)
	}
	var location string
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		location = s.Target.URL + path + "?" + escapeRest(r.URL.RawQuery)
	} else {
		location = s.Target.URL + path
	}
	values := [...]string{location, "no-store"} // one allocation for both headers
	header := w.Header()
	header["Location"] = values[0:1:1]
	header["Cache-Control"] = values[1:2:2]
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// await returns the state for a request, which may wait for it.
func (h *Handler) await(r *http.Request) *engine.State {
	s := h.view.State()
	switch p := s.Phase(); {
	case p.Situation == engine.Active, p.Situation == engine.Stale, p.Situation == engine.None && p.Time.IsZero():
		return s
	}
	defer drain(r)()
	return h.view.Await(r.Context(), h.queue)
}

// requestPath returns the escaped path of a request: as the handlers before this one left it, and byte for byte as it
// came. ok is false if there is none. It begins with a slash, so that it cannot change the authority that it follows.
func requestPath(r *http.Request) (path string, ok bool) {
	if r.Method == http.MethodConnect || r.URL.Opaque != "" {
		return "", false
	}
	if path = escapedPath(r.URL); path == "" {
		path = "/"
	}
	return path, path[0] == '/'
}

// escapedPath is u.EscapedPath, but leaves alone what need not be escaped and was not.
func escapedPath(u *url.URL) string {
	if u.RawPath != "" {
		if path, err := url.PathUnescape(u.RawPath); err == nil && path == u.Path {
			return escapeRest(u.RawPath)
		}
	}
	return u.EscapedPath()
}

// escapeRest escapes in a path or query what cannot stand in a URL as it is: all but visible ASCII characters (HTTP/2
// lets them through), and the # that would begin a fragment.
func escapeRest(s string) string {
	unsafe := func(c byte) bool { return c <= ' ' || c >= 0x7f || c == '#' }
	n := 0
	for i := range len(s) {
		if unsafe(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; unsafe(c) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// serveUnavailable answers while no node is active.
func (h *Handler) serveUnavailable(w http.ResponseWriter, reason discovery.Reason) error {
	w.Header()["Retry-After"] = h.retryAfter
	return writeErrors(w, http.StatusServiceUnavailable, "no active Vault node: "+explain(reason))
}

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
