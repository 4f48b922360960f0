// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// FuzzCaddyfile parses any text as the directive: what is taken must be config that can be loaded again, the same.
func FuzzCaddyfile(f *testing.F) {
	for _, seed := range []string{
		"", "127.0.0.1:8500", "a:1 b:2", "{\n}", "{\nconsul {\ntls {\ninsecure_skip_verify\n}\n}\n}", "{\nconsul a {\n", "{\nscheme https { }\n}",
		"{\nconsul a:1 {\nservice v\nactive_by tag\ntag \"\\\"x\"\npoll_interval 1d\n}\nport 65535\nmax_stale 0\nhealth_path off\n}",
		"{\nredirect_to {node}.x\n}\n}\n{", "{\nport \xff\n}", "{\ntoken <<X\nabc\nX\n}", "`\n`", "{\nmax_stale -1s\nretry_after 9999999h\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte("vault_redirect "+text), "Caddyfile")
		if err != nil {
			return
		}
		h := new(Handler)
		if err := h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Fatalf("no file and line in: %v", err)
			}
			return
		}
		out, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		again := new(Handler)
		if err := caddy.StrictUnmarshalJSON(out, again); err != nil || !reflect.DeepEqual(h, again) {
			t.Fatalf("error %v\n got %+v\nfrom %s", err, again, out)
		}
		var source struct {
			Source string `json:"source"`
			Consul
		}
		if err := caddy.StrictUnmarshalJSON(h.DiscoveryRaw, &source); err != nil || source.Source != "consul" {
			t.Fatalf("source %q, error %v, from %s", source.Source, err, h.DiscoveryRaw)
		}
		if h.Port < 0 || h.Port > 65535 || h.RetryAfter < 0 || h.MaxStale != nil && *h.MaxStale < 0 || source.PollInterval < 0 {
			t.Fatalf("a value out of its range: %s", out)
		}
	})
}
