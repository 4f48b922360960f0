// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how requests of clients that cannot follow a redirect are proxied.

package vaultredirect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Proxy has requests proxied to the active node instead of redirected, by Caddy's own reverse proxy: for clients that
// cannot follow a redirect. Both directions are streamed, websockets included. While there is no active node they wait as
// hold says, and one that could not be connected to is tried again; a request whose body has been sent in part is not.
//
// What is proxied passes through Caddy: tokens, and the secrets in Vault's answers. Vault sees the address of Caddy, unless
// it is told to trust its X-Forwarded-For (x_forwarded_for_authorized_addrs in Vault's listener). Proxy only those that
// need it.
type Proxy struct {
	// MatchersRaw says which requests to proxy: those that match any of the sets. All of Caddy's request matchers serve. The
	// health endpoints are never proxied. Default: none.
	MatchersRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`
	// TLS settings of the connections to the nodes. Default: those of the probes.
	TLS *TLS `json:"tls,omitempty"`

	matchers caddyhttp.MatcherSets
	byScheme map[string]*reverseproxy.Handler
}

// provision sets up the proxy for a handler.
func (p *Proxy) provision(ctx caddy.Context, h *Handler) error {
	sets, err := ctx.LoadModule(p, "MatchersRaw")
	if err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if err := p.matchers.FromInterface(sets); err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if len(p.matchers) == 0 {
		return errors.New("match: it needs a request matcher, such as path /v1/sys/storage/raft/snapshot*")
	}
	trust := p.TLS
	if trust == nil {
		trust = h.trust()
	}
	p.byScheme = map[string]*reverseproxy.Handler{}
	for _, scheme := range []string{"http", "https"} {
		transport, err := newProxyTransport(ctx, scheme, trust)
		if err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		proxy := &reverseproxy.Handler{
			Transport:        transport,
			DynamicUpstreams: &Upstreams{Active: h.Active},
			FlushInterval:    -1,
			LoadBalancing:    &reverseproxy.LoadBalancing{TryDuration: caddy.Duration(h.queue.Hold)},
		}
		if err := proxy.Provision(ctx); err != nil {
			return err
		}
		p.byScheme[scheme] = proxy
	}
	return nil
}

// proxy returns the proxy of the handler, a new one if it has none yet.
func (h *Handler) proxy() *Proxy {
	if h.Proxy == nil {
		h.Proxy = new(Proxy)
	}
	return h.Proxy
}

// parseMatcher parses one proxy option, at whose name d is.
func (p *Proxy) parseMatcher(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("proxy: a request matcher is missing, such as path /v1/sys/storage/raft/snapshot*")
	}
	name := d.Val()
	module, err := caddy.GetModule("http.matchers." + name)
	if err != nil {
		return d.Errf("proxy: %q is not one of Caddy's request matchers, such as path or header", name)
	}
	matcher, ok := module.New().(caddyfile.Unmarshaler)
	if !ok {
		return d.Errf("proxy: the matcher %s cannot be used in a Caddyfile", name)
	}
	if err := matcher.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
		return err
	}
	p.MatchersRaw = append(p.MatchersRaw, caddy.ModuleMap{name: caddyconfig.JSON(matcher, nil)})
	return nil
}

// cleanup ends what provision began.
func (p *Proxy) cleanup() error {
	var errs []error
	for _, proxy := range p.byScheme {
		errs = append(errs, proxy.Cleanup())
		if t, ok := proxy.Transport.(*proxyTransport); ok {
			errs = append(errs, t.Cleanup())
		}
	}
	return errors.Join(errs...)
}

// trust returns the TLS settings of the probes, nil if there are none.
func (a *Active) trust() *TLS {
	if own, ok := a.discoverer.(selfProbing); ok {
		return own.probing().TLS
	}
	if a.Probe != nil {
		return a.Probe.TLS
	}
	return nil
}

// matches reports whether a request is to be proxied.
func (p *Proxy) matches(r *http.Request) (bool, error) {
	if p == nil {
		return false, nil
	}
	return p.matchers.AnyMatchWithError(r)
}

// serveProxied proxies a request. Whatever goes wrong is answered in the form of Vault's errors and never returned: Caddy
// logs the request, with its token, when a handler returns an error.
func (h *Handler) serveProxied(w http.ResponseWriter, r *http.Request) error {
	came := time.Now()
	s := h.view.Await(r.Context(), h.queue)
	o := outcome{state: s, answer: engine.Proxied, held: heldSince(came)}
	switch {
	case !s.Active():
		o.answer = engine.Unavailable
		h.note(r, o)
		return h.serveUnavailable(w, s.ReasonAt(time.Now()))
	case proxyLeadsBack(&s.Target, r):
		o.answer = engine.Loop
		h.note(r, o)
		return h.serveLoop(w, s, true)
	}
	err := h.Proxy.byScheme[s.Target.Scheme()].ServeHTTP(w, hideSecrets(r), nil)
	if err == nil {
		h.note(r, o)
		return nil
	}
	o.answer = engine.Unavailable
	h.note(r, o)
	if s := h.view.State(); !s.Active() {
		return h.serveUnavailable(w, s.ReasonAt(time.Now()))
	}
	code := http.StatusBadGateway
	if failed := (caddyhttp.HandlerError{}); errors.As(err, &failed) && failed.StatusCode >= 400 {
		code = failed.StatusCode
	}
	return writeErrors(w, code, "the active Vault node could not be reached by the proxy: "+s.Target.URL)
}

// proxyLeadsBack reports whether proxying a request to t would lead back to this process.
func proxyLeadsBack(t *engine.Target, r *http.Request) bool {
	return marked(r) || isSocket(t.Addr, r.Context())
}

// secretsKey is the key of the context for the headers that no log may show.
type secretsKey struct{}

// hideSecrets returns the request without its secret headers, which the transport puts back: the reverse proxy logs the
// headers of what it sends, at level DEBUG, and would leave out only some of them.
func hideSecrets(r *http.Request) *http.Request {
	secrets := http.Header{}
	for _, name := range secretHeaders {
		if values := r.Header[name]; values != nil {
			secrets[name] = values
		}
	}
	if len(secrets) == 0 {
		return r
	}
	r = r.WithContext(context.WithValue(r.Context(), secretsKey{}, secrets))
	r.Header = r.Header.Clone()
	for name := range secrets {
		delete(r.Header, name)
	}
	return r
}

// proxyTransport is Caddy's transport, which sends the hidden headers, too.
type proxyTransport struct{ *reverseproxy.HTTPTransport }

// RoundTrip implements [http.RoundTripper].
func (t *proxyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if secrets, ok := r.Context().Value(secretsKey{}).(http.Header); ok {
		sent := r.WithContext(r.Context())
		sent.Header = r.Header.Clone()
		for name, values := range secrets {
			sent.Header[name] = values
		}
		resp, err := t.HTTPTransport.RoundTrip(sent)
		if resp != nil {
			resp.Request = r
		}
		return resp, err
	}
	return t.HTTPTransport.RoundTrip(r)
}

// newProxyTransport returns the transport for a scheme.
func newProxyTransport(ctx caddy.Context, scheme string, trust *TLS) (*proxyTransport, error) {
	config := map[string]any{}
	if scheme == "https" {
		settings := TLS{}
		if trust != nil {
			settings = *trust
		}
		if err := settings.expand(caddy.NewReplacer()); err != nil {
			return nil, err
		}
		clientTLS, err := proxyTLS(settings)
		if err != nil {
			return nil, err
		}
		config["tls"] = clientTLS
	}
	mod, err := ctx.LoadModuleByID("http.reverse_proxy.transport.http", caddyconfig.JSON(config, nil))
	if err != nil {
		return nil, err
	}
	return &proxyTransport{mod.(*reverseproxy.HTTPTransport)}, nil
}

// proxyTLS returns the settings as Caddy's transport takes them.
func proxyTLS(t TLS) (map[string]any, error) {
	config := map[string]any{}
	if t.CA != "" {
		files, err := caFiles(t.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		config["ca"] = map[string]any{"provider": "file", "pem_files": files}
	}
	if t.Cert != "" {
		config["client_certificate_file"], config["client_certificate_key_file"] = t.Cert, t.Key
	}
	if t.ServerName != "" {
		config["server_name"] = t.ServerName
	}
	if t.InsecureSkipVerify {
		config["insecure_skip_verify"] = true
	}
	return config, nil
}
