// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// warnPassThru logs which handlers of a config pass requests on although no handler comes after them. It is called once all apps are
// provisioned: a handler does not know its place among the routes.
func warnPassThru(app *caddyhttp.App) {
	for _, server := range app.Servers {
		for _, h := range lastOf(server.Routes, false) {
			h.logger.Warn("pass_thru: no handler comes after this one: clients get 503 while there is no active node")
		}
	}
}

// lastOf returns the handlers in routes that have PassThru, and after which no handler comes. follows is whether one comes after the
// routes. Whether the matchers of that one match is not looked at.
func lastOf(routes caddyhttp.RouteList, follows bool) (last []*Handler) {
	for i, route := range routes {
		after := !route.Terminal && (follows || slices.ContainsFunc(routes[i+1:], func(next caddyhttp.Route) bool {
			return len(next.Handlers) > 0 && (next.Group == "" || next.Group != route.Group)
		}))
		for k, handler := range route.Handlers {
			after := after || k < len(route.Handlers)-1
			switch h := handler.(type) {
			case *Handler:
				if h.PassThru && !after {
					last = append(last, h)
				}
			case *caddyhttp.Subroute:
				last = append(last, lastOf(h.Routes, after)...)
			}
		}
	}
	return last
}
