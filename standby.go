// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/match"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

// Standby selects requests that a standby may answer: reads, where the standbys of the cluster serve them. Those of OpenBao do from
// version 2.5, and the performance standbys of Vault Enterprise. They forward what they cannot answer to the active node.
//
// Such a request is redirected to a standby that is fit: its last probe, over plain http or a trusted connection, found an unsealed
// standby of the active node's cluster that serves reads itself, and Consul does not call it critical or in maintenance. Each client
// keeps its standby for as long as that is fit: it is chosen by the client's token, or by its address if there is none. If no standby
// is fit, and on a cluster whose standbys forward all requests, the active node gets the request.
//
// What a standby answers may be a moment behind a write. Requests that match the option proxy are proxied to the active node.
type Standby struct {
	// MatchersRaw selects the requests: those that match any of the sets. Any of Caddy's request matchers works, such as method
	// GET LIST. Whatever matches, the active node gets requests for paths that are not below /v1/, such as /ui, and for those
	// with a segment sys. Needs probes. Default: none.
	MatchersRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	matchers caddyhttp.MatcherSets
}

const standbyExample = "such as method GET LIST"

// check checks the options of a handler that standby cannot go with.
func (s *Standby) check(h *Handler) error {
	switch {
	case s == nil:
		return nil
	case h.Probe != nil && h.Probe.Mode == probeOff:
		return errors.New("standby needs probes: only the nodes themselves know whether they serve reads; remove probe off")
	case h.Proxy == nil:
		return nil
	case h.Proxy.All:
		return errors.New("proxy all proxies every request to the active node: remove standby, or name what is proxied")
	}
	for _, set := range s.MatchersRaw {
		if slices.ContainsFunc(h.Proxy.MatchersRaw, func(other caddy.ModuleMap) bool { return match.Same(set, other) }) {
			return errors.New("the options standby and proxy have the same matcher, and what it selects is proxied to the active node: remove it from one of them")
		}
	}
	return nil
}

// provision loads the matchers.
func (s *Standby) provision(ctx caddy.Context) (err error) {
	if s.matchers, err = match.Load(ctx, s, s.MatchersRaw); err != nil {
		return err
	}
	if len(s.matchers) == 0 {
		return errors.New("match: a request matcher is missing, " + standbyExample)
	}
	for i, set := range s.matchers {
		if never := neverServed(set); never != "" {
			return fmt.Errorf("match: set %d would match nothing: the active node gets all requests for %s, those that are not below /v1/ or have a segment sys", i+1, never)
		}
	}
	return nil
}

// neverServed returns the last path of a set of matchers if standbys serve none of its paths.
func neverServed(set caddyhttp.MatcherSet) (path string) {
	for _, m := range set {
		paths, ok := m.(*caddyhttp.MatchPath)
		if !ok {
			continue
		}
		for _, path = range *paths {
			if !redirect.NeverServedByStandbys(path) {
				return ""
			}
		}
	}
	return path
}

// parseMatcher parses one option standby. d is at its name.
func (s *Standby) parseMatcher(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("standby: a request matcher is missing, " + standbyExample)
	}
	return match.Parse(d, "standby", &s.MatchersRaw)
}

// matches reports whether a standby may answer a request. If that is not known, the active node gets it.
func (s *Standby) matches(r *http.Request) bool {
	if s == nil {
		return false
	}
	matched, err := s.matchers.AnyMatchWithError(r)
	return matched && err == nil
}
