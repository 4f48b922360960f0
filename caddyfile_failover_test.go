// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the config of failovers: hold, probe, discovery vault, upstreams.

package vaultredirect

import "testing"

func TestCaddyfileFailover(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"hold", "vault_redirect {\nhold 10s\nhold_max 5\n}", `{"discovery":{"source":"consul"},"handler":"vault_redirect","hold":10000000000,"hold_max":5}`},
		{"hold off", "vault_redirect {\nhold 0\n}", `{"discovery":{"source":"consul"},"handler":"vault_redirect","hold":0}`},
		{"probe", "vault_redirect {\nprobe\n}", `{"discovery":{"source":"consul"},"handler":"vault_redirect","probe":{}}`},
		{
			"probe with all", "vault_redirect {\nprobe 250ms {\ntimeout 500ms\ntls {\nca ca.pem\nserver_name v\n}\n}\n}",
			`{"discovery":{"source":"consul"},"handler":"vault_redirect","probe":{"interval":250000000,"timeout":500000000,"tls":{"ca":"ca.pem","server_name":"v"}}}`,
		},
		{"vault", "vault_redirect {\nvault https://a:8200 http://b\n}", `{"discovery":{"source":"vault","urls":["https://a:8200","http://b"]},"handler":"vault_redirect"}`},
		{
			"vault with all", "vault_redirect {\nvault {$NO:https://a} {env.B} {\ninterval 1s\ntimeout 2s\ntls {\ninsecure_skip_verify\n}\n}\nredirect_to leader\n}",
			`{"discovery":{"interval":1000000000,"source":"vault","timeout":2000000000,"tls":{"insecure_skip_verify":true},"urls":["https://a","{env.B}"]},"handler":"vault_redirect","redirect_to":"leader"}`,
		},
		{
			"upstreams", "reverse_proxy {\ndynamic vault_active a:1 {\nconsul {\nservice v\n}\nhold 1s\nport 8300\n}\n}",
			`{"dynamic_upstreams":{"discovery":{"address":"a:1","service":"v","source":"consul"},"hold":1000000000,"port":8300,"source":"vault_active"},"handler":"reverse_proxy"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := adaptDirective(tc.text); err != nil || got != tc.want {
				t.Errorf("%v\n got %s\nwant %s", err, got, tc.want)
			}
		})
	}
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"negative hold", "vault_redirect {\nhold -1s\n}", []string{"Caddyfile:3", "hold", `"-1s"`}},
		{"hold_max 0", "vault_redirect {\nhold_max 0\n}", []string{"Caddyfile:3", "hold_max", "from 1"}},
		{"short probe", "vault_redirect {\nprobe 49ms\n}", []string{"Caddyfile:3", "probe", "49ms", "50ms"}},
		{"short timeout", "vault_redirect {\nprobe {\ntimeout 1ms\n}\n}", []string{"Caddyfile:4", "timeout", "50ms"}},
		{"probe of two", "vault_redirect {\nprobe 1s 2s\n}", []string{"Caddyfile:3", "probe", `"2s"`}},
		{"probe by word", "vault_redirect {\nprobe on\n}", []string{"Caddyfile:3", "probe", `"on"`, "1s"}},
		{"interval of probe", "vault_redirect {\nprobe {\ninterval 1s\n}\n}", []string{"Caddyfile:4", "interval"}},
		{"vault without URL", "vault_redirect {\nvault\n}", []string{"Caddyfile:3", "vault", "https://vault-0.example.com:8200"}},
		{"vault by name", "vault_redirect {\nvault vault-0:8200\n}", []string{"Caddyfile:3", "vault-0:8200", "https://"}},
		{"short interval", "vault_redirect {\nvault https://a {\ninterval 10ms\n}\n}", []string{"Caddyfile:4", "interval", "50ms"}},
		{"vault and consul", "vault_redirect {\nvault https://a\nconsul\n}", []string{"Caddyfile:", "consul or through vault"}},
		{"vault and address", "vault_redirect a:1 {\nvault https://a\n}", []string{"Caddyfile:", "consul or through vault"}},
		{"vault and probe", "vault_redirect {\nvault https://a\nprobe\n}", []string{"Caddyfile:", "probes by itself"}},
		{"health_path of upstreams", "reverse_proxy {\ndynamic vault_active {\nhealth_path /x\n}\n}", []string{"Caddyfile:4", "health_path", "hold"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := adaptDirective(tc.text)
			wantError(t, err, tc.want...)
		})
	}
}

func TestValidateFailoverJSON(t *testing.T) {
	clearConsulEnv(t)
	handler := func(fields string) string { return `{"handler":"vault_redirect"` + fields + `}` }
	for _, tc := range []struct {
		name, config string
		want         []string // nil: valid
	}{
		{"all of it", handler(`,"hold":"5s","hold_max":1024,"probe":{"interval":"1s","timeout":"1s","tls":{}}`), nil},
		{"vault", handler(`,"discovery":{"source":"vault","urls":["https://a:8200"],"interval":"1s","timeout":"1s","tls":{}},"redirect_to":"leader"`), nil},
		{"upstreams", `{"handler":"reverse_proxy","dynamic_upstreams":{"source":"vault_active","discovery":{"source":"consul"},"hold":0}}`, nil},
		{"negative hold", handler(`,"hold":-1`), []string{"hold", "negative"}},
		{"negative hold_max", handler(`,"hold_max":-1`), []string{"hold_max", "negative"}},
		{"short interval", handler(`,"probe":{"interval":"49ms"}`), []string{"probe", "interval", "49ms", "50ms"}},
		{"negative timeout", handler(`,"probe":{"timeout":"-1s"}`), []string{"probe", "timeout", "50ms"}},
		{"CA of probes", handler(`,"probe":{"tls":{"ca":"/nonexistent"}}`), []string{"probe", "tls ca", "/nonexistent"}},
		{"leader without probes", handler(`,"redirect_to":"leader"`), []string{"redirect_to", "leader", "probe"}},
		{"vault and probe", handler(`,"discovery":{"source":"vault","urls":["https://a:8200"]},"probe":{}`), []string{"probe", "by itself"}},
		{"vault and scheme", handler(`,"scheme":"https","discovery":{"source":"vault","urls":["http://a:8200"]}`), []string{"scheme", "http://a:8200"}},
		{"vault without URLs", handler(`,"discovery":{"source":"vault"}`), []string{"urls", "https://"}},
		{"upstreams with a health_path", `{"handler":"reverse_proxy","dynamic_upstreams":{"source":"vault_active","health_path":"off"}}`, []string{`unknown field "health_path"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := validate(tc.config)
			if tc.want == nil && err != nil {
				t.Error(err)
			}
			if tc.want != nil {
				wantError(t, err, tc.want...)
			}
		})
	}
}
