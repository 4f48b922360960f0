// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

const laneWrapper = `"listener_wrappers": [{"wrapper": "vault_redirect"}]`

// TestFastLaneRefuses gives the lane servers that have something else to do, and some that have not.
func TestFastLaneRefuses(t *testing.T) {
	clearConsulEnv(t)
	handler := handlerJSON(standin.RunConsul(t).Addr(), "")
	route := `{"handle": [` + handler + `]}`
	passing := strings.TrimSuffix(handler, "}") + `, "pass_thru": true}`
	proxied := `{"handle": [` + strings.TrimSuffix(handler, "}") + `, "proxy": {"match": [{"header": {"X": ["y"]}}]}}]}`
	probed := strings.Replace(strings.TrimSuffix(handler, "}"), `"mode": "off"`, `"mode": "auto"`, 1)
	sub := func(routes string) string { return `{"handle": [{"handler": "subroute", "routes": [` + routes + `]}]}` }
	proxying := func(match string) string {
		return laneWrapper + `, "routes": [{"handle": [` + strings.TrimSuffix(handler, "}") + `, "proxy": {"match": [` + match + `]}}]}]`
	}
	for _, row := range []struct{ name, server, http, want string }{
		{name: "the handler alone", server: laneWrapper + `, "routes": [` + route + `]`},
		{name: "in subroutes", server: laneWrapper + `, "routes": [` + sub(sub(route)) + `]`},
		{name: "behind names", server: laneWrapper + `, "routes": [{"match": [{"host": ["a.b", "c.d"]}], ` + sub(route)[1:] + `]`},
		{name: "behind names, further down", server: laneWrapper + `, "routes": [` + sub(`{"match": [{"host": ["a.b"]}], `+route[1:]) + `]`},
		{name: "after TLS", server: `"listener_wrappers": [{"wrapper": "proxy_protocol"}, {"wrapper": "tls"}, {"wrapper": "vault_redirect"}], "routes": [` + route + `]`},
		{name: "passed to another handler", server: laneWrapper + `, "routes": [{"handle": [` + passing + `, {"handler": "static_response"}]}]`},
		{name: "passed to another route", server: laneWrapper + `, "routes": [{"handle": [` + passing + `]}, ` + proxied + `]`},
		{name: "passed on further down", server: laneWrapper + `, "routes": [` + sub(`{"handle": [`+passing+`]}, {}`) + `]`},
		{name: "some paths proxied", server: proxying(`{"path": ["/a*"]}, {"method": ["GET"], "path": ["/b"]}`)},

		{name: "logs", server: laneWrapper + `, "logs": {}, "routes": [` + route + `]`, want: "it logs requests"},
		{name: "metrics of the server", server: laneWrapper + `, "metrics": {}, "routes": [` + route + `]`, want: "HTTP metrics are on"},
		{name: "metrics", http: `"metrics": {},`, server: laneWrapper + `, "routes": [` + route + `]`, want: "HTTP metrics are on"},
		{name: "routes for errors", server: laneWrapper + `, "errors": {"routes": [{}]}, "routes": [` + route + `]`, want: "handle_errors"},
		{name: "named routes", server: laneWrapper + `, "named_routes": {"x": {}}, "routes": [` + route + `]`, want: "named routes"},
		{name: "full duplex", server: laneWrapper + `, "enable_full_duplex": true, "routes": [` + route + `]`, want: "enable_full_duplex"},
		{name: "odd headers", server: laneWrapper + `, "expected_underscore_headers": ["X_Forwarded_Proto"], "routes": [` + route + `]`, want: "expected_underscore_headers"},
		{name: "odder headers", server: laneWrapper + `, "expected_dot_headers": ["X.Forwarded.Proto"], "routes": [` + route + `]`, want: "expected_dot_headers"},
		{name: "no HTTP/1.1", server: laneWrapper + `, "protocols": ["h2"], "routes": [` + route + `]`, want: "does not have h1"},
		{name: "before TLS", server: `"listener_wrappers": [{"wrapper": "vault_redirect"}, {"wrapper": "tls"}], "routes": [` + route + `]`, want: "after it comes tls"},
		{name: "twice", server: `"listener_wrappers": [{"wrapper": "vault_redirect"}, {"wrapper": "vault_redirect"}], "routes": [` + route + `]`, want: "after it comes vault_redirect"},
		{name: "no route", server: laneWrapper, want: "no route"},
		{name: "no handler", server: laneWrapper + `, "routes": [{}]`, want: "has the handlers"},
		{name: "another handler before one that passes on", server: laneWrapper + `, "routes": [{"handle": [{"handler": "headers"}, ` + passing + `]}]`, want: "the handlers headers, vault_redirect"},
		{name: "another route before one that passes on", server: laneWrapper + `, "routes": [{}, {"handle": [` + passing + `]}]`, want: "the server has 2 routes"},
		{name: "two routes", server: laneWrapper + `, "routes": [` + route + `, ` + route + `]`, want: "the server has 2 routes"},
		{name: "two routes further down", server: laneWrapper + `, "routes": [` + sub(route+`, {}`) + `]`, want: "a subroute has 2 routes"},
		{name: "errors further down", server: laneWrapper + `, "routes": [{"handle": [{"handler": "subroute", "errors": {"routes": [{}]}, "routes": [` + route + `]}]}]`, want: "handle_errors"},
		{name: "another handler before", server: laneWrapper + `, "routes": [{"handle": [{"handler": "headers"}, ` + handler + `]}]`, want: "the handlers headers, vault_redirect"},
		{name: "another handler", server: laneWrapper + `, "routes": [{"handle": [{"handler": "static_response"}]}]`, want: "the handlers static_response"},
		{name: "another matcher", server: laneWrapper + `, "routes": [{"match": [{"path": ["/v1/*"]}], ` + route[1:] + `]`, want: "the matcher path"},
		{name: "another matcher further down", server: laneWrapper + `, "routes": [` + sub(`{"match": [{"path": ["/v1/*"]}], `+route[1:]) + `]`, want: "the matcher path"},
		{name: "two matchers", server: laneWrapper + `, "routes": [{"match": [{"host": ["a.b"], "path": ["/"]}], ` + route[1:] + `]`, want: "several matchers"},
		{name: "two sets of matchers", server: laneWrapper + `, "routes": [{"match": [{"host": ["a.b"]}, {"host": ["c.d"]}], ` + route[1:] + `]`, want: "several matchers"},
		{name: "names at two places", server: laneWrapper + `, "routes": [{"match": [{"host": ["a.b"]}], ` + sub(`{"match": [{"host": ["a.b"]}], ` + route[1:])[1:] + `]`, want: "several matchers"},
		{name: "a wildcard", server: laneWrapper + `, "routes": [{"match": [{"host": ["*.b"]}], ` + route[1:] + `]`, want: `"*.b"`},
		{name: "a placeholder", server: laneWrapper + `, "routes": [` + sub(`{"match": [{"host": ["{env.X}"]}], `+route[1:]) + `]`, want: `"{env.X}"`},
		{name: "proxied by header", server: proxying(`{"header": {"X": ["y"]}}`), want: "the matcher header depends on more"},
		{name: "proxied by a placeholder", server: proxying(`{"path": ["/{http.request.host}"]}`), want: "has a placeholder"},
		{name: "all proxied", server: laneWrapper + `, "routes": [{"handle": [` + strings.TrimSuffix(handler, "}") + `, "proxy": {"all": true}}]}]`, want: "proxy all: no request is redirected"},
		{name: "some reads to standbys", server: laneWrapper + `, "routes": [{"handle": [` + probed + `, "standby": {"match": [{"method": ["GET"], "path": ["/v1/a*"]}]}}]}]`},
		{name: "reads to standbys by header", server: laneWrapper + `, "routes": [{"handle": [` + probed + `, "standby": {"match": [{"header": {"X": ["y"]}}]}}]}]`, want: "standby: the matcher header depends on more"},
		{name: "options", server: `"listener_wrappers": [{"wrapper": "vault_redirect", "x": 1}], "routes": [` + route + `]`, want: "unknown field"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := caddy.Load(fmt.Appendf(nil, `{"admin": {"disabled": true, "config": {"persist": false}}, "logging": {"logs": {"default": {"level": "PANIC"}}},
				"apps": {"http": {%s "servers": {"s": {"listen": ["127.0.0.1:0"], "automatic_https": {"disable": true}, %s}}}}}`, row.http, row.server), true)
			defer func() { _ = caddy.Stop() }()
			if row.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, row.want)
			if row.want != "unknown field" {
				wantError(t, err, "the fast lane (listener wrapper vault_redirect) cannot be used with")
			}
		})
	}
}

// TestFastLaneCaddyfile reads the wrapper from a Caddyfile.
func TestFastLaneCaddyfile(t *testing.T) {
	adapter := caddyconfig.GetAdapter("caddyfile")
	adapt := func(options string) ([]byte, error) {
		out, _, err := adapter.Adapt([]byte("{\nservers {\nlistener_wrappers {\n"+options+"\n}\n}\n}\n:1234 {\nvault_redirect\n}\n"), nil)
		return out, err
	}
	out, err := adapt("vault_redirect")
	if err != nil || !strings.Contains(string(out), `"listener_wrappers":[{"wrapper":"vault_redirect"}]`) {
		t.Errorf("%s %v", out, err)
	}
	for options, want := range map[string]string{"vault_redirect fast": "wrong argument count", "vault_redirect {\nfast\n}": "has no options"} {
		_, err := adapt(options)
		wantError(t, err, want)
	}
}
