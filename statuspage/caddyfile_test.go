// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package statuspage

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// adaptSite adapts a site of which line 2 and the following are the text, and returns its routes.
func adaptSite(text string) (string, error) {
	out, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(":8080 {\n"+text+"\n}\n"), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct{ Routes json.RawMessage }
			}
		}
	}
	err = json.Unmarshal(out, &config)
	return string(config.Apps.HTTP.Servers["srv0"].Routes), err
}

func TestStatusPageCaddyfile(t *testing.T) {
	const plain = `{"handler":"vault_redirect_status"}`
	for _, tc := range []struct{ name, text, want string }{
		{"one word", "vault_redirect_status", `[{"handle":[` + plain + `]}]`},
		{"empty block", "vault_redirect_status {\n}", `[{"handle":[` + plain + `]}]`},
		{"path", "vault_redirect_status /status", `[{"match":[{"path":["/status"]}],"handle":[` + plain + `]}]`},
		{
			"matcher", "@operator remote_ip 127.0.0.0/8\nvault_redirect_status @operator",
			`[{"match":[{"remote_ip":{"ranges":["127.0.0.0/8"]}}],"handle":[` + plain + `]}]`,
		},
		{"refresh", "vault_redirect_status {\nrefresh 1m\n}", `[{"handle":[{"handler":"vault_redirect_status","refresh":60000000000}]}]`},
		{"no refresh", "vault_redirect_status {\nrefresh 0\n}", `[{"handle":[{"handler":"vault_redirect_status","refresh":0}]}]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := adaptSite(tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestStatusPageCaddyfileErrors(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"argument", "vault_redirect_status 5s", `unexpected argument "5s": after a matcher, which begins with / or @ or is *, settings go in a block`},
		{"two paths", "vault_redirect_status /a /b", `unexpected argument "/b"`},
		{"unknown option", "vault_redirect_status {\nrefrehs 5s\n}", `unknown option "refrehs"; expected one of: refresh, at Caddyfile:3`},
		{"twice", "vault_redirect_status {\nrefresh 5s\nrefresh 6s\n}", "refresh is given twice, at Caddyfile:4"},
		{"no value", "vault_redirect_status {\nrefresh\n}", "refresh: a value is missing, at Caddyfile:3"},
		{"two values", "vault_redirect_status {\nrefresh 5s 6s\n}", "refresh: it takes one value, not 2"},
		{"off", "vault_redirect_status {\nrefresh off\n}", `refresh: "off" is not a duration such as 30s`},
		{"negative", "vault_redirect_status {\nrefresh -5s\n}", `refresh: "-5s" is not a duration`},
		{"too short", "vault_redirect_status {\nrefresh 500ms\n}", "refresh: 500ms is neither 0 nor from 1s to 24h, at Caddyfile:3"},
		{"too long", "vault_redirect_status {\nrefresh 2d\n}", "refresh: 48h0m0s is neither 0 nor from 1s to 24h"},
		{"block in an option", "vault_redirect_status {\nrefresh 5s {\n}\n}", "refresh"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := adaptSite(tc.text); err == nil {
				t.Errorf("accepted: %s", got)
			} else if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q, want %q", err, tc.want)
			}
		})
	}
	short := caddy.Duration(time.Millisecond)
	if err := (&StatusPage{Refresh: &short}).Validate(); err == nil {
		t.Error("a refresh of 1ms in JSON is accepted")
	}
}
