// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package check

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
)

// handler is a handler to check, with its site.
type handler struct {
	raw   json.RawMessage
	sites []doctor.Site
	place string // the file and the path in it; empty if it is from flags
}

// handlersByConfig returns all handlers in a config file.
func handlersByConfig(file, adapter string) ([]handler, error) {
	raw, err := readConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	var root json.RawMessage
	if err := json.Unmarshal(caddy.RemoveMetaFields(raw), &root); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	f := finder{file: file}
	f.find(root, "", scope{httpPort: caddyhttp.DefaultHTTPPort, httpsPort: caddyhttp.DefaultHTTPSPort})
	if len(f.found) == 0 {
		return nil, fmt.Errorf("%s: no vault_redirect handler found", file)
	}
	return f.found, nil
}

// readConfig reads a config as JSON.
func readConfig(file, adapter string) ([]byte, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	if adapter == "" && (json.Valid(raw) || strings.EqualFold(filepath.Ext(file), ".json")) {
		var syntax *json.SyntaxError
		if err := json.Unmarshal(raw, new(any)); errors.As(err, &syntax) {
			return nil, fmt.Errorf("%s is not valid JSON: %w, at offset %d; --adapter names another format", file, err, syntax.Offset)
		}
		return raw, nil
	}
	name := cmp.Or(adapter, "caddyfile")
	by := caddyconfig.GetAdapter(name)
	if by == nil {
		return nil, fmt.Errorf("--adapter: this Caddy has no adapter %q", name)
	}
	adapted, _, err := by.Adapt(raw, map[string]any{"filename": file})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return adapted, nil
}

// scope has what the objects around a handler say about its site.
type scope struct {
	httpPort  uint
	httpsPort uint
	listen    []doctor.Listen
	hosts     []string
	https     bool     // the server serves all its sites by https
	automatic bool     // it serves those by https that have a host with automatic HTTPS
	skip      []string // the hosts without automatic HTTPS
}

type finder struct {
	file  string
	found []handler
}

// find finds the handlers in a value, which is valid JSON.
func (f *finder) find(value json.RawMessage, path string, s scope) {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil {
		for i, item := range list {
			f.find(item, fmt.Sprintf("%s[%d]", path, i), s)
		}
		return
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(value, &fields) != nil {
		return // neither a list nor an object
	}
	var o object
	_ = json.Unmarshal(value, &o) // a field of another type belongs to another kind of object
	s = s.enter(&o)
	if o.Handler == "vault_redirect" {
		f.add(fields, &o, path, s)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		f.find(fields[key], strings.TrimPrefix(path+"."+key, "."), s)
	}
}

// object has the fields of a config that are used: those of the app http, of a server, of a route, and of the handler.
type object struct {
	HTTPPort  uint                      `json:"http_port"`
	HTTPSPort uint                      `json:"https_port"`
	Listen    []string                  `json:"listen"`
	Policies  []any                     `json:"tls_connection_policies"`
	AutoHTTPS caddyhttp.AutoHTTPSConfig `json:"automatic_https"`
	Routes    []route                   `json:"routes"`
	route
	Handler string `json:"handler"`
	Proxy   struct {
		All   bool             `json:"all"`
		Match []map[string]any `json:"match"`
	} `json:"proxy"`
	Standby struct {
		Match []map[string]json.RawMessage `json:"match"`
	} `json:"standby"`
}

type route struct {
	Match []struct {
		Host []string `json:"host"`
	} `json:"match"`
}

func (r *route) hosts() (hosts []string) {
	for _, m := range r.Match {
		hosts = append(hosts, m.Host...)
	}
	return hosts
}

func (f *finder) add(fields map[string]json.RawMessage, o *object, path string, s scope) {
	delete(fields, "handler")
	raw, _ := json.Marshal(fields) // which are valid JSON
	h := handler{raw: raw, place: f.file + ": " + path}
	if len(s.listen) > 0 {
		// A set of matchers without a matcher matches every request.
		all := o.Proxy.All || slices.ContainsFunc(o.Proxy.Match, func(set map[string]any) bool { return len(set) == 0 })
		h.sites = []doctor.Site{{Listen: s.listen, Hosts: s.hosts, TLS: s.https || s.automatic && s.qualifies(s.hosts), Proxy: all, Reads: matchersOf(o.Standby.Match)}}
	}
	f.found = append(f.found, h)
}

// matchersOf returns what sets of matchers say of methods and paths.
func matchersOf(sets []map[string]json.RawMessage) (list []doctor.Matcher) {
	for _, set := range sets {
		var m doctor.Matcher
		for name, raw := range set {
			switch name {
			case "method":
				_ = json.Unmarshal(raw, &m.Methods) // if it is none, loading the handler fails
			case "path":
				_ = json.Unmarshal(raw, &m.Paths)
			default:
				m.More = true
			}
		}
		list = append(list, m)
	}
	return list
}

// enter returns the scope inside an object: a server says where it listens, a route for which hosts it is.
func (s scope) enter(o *object) scope {
	s.httpPort, s.httpsPort = cmp.Or(o.HTTPPort, s.httpPort), cmp.Or(o.HTTPSPort, s.httpsPort)
	if len(o.Listen) > 0 {
		s = scope{httpPort: s.httpPort, httpsPort: s.httpsPort, skip: o.AutoHTTPS.Skip}
		for _, text := range o.Listen {
			if l, ok := parseListen(text); ok {
				s.listen = append(s.listen, l)
			}
		}
		// Nothing is served by https on the http port alone. All is on the https port alone, and beside a site with automatic HTTPS.
		s.automatic = !o.AutoHTTPS.Disabled && s.listensBeside(s.httpPort)
		named := slices.ContainsFunc(o.Routes, func(r route) bool { return s.qualifies(r.hosts()) })
		s.https = len(o.Policies) > 0 && s.listensBeside(s.httpPort) || s.automatic && (named || !s.listensBeside(s.httpsPort))
	}
	s.hosts = append(slices.Clone(s.hosts), o.hosts()...)
	return s
}

// listensBeside reports whether the server listens on another port than one.
func (s scope) listensBeside(port uint) bool {
	return slices.ContainsFunc(s.listen, func(l doctor.Listen) bool { return l.From != port || l.To != port })
}

// qualifies reports whether one of the hosts has automatic HTTPS.
func (s scope) qualifies(hosts []string) bool {
	return slices.ContainsFunc(hosts, func(host string) bool { return !slices.Contains(s.skip, host) })
}

// parseListen parses an address that a server listens on. ok is false if no redirect can lead there, as for a socket.
func parseListen(text string) (l doctor.Listen, ok bool) {
	text, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		return l, false
	}
	a, err := caddy.ParseNetworkAddress(text)
	if err != nil || a.IsUnixNetwork() || a.IsFdNetwork() {
		return l, false
	}
	return doctor.Listen{Host: a.Host, From: a.StartPort, To: a.EndPort}, true
}
