// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package fastlane

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// onlyHandler returns the names of a server's host matcher, if it has one. It returns an error if the server has anything else
// besides one vault_redirect handler, and what that passes requests on to (pass_thru). It is called before the handlers are provisioned.
func onlyHandler(s *caddyhttp.Server) (caddyhttp.MatchHost, error) {
	switch {
	case s.Logs != nil:
		return nil, errors.New("it logs requests (log, logs), which the lane does not: remove that, or the wrapper")
	case s.Metrics != nil:
		return nil, errors.New(ownMetrics)
	case s.Errors != nil && len(s.Errors.Routes) > 0:
		return nil, errors.New("it has routes for errors (handle_errors)")
	case len(s.NamedRoutes) > 0:
		return nil, errors.New("it has named routes")
	case s.EnableFullDuplex:
		return nil, errors.New("enable_full_duplex is set")
	case len(s.ExpectedUnderscoreHeaders) > 0:
		return nil, errors.New("expected_underscore_headers is set")
	case len(s.ExpectedDotHeaders) > 0:
		return nil, errors.New("expected_dot_headers is set")
	case !slices.Contains(s.Protocols, "h1"), slices.ContainsFunc(s.ListenProtocols, func(of []string) bool { return of != nil && !slices.Contains(of, "h1") }):
		return nil, errors.New("protocols does not have h1, the only one that the lane speaks")
	}
	if err := lastWrapper(s.ListenerWrappersRaw); err != nil {
		return nil, err
	}
	return onlyRoute(s.Routes, "the server", nil)
}

// ownMetrics is the error if Caddy's HTTP metrics are on.
const ownMetrics = "its HTTP metrics are on (metrics), which would not count the requests of the lane; caddy_vault_redirect_requests_total does"

func lastWrapper(raw []json.RawMessage) error {
	i := slices.IndexFunc(raw, func(r json.RawMessage) bool { return moduleName(r, "wrapper") == "vault_redirect" })
	if i >= 0 && i < len(raw)-1 {
		return fmt.Errorf("it must be the last of the listener wrappers: after it comes %s", moduleName(raw[i+1], "wrapper"))
	}
	return nil
}

func moduleName(raw json.RawMessage, key string) string {
	var fields map[string]json.RawMessage
	var name string
	if json.Unmarshal(raw, &fields) != nil || json.Unmarshal(fields[key], &name) != nil {
		return "something without a name"
	}
	return name
}

// onlyRoute checks that there is one route, or that the first one is to a handler that passes requests on, and follows it down to the
// handler. above has the names of a host matcher above it, if there is one.
func onlyRoute(routes caddyhttp.RouteList, where string, above caddyhttp.MatchHost) (caddyhttp.MatchHost, error) {
	switch {
	case len(routes) == 0:
		return nil, fmt.Errorf("%s has no route to the handler vault_redirect", where)
	case len(routes) > 1 && !passesThru(routes[0]):
		return nil, fmt.Errorf("%s has %d routes (sites, matchers, handle blocks, or the redirects of automatic HTTPS), but may have one, to vault_redirect", where, len(routes))
	}
	r := routes[0]
	hosts, err := hostsOf(&r, above)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, raw := range r.HandlersRaw {
		names = append(names, moduleName(raw, "handler"))
	}
	switch {
	case len(names) == 1 && names[0] == "vault_redirect", passesThru(r):
		return hosts, nil
	case len(names) == 1 && names[0] == "subroute":
		var sub struct {
			Routes caddyhttp.RouteList        `json:"routes"`
			Errors *caddyhttp.HTTPErrorConfig `json:"errors"`
		}
		if err := json.Unmarshal(r.HandlersRaw[0], &sub); err != nil {
			return nil, err
		}
		if sub.Errors != nil && len(sub.Errors.Routes) > 0 {
			return nil, errors.New("a subroute has routes for errors (handle_errors)")
		}
		return onlyRoute(sub.Routes, "a subroute", hosts)
	}
	return nil, fmt.Errorf("its route has the handlers %s, but may have vault_redirect alone", strings.Join(names, ", "))
}

// passesThru reports whether the first handler of a route is vault_redirect, and passes requests on. These are not answered by the lane.
func passesThru(r caddyhttp.Route) bool {
	var first struct {
		Handler  string `json:"handler"`
		PassThru bool   `json:"pass_thru"`
	}
	return len(r.HandlersRaw) > 0 && json.Unmarshal(r.HandlersRaw[0], &first) == nil && first.Handler == "vault_redirect" && first.PassThru
}

// hostsOf returns the names of a route's host matcher, or those above it if it has none. It may have no other matchers. Those of
// top-level routes have been loaded already.
func hostsOf(r *caddyhttp.Route, above caddyhttp.MatchHost) (hosts caddyhttp.MatchHost, err error) {
	sets := len(r.MatcherSets) + len(r.MatcherSetsRaw)
	if sets == 0 {
		return above, nil
	}
	var names []string
	var matcher any
	for _, set := range r.MatcherSets {
		for _, m := range set {
			names, matcher = append(names, caddy.GetModuleName(m)), m
		}
	}
	for _, set := range r.MatcherSetsRaw {
		for name, m := range set {
			names, matcher = append(names, name), m
		}
	}
	switch {
	case sets > 1, len(names) != 1, above != nil:
		return nil, errors.New("it has several matchers, but may have one, which is host")
	case names[0] != "host":
		return nil, fmt.Errorf("it has the matcher %s, but may have none but host", names[0])
	}
	switch m := matcher.(type) {
	case *caddyhttp.MatchHost:
		hosts = slices.Clone(*m)
	case json.RawMessage:
		if err := json.Unmarshal(m, &hosts); err != nil {
			return nil, err
		}
		if err := hosts.Provision(caddy.Context{}); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("it has a matcher host of another kind, %T", m)
	}
	if len(hosts) == 0 {
		return nil, errors.New("its host matcher has no names")
	}
	if i := slices.IndexFunc(hosts, func(host string) bool { return strings.ContainsAny(host, "*{}") }); i >= 0 {
		return nil, fmt.Errorf("its host matcher has %q, but may have plain names only", hosts[i])
	}
	return hosts, nil
}
