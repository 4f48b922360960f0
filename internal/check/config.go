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

// wrap adds the place to an error.
func (h *handler) wrap(err error) error {
	if h.place == "" {
		return err
	}
	return fmt.Errorf("%s: %w", h.place, err)
}

// handlersByConfig returns all handlers in a config file.
func handlersByConfig(file, adapter string) ([]handler, error) {
	raw, err := readConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	var document any
	if err := json.Unmarshal(caddy.RemoveMetaFields(raw), &document); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	f := finder{file: file}
	if err := f.find(document, "", scope{httpPort: caddyhttp.DefaultHTTPPort, httpsPort: caddyhttp.DefaultHTTPSPort}); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
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
	tls       bool     // the server has TLS connection policies
	automatic bool     // the server has automatic HTTPS
	named     bool     // another site of the server has a host name with automatic HTTPS
	skip      []string // the hosts without automatic HTTPS
}

// finder collects the handlers of a file.
type finder struct {
	file  string
	found []handler
}

// find walks through a document.
func (f *finder) find(value any, path string, s scope) error {
	switch v := value.(type) {
	case []any:
		for i, item := range v {
			if err := f.find(item, fmt.Sprintf("%s[%d]", path, i), s); err != nil {
				return err
			}
		}
	case map[string]any:
		s = s.enter(v)
		if v["handler"] == "vault_redirect" {
			return f.add(v, path, s)
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := f.find(v[key], strings.TrimPrefix(path+"."+key, "."), s); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds a handler.
func (f *finder) add(object map[string]any, path string, s scope) error {
	rest := maps.Clone(object)
	delete(rest, "handler")
	raw, err := json.Marshal(rest)
	if err != nil {
		return err
	}
	h := handler{raw: raw, place: f.file + ": " + path}
	if len(s.listen) > 0 {
		h.sites = []doctor.Site{{Listen: s.listen, Hosts: s.hosts, TLS: s.https(), Proxy: proxiesAll(object)}}
	}
	f.found = append(f.found, h)
	return nil
}

// proxiesAll reports whether a handler proxies every request: a set of matchers without a matcher matches all.
func proxiesAll(handler map[string]any) bool {
	proxy, _ := handler["proxy"].(map[string]any)
	if proxy["all"] == true {
		return true
	}
	sets, _ := proxy["match"].([]any)
	return slices.ContainsFunc(sets, func(set any) bool {
		matchers, ok := set.(map[string]any)
		return ok && len(matchers) == 0
	})
}

// enter returns the scope inside an object: a server says where it listens, a route for which hosts it is.
func (s scope) enter(object map[string]any) scope {
	if port, ok := object["http_port"].(float64); ok && port > 0 {
		s.httpPort = uint(port)
	}
	if port, ok := object["https_port"].(float64); ok && port > 0 {
		s.httpsPort = uint(port)
	}
	if list := texts(object["listen"]); len(list) > 0 {
		s = scope{httpPort: s.httpPort, httpsPort: s.httpsPort, automatic: true}
		for _, text := range list {
			if l, ok := parseListen(text); ok {
				s.listen = append(s.listen, l)
			}
		}
		policies, _ := object["tls_connection_policies"].([]any)
		s.tls = len(policies) > 0
		if auto, ok := object["automatic_https"].(map[string]any); ok {
			s.automatic, s.skip = auto["disable"] != true, texts(auto["skip"])
		}
		routes, _ := object["routes"].([]any)
		for _, route := range routes {
			if route, ok := route.(map[string]any); ok {
				s.named = s.named || s.qualifies(hostsOf(route))
			}
		}
	}
	s.hosts = append(slices.Clone(s.hosts), hostsOf(object)...)
	return s
}

// hostsOf returns the hosts that the matchers of a route name.
func hostsOf(route map[string]any) (hosts []string) {
	matchers, _ := route["match"].([]any)
	for _, m := range matchers {
		if m, ok := m.(map[string]any); ok {
			hosts = append(hosts, texts(m["host"])...)
		}
	}
	return hosts
}

// qualifies reports whether one of the hosts has automatic HTTPS.
func (s scope) qualifies(hosts []string) bool {
	return slices.ContainsFunc(hosts, func(host string) bool { return !slices.Contains(s.skip, host) })
}

// https reports whether Caddy serves the site by https: the server has policies, or listens on the https port only, or has a site
// with automatic HTTPS and does not listen on the http port only.
func (s scope) https() bool {
	secure := func(l doctor.Listen) bool { return l.From != s.httpPort || l.To != s.httpPort }
	if !slices.ContainsFunc(s.listen, secure) {
		return false
	}
	alone := !slices.ContainsFunc(s.listen, func(l doctor.Listen) bool { return l.From != s.httpsPort || l.To != s.httpsPort })
	return s.tls || s.automatic && (alone || s.named || s.qualifies(s.hosts))
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

// texts returns the strings in a list of JSON.
func texts(value any) (list []string) {
	items, _ := value.([]any)
	for _, item := range items {
		if text, ok := item.(string); ok {
			list = append(list, text)
		}
	}
	return list
}
