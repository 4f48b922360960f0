// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/internal/block"
	"github.com/vault-redirector/caddy-vault-redirect/internal/match"
	"github.com/vault-redirector/caddy-vault-redirect/internal/proxy"
)

// Proxy selects requests that are proxied to the active node instead of redirected, by Caddy's own reverse proxy: for clients
// that cannot follow a redirect. Both directions are streamed, websockets included. While there is no active node, these
// requests wait as hold says. If no connection can be made, or Vault answers that the node is not active and did nothing, they are
// sent again until hold is over. A request that may have been carried out by a node that died or is sealed is sent again only if
// it is a read: GET, HEAD, LIST or OPTIONS, without a body.
//
// Tokens, and the secrets in Vault's answers, then pass through Caddy. Vault sees the address of Caddy, unless it trusts
// Caddy's X-Forwarded-For (x_forwarded_for_authorized_addrs in Vault's listener). Proxy only the requests that need it.
type Proxy struct {
	// All proxies every request: the redirector is then a proxy, and MatchersRaw must be empty. Default: false.
	All bool `json:"all,omitempty"`
	// MatchersRaw selects the requests to proxy: those that match any of the sets. Any of Caddy's request matchers works.
	// Requests for the health endpoints are never proxied. Default: none.
	MatchersRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`
	// TLS settings of the connections to the nodes. A client certificate (cert and key) is presented for every client that is
	// proxied. Default: those of the probes (ca, server_name, insecure_skip_verify), without their client certificate.
	TLS *TLS `json:"tls,omitempty"`

	matchers caddyhttp.MatcherSets
}

var errAllAndSome = errors.New("all already proxies every request: remove all, or the request matchers")

// provision sets up the proxy of a handler.
func (p *Proxy) provision(ctx caddy.Context, h *Handler) error {
	var err error
	if p.matchers, err = match.Load(ctx, p, p.MatchersRaw); err != nil {
		return err
	}
	switch {
	case p.All && len(p.matchers) > 0:
		return errAllAndSome
	case !p.All && len(p.matchers) == 0:
		return errors.New("match: a request matcher is missing, such as path /v1/sys/storage/raft/snapshot*; or proxy all requests by all")
	}
	trust := p.TLS
	if trust == nil {
		trust = h.trust()
	}
	trust.warn(h.logger)
	config, _, err := trust.load()
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	h.proxied, err = proxy.New(ctx, h.redirector, config)
	return err
}

// parseMatcher parses one proxy option. d is at its name.
func (p *Proxy) parseMatcher(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("proxy: a request matcher is missing, such as path /v1/sys/storage/raft/snapshot*; or all")
	}
	name := d.Val()
	switch {
	case p.All && name == "all":
		return d.Err("proxy: all is given twice")
	case p.All || name == "all" && len(p.MatchersRaw) > 0:
		return d.WrapErr(fmt.Errorf("proxy: %w", errAllAndSome))
	case name == "all":
		return block.Flag(d, &p.All)()
	}
	return match.Parse(d, "proxy", &p.MatchersRaw)
}

// trust returns the probes' settings of TLS without their client certificate, nil if there are none. Presented for proxied clients,
// the certificate would let each of them log in as the redirector if Vault has the auth method cert.
func (h *Handler) trust() *TLS {
	if h.Probe == nil || h.Probe.TLS == nil {
		return nil
	}
	trust := *h.Probe.TLS
	trust.Cert, trust.Key = "", ""
	return &trust
}

// warn logs what is dangerous about valid settings of the proxy.
func (t *TLS) warn(log *zap.Logger) {
	if t == nil {
		return
	}
	if t.InsecureSkipVerify {
		log.Warn("the proxy does not verify the certificates of the Vault nodes: a man in the middle gets the tokens and secrets of all requests that are proxied")
	}
	if t.Cert != "" {
		log.Warn("the proxy presents a client certificate to Vault for every client that is proxied: where Vault has the auth method cert, each of them can log in with it",
			zap.String("cert", t.Cert))
	}
}

// matches reports whether a request must be proxied.
func (p *Proxy) matches(r *http.Request) (bool, error) {
	if p == nil || p.All {
		return p != nil, nil
	}
	return p.matchers.AnyMatchWithError(r)
}
