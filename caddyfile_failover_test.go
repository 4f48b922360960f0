// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import "testing"

func TestCaddyfileFailover(t *testing.T) {
	probe := func(fields string) string {
		return `{"discovery":{"source":"consul"},"handler":"vault_redirect","probe":{` + fields + `}}`
	}
	for _, tc := range []struct{ name, text, want string }{
		{"hold", "vault_redirect {\nhold 10s\nhold_max 5\n}", `{"discovery":{"source":"consul"},"handler":"vault_redirect","hold":10000000000,"hold_max":5}`},
		{"hold off", "vault_redirect {\nhold 0\n}", `{"discovery":{"source":"consul"},"handler":"vault_redirect","hold":0}`},
		{"probe", "vault_redirect {\nprobe\n}", probe(``)},
		{"probe auto", "vault_redirect {\nprobe auto\n}", probe(`"mode":"auto"`)},
		{"probe strict", "vault_redirect {\nprobe strict\n}", probe(`"mode":"strict"`)},
		{"probe off", "vault_redirect {\nprobe off\n}", probe(`"mode":"off"`)},
		{"probe with an interval", "vault_redirect {\nprobe 1s\n}", probe(`"interval":1000000000`)},
		{"probe with both", "vault_redirect {\nprobe strict 1s\n}", probe(`"interval":1000000000,"mode":"strict"`)},
		{"probe with the interval in its block", "vault_redirect {\nprobe {\ninterval 2s\n}\n}", probe(`"interval":2000000000`)},
		{
			"probe with all", "vault_redirect {\nprobe strict 250ms {\ntimeout 500ms\nfall 5\ntls {\nca ca.pem\nserver_name v\n}\n}\n}",
			probe(`"fall":5,"interval":250000000,"mode":"strict","timeout":500000000,"tls":{"ca":"ca.pem","server_name":"v"}`),
		},
		{"vault", "vault_redirect {\nvault https://a:8200 http://b\n}", `{"discovery":{"source":"vault","urls":["https://a:8200","http://b"]},"handler":"vault_redirect"}`},
		{
			"vault with all", "vault_redirect {\nvault {$NO:https://a} {env.B}\nprobe strict 1s {\ntimeout 2s\nfall 1\ntls {\ninsecure_skip_verify\n}\n}\nredirect_to leader\n}",
			`{"discovery":{"source":"vault","urls":["https://a","{env.B}"]},"handler":"vault_redirect","probe":{"fall":1,"interval":1000000000,"mode":"strict","timeout":2000000000,"tls":{"insecure_skip_verify":true}},"redirect_to":"leader"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := adaptDirective(tc.text); err != nil || got != tc.want {
				t.Errorf("%v\n got %s\nwant %s", err, got, tc.want)
			}
		})
	}
}

func TestCaddyfileFailoverRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"negative hold", "vault_redirect {\nhold -1s\n}", []string{"Caddyfile:3", "hold", `"-1s"`}},
		{"hold_max 0", "vault_redirect {\nhold_max 0\n}", []string{"Caddyfile:3", "hold_max", "from 1"}},
		{"short probe", "vault_redirect {\nprobe 49ms\n}", []string{"Caddyfile:3", "probe", "49ms", "50ms"}},
		{"short timeout", "vault_redirect {\nprobe {\ntimeout 1ms\n}\n}", []string{"Caddyfile:4", "timeout", "50ms"}},
		{"probe of two", "vault_redirect {\nprobe 1s 2s\n}", []string{"Caddyfile:3", "probe", `"2s"`}},
		{"probe sometimes", "vault_redirect {\nprobe sometimes\n}", []string{"Caddyfile:3", "probe", `"sometimes"`, "auto, strict, off or a duration", "500ms"}},
		{"probe auto sometimes", "vault_redirect {\nprobe auto sometimes\n}", []string{"Caddyfile:3", "probe", `"sometimes"`, "500ms"}},
		{"probe of two modes", "vault_redirect {\nprobe auto strict\n}", []string{"Caddyfile:3", "probe", `"strict"`}},
		{"probe of an interval and a mode", "vault_redirect {\nprobe 1s strict\n}", []string{"Caddyfile:3", "probe", `"strict"`}},
		{"probe off with an interval", "vault_redirect {\nprobe off 1s\n}", []string{"Caddyfile:3", "probe off", "no interval"}},
		{"negative probe", "vault_redirect {\nprobe -1s\n}", []string{"Caddyfile:3", "probe", "-1s", "50ms"}},
		{"interval of probe twice", "vault_redirect {\nprobe 1s {\ninterval 2s\n}\n}", []string{"Caddyfile:4", "interval", "twice"}},
		{"probe off with a block", "vault_redirect {\nprobe off {\ninterval 1s\n}\n}", []string{"Caddyfile:", "probe off"}},
		{"fall 0", "vault_redirect {\nprobe {\nfall 0\n}\n}", []string{"Caddyfile:4", "fall", `"0"`, "1 to 100"}},
		{"fall 101", "vault_redirect {\nprobe {\nfall 101\n}\n}", []string{"Caddyfile:4", "fall", "1 to 100"}},
		{"vault with a block", "vault_redirect {\nvault https://a {\nfall 1\n}\n}", []string{"Caddyfile:3", "vault", "block"}},
		{"vault without URL", "vault_redirect {\nvault\n}", []string{"Caddyfile:3", "vault", "https://vault-0.example.com:8200"}},
		{"vault by name", "vault_redirect {\nvault vault-0:8200\n}", []string{"Caddyfile:3", "vault-0:8200", "https://"}},
		{"short interval", "vault_redirect {\nvault https://a\nprobe {\ninterval 10ms\n}\n}", []string{"Caddyfile:5", "interval", "50ms"}},
		{"vault and consul", "vault_redirect {\nvault https://a\nconsul\n}", []string{"Caddyfile:", "mutually exclusive"}},
		{"vault and address", "vault_redirect a:1 {\nvault https://a\n}", []string{"Caddyfile:", "mutually exclusive"}},
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
		{"all of it", handler(`,"name":"n","hold":"5s","hold_max":1024,"probe":{"mode":"auto","interval":"1s","timeout":"1s","fall":3,"tls":{}}`), nil},
		{"vault", handler(`,"discovery":{"source":"vault","urls":["https://a:8200"]},"probe":{"interval":"1s","timeout":"1s","fall":1,"tls":{}},"redirect_to":"leader"`), nil},
		{"negative hold", handler(`,"hold":-1`), []string{"hold", "negative"}},
		{"negative hold_max", handler(`,"hold_max":-1`), []string{"hold_max", "negative"}},
		{"short interval", handler(`,"probe":{"interval":"49ms"}`), []string{"probe", "interval", "49ms", "50ms"}},
		{"negative timeout", handler(`,"probe":{"timeout":"-1s"}`), []string{"probe", "timeout", "50ms"}},
		{"CA of probes", handler(`,"probe":{"tls":{"ca":"/nonexistent"}}`), []string{"probe", "tls ca", "/nonexistent"}},
		{"leader, as probes are on", handler(`,"redirect_to":"leader"`), nil},
		{"leader without probes", handler(`,"redirect_to":"leader","probe":{"mode":"off"}`), []string{"redirect_to", "leader", "probe"}},
		{"mode of probes", handler(`,"probe":{"mode":"sometimes"}`), []string{"probe", "mode", `"sometimes"`, "auto, strict or off"}},
		{"fall", handler(`,"probe":{"fall":-1}`), []string{"probe", "fall", "-1", "between 1 and 100"}},
		{"great fall", handler(`,"probe":{"fall":101}`), []string{"probe", "fall", "101"}},
		{"fall of vault", handler(`,"discovery":{"source":"vault","urls":["https://a:8200"]},"probe":{"fall":101}`), []string{"probe", "fall"}},
		{"mode of vault", handler(`,"discovery":{"source":"vault","urls":["https://a:8200"]},"probe":{"mode":"off"}`), []string{"probe", "mode", "strict"}},
		{"interval of vault", handler(`,"discovery":{"source":"vault","urls":["https://a:8200"],"interval":"1s"}`), []string{`unknown field "interval"`}},
		{"probe off with settings", handler(`,"probe":{"mode":"off","interval":"1s"}`), []string{"probe", "off"}},
		{"vault and probe auto", handler(`,"discovery":{"source":"vault","urls":["https://a:8200"]},"probe":{"mode":"auto"}`), []string{"probe", "auto", "strict"}},
		{"vault and scheme", handler(`,"scheme":"https","discovery":{"source":"vault","urls":["http://a:8200"]}`), []string{"scheme", "http://a:8200"}},
		{"vault without URLs", handler(`,"discovery":{"source":"vault"}`), []string{"urls", "https://"}},
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
