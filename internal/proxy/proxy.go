// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package proxy proxies requests to the active node, for clients that cannot follow a redirect. It waits for the node and retries
// where that is safe.
package proxy

import (
	"crypto/tls"
	"errors"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

// Proxy proxies requests to the active node, by Caddy's own reverse proxy.
type Proxy struct {
	*redirect.Redirector
	byScheme map[string]*reverseproxy.Handler

	// forwarding is since when, in nanoseconds since 1970, a node has been active that turned out to redirect to another one all the
	// time: standbys may forward what is sent to it.
	forwarding atomic.Int64
}

// flushInterval is for how long the beginning of an answer with a length may wait for its rest, so that a short one is written at once.
// Without a length, an answer is streamed as it comes.
const flushInterval = caddy.Duration(10 * time.Millisecond)

// New returns a proxy that answers as a redirector does if there is no active node. trust has the TLS settings for nodes.
func New(ctx caddy.Context, d *redirect.Redirector, trust *tls.Config) (*Proxy, error) {
	x := &Proxy{Redirector: d, byScheme: map[string]*reverseproxy.Handler{}}
	for _, scheme := range []string{"http", "https"} {
		t, err := newTransport(ctx, scheme, trust)
		if err != nil {
			return x, err
		}
		proxy := &reverseproxy.Handler{Transport: t, DynamicUpstreams: target{}, FlushInterval: flushInterval}
		x.byScheme[scheme] = proxy
		if err := proxy.Provision(ctx); err != nil {
			return x, err
		}
	}
	return x, nil
}

// Cleanup closes the proxy. It is safe on nil.
func (x *Proxy) Cleanup() error {
	if x == nil {
		return nil
	}
	var errs []error
	for _, proxy := range x.byScheme {
		errs = append(errs, proxy.Cleanup(), proxy.Transport.(*transport).Cleanup())
	}
	return errors.Join(errs...)
}
