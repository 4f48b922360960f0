// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package statuspage is a Caddy HTTP handler that serves the status of all clusters, as a page for browsers and as JSON for others.
package statuspage

import (
	"cmp"
	"fmt"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/internal/block"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
)

func init() {
	caddy.RegisterModule(StatusPage{})
	httpcaddyfile.RegisterHandlerDirective("vault_redirect_status", parseStatusPage)
	// Before vault_redirect, which answers every request. That is ordered right before reverse_proxy, which follows metrics; so
	// this holds in whatever order the two are registered.
	httpcaddyfile.RegisterDirectiveOrder("vault_redirect_status", httpcaddyfile.After, "metrics")
}

// StatusPage answers every request with the status of all clusters that this Caddy process redirects to, on all sites: which node
// is active and since when, why each other node is not, a timeline of the last day with the gaps between active nodes, the last
// changes, and how many requests wait or were rejected.
//
// A client that asks for text/html, as browsers do, gets a page; any other gets the JSON document of the admin endpoint
// /vault_redirect/status. Both show addresses and names of nodes, but no secret. The page has no script, loads nothing else, and
// changes nothing. Methods other than GET and HEAD get 405.
//
// It has no authentication: put basic_auth, a remote_ip matcher or client certificates before it, such as
//
//	status.example.com {
//		basic_auth {
//			operator {$STATUS_PASSWORD_HASH}
//		}
//		vault_redirect_status
//	}
//
// or, on the site of a vault_redirect,
//
//	@operator {
//		path /vault-redirector-status
//		remote_ip private_ranges
//	}
//	vault_redirect_status @operator
//
// Page and document are each made at most every 250 ms, so that many requests for them do not slow down redirects.
type StatusPage struct {
	// Refresh is how often the browser loads the page again: 0 for never, else from 1s to 24h, rounded up to whole
	// seconds. It has no effect on the JSON document. Default: 5s.
	Refresh *caddy.Duration `json:"refresh,omitempty"`

	html, json func() ([]byte, error)
	logger     *zap.Logger
}

const defaultRefresh = 5 * time.Second

// CaddyModule returns the Caddy module information.
func (StatusPage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.vault_redirect_status",
		New: func() caddy.Module { return new(StatusPage) },
	}
}

// Provision sets up the page.
func (p *StatusPage) Provision(ctx caddy.Context) error {
	p.logger = ctx.Logger()
	p.setUp(status.Now)
	return nil
}

// setUp makes the page show the document that a function returns.
func (p *StatusPage) setUp(document func() status.Document) {
	refresh := defaultRefresh
	if p.Refresh != nil {
		refresh = time.Duration(*p.Refresh)
	}
	seconds := int(math.Ceil(refresh.Seconds()))
	p.html = snapshot(func() ([]byte, error) { return renderPage(document(), seconds, time.Now()) })
	p.json = snapshot(func() ([]byte, error) { return status.Encode(document()), nil })
}

// Validate checks the options.
func (p *StatusPage) Validate() error {
	if p.Refresh == nil {
		return nil
	}
	if d := time.Duration(*p.Refresh); d != 0 && (d < time.Second || d > 24*time.Hour) {
		return fmt.Errorf("refresh: %s is neither 0 nor from 1s to 24h", d)
	}
	return nil
}

// ServeHTTP answers the request. It always writes the answer itself and returns nil.
func (p *StatusPage) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Add("Vary", "Accept")
	redirect.RefuseBody(w, r)
	if !status.ReadOnly(w, r) {
		return nil
	}
	shown, contentType := p.json, "application/json"
	if wantsPage(r.Header.Values("Accept")) {
		shown, contentType = p.html, "text/html; charset=utf-8"
	}
	body, err := shown()
	if err != nil {
		p.logger.Error("the status could not be written", zap.Error(err))
		return status.WriteProblem(w, http.StatusInternalServerError, "the status could not be written")
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // an error means that the client has gone
	}
	return nil
}

// wantsPage reports whether a client that sent these Accept headers (RFC 9110, section 12.5.1) wants the page: it lists text/html,
// and does not prefer application/json. Programs that take anything send */*.
func wantsPage(accept []string) bool {
	page, document := 0.0, 0.0
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		mediaType, params, invalid := mime.ParseMediaType(part)
		q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
		if invalid != nil || err != nil {
			continue
		}
		switch mediaType {
		case "text/html", "application/xhtml+xml":
			page = max(page, q)
		case "application/json":
			document = max(document, q)
		}
	}
	return page > 0 && page >= document
}

// snapshotAge is how long a snapshot is served.
const snapshotAge = 250 * time.Millisecond

// snapshot returns a function that renders at most every snapshotAge. That takes milliseconds and short locks, so that requests wait
// for it rather than get an old answer.
func snapshot(render func() ([]byte, error)) func() ([]byte, error) {
	var (
		mu   sync.Mutex
		made time.Time
		body []byte
	)
	return func() ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if body == nil || time.Since(made) >= snapshotAge {
			fresh, err := render()
			if err != nil {
				return nil, err
			}
			body, made = fresh, time.Now()
		}
		return body, nil
	}
}

func parseStatusPage(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	p := new(StatusPage)
	return p, p.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the page from Caddyfile tokens. Syntax:
//
//	vault_redirect_status [<matcher>] {
//	    refresh <duration>|0
//	}
//
// The block is optional. The directive is ordered before vault_redirect. It has no authentication.
func (p *StatusPage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("unexpected argument %q: after a matcher, which begins with / or @ or is *, settings go in a block", d.Val())
	}
	return block.Parse(d, block.Options{
		"refresh": func() error {
			p.Refresh = new(caddy.Duration)
			return block.Checked(d, block.Duration(d, p.Refresh, 0), p.Validate)()
		},
	})
}

// Interface guards
var (
	_ caddy.Provisioner           = (*StatusPage)(nil)
	_ caddy.Validator             = (*StatusPage)(nil)
	_ caddyfile.Unmarshaler       = (*StatusPage)(nil)
	_ caddyhttp.MiddlewareHandler = (*StatusPage)(nil)
)
