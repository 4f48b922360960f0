// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	parser "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

func init() {
	caddy.RegisterModule(execHandler{})
	caddy.RegisterModule(webhookHandler{})
}

// execHandler has the name and the syntax of the plugin mholt/caddy-events-exec, and does nothing.
type execHandler struct {
	Command string   `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
}

func (execHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.exec", New: func() caddy.Module { return new(execHandler) }}
}

func (h *execHandler) UnmarshalCaddyfile(d *parser.Dispenser) error {
	d.Next()
	if !d.NextArg() {
		return d.ArgErr()
	}
	h.Command, h.Args = d.Val(), d.RemainingArgs()
	return nil
}

func (*execHandler) Handle(context.Context, caddy.Event) error { return nil }

// webhookHandler has the name and the syntax of the plugin D-Trick/caddy-events-webhook, and does nothing.
type webhookHandler struct {
	URL string `json:"url,omitempty"`
}

func (webhookHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.webhook", New: func() caddy.Module { return new(webhookHandler) }}
}

func (h *webhookHandler) UnmarshalCaddyfile(d *parser.Dispenser) error {
	d.Next()
	if !d.NextArg() {
		return d.ArgErr()
	}
	h.URL = d.Val()
	return nil
}

func (*webhookHandler) Handle(context.Context, caddy.Event) error { return nil }

// eventsCaddyfile loads an example with events, and checks that there are such events with such data.
func eventsCaddyfile(t *testing.T, text string) {
	caddyfile(t, text)
	if !regexp.MustCompile(`(?m)^#   xcaddy build --with \S+/caddy-vault-redirect@v\d+\.\d+\.\d+ --with \S+\n# or, in a checkout,\n#   go tool -modfile=tools/xcaddy/go.mod xcaddy build \\\n#     --with \S+/caddy-vault-redirect@v0.0.0=\. --with \S+$`).MatchString(text) {
		t.Error("it does not say how to build its Caddy")
	}
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Apps struct {
			Events struct {
				Subscriptions []struct{ Events []string }
			}
		}
	}
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	kinds := []engine.EventKind{engine.ActiveChanged, engine.ActiveLost, engine.DiscoveryDown, engine.DiscoveryUp, engine.NodeChanged}
	if len(config.Apps.Events.Subscriptions) == 0 {
		t.Error("nothing is subscribed to")
	}
	for _, s := range config.Apps.Events.Subscriptions {
		for _, name := range s.Events {
			if !slices.Contains(kinds, engine.EventKind(name)) {
				t.Errorf("there is no event %s", name)
			}
		}
	}
	data := strings.Fields("cluster instance node url previous_node previous_url gap_seconds changes by reason active_seconds outage_seconds state previous_state")
	for _, match := range regexp.MustCompile(`\{event\.data\.(\w+)\}`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(data, match[1]) {
			t.Errorf("no event has %s", match[1])
		}
	}
}
