// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// adaptDirective adapts a site of which line 2 and the following are the text, and returns what it makes of vault_redirect.
func adaptDirective(text string) (string, error) {
	out, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(":8080 {\n"+text+"\n}\n"), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Match  json.RawMessage
						Handle []json.RawMessage
					}
				}
			}
		}
	}
	if err := json.Unmarshal(out, &config); err != nil {
		return "", err
	}
	var parts []string
	for _, route := range config.Apps.HTTP.Servers["srv0"].Routes {
		if route.Match != nil {
			parts = append(parts, string(route.Match))
		}
		for _, handler := range route.Handle {
			parts = append(parts, string(handler))
		}
	}
	return strings.Join(parts, " "), nil
}

func TestCaddyfile(t *testing.T) {
	discovery := func(fields string) string {
		// Fields come in alphabetical order.
		before, after, _ := strings.Cut(fields, "…")
		return `{"discovery":{` + before + `"source":"consul"` + after + `},"handler":"vault_redirect"}`
	}
	handler := func(fields string) string {
		return `{"discovery":{"source":"consul"},"handler":"vault_redirect"` + fields + `}`
	}
	consul := func(option string) string { return "vault_redirect {\nconsul {\n" + option + "\n}\n}" }
	for _, tc := range []struct{ name, text, want string }{
		{"one word", "vault_redirect", handler("")},
		{"empty block", "vault_redirect {\n}", handler("")},
		{"address", "vault_redirect 127.0.0.2:8500", discovery(`"address":"127.0.0.2:8500",`)},
		{"matcher", "vault_redirect /v1/*", `[{"path":["/v1/*"]}] ` + handler("")},
		{"matcher and address", "vault_redirect * https://consul:8501", discovery(`"address":"https://consul:8501",`)},
		{"named matcher", "@get method GET\nvault_redirect @get", `[{"method":["GET"]}] ` + handler("")},
		{"address and block", "vault_redirect consul:8500 {\nport 443\n}", `{"discovery":{"address":"consul:8500","source":"consul"},"handler":"vault_redirect","port":443}`},
		{"address, then consul without", "vault_redirect a:1 {\nconsul {\nservice v\n}\n}", discovery(`"address":"a:1","service":"v",`)},
		{"consul alone", "vault_redirect {\nconsul\n}", handler("")},
		{"consul with address", "vault_redirect {\nconsul unix:///run/consul.sock\n}", discovery(`"address":"unix:///run/consul.sock",`)},
		{"service", consul("service vault-prod"), discovery(`"service":"vault-prod",`)},
		{"active_by auto", consul("active_by auto"), discovery(`"active_by":"auto",`)},
		{"active_by tag", consul("active_by tag"), discovery(`"active_by":"tag",`)},
		{"active_by check", consul("active_by check"), discovery(`"active_by":"check",`)},
		{"tag", consul("tag leader"), discovery(`…,"tag":"leader"`)},
		{"check_id", consul(`check_id "service:vault api"`), discovery(`"check_id":"service:vault api",`)},
		{"token", consul("token {env.CONSUL_TOKEN}"), discovery(`…,"token":"{env.CONSUL_TOKEN}"`)},
		{"no token, whatever the environment says", consul(`token ""`), discovery(`…,"token":""`)},
		{"token_file", consul("token_file /run/token"), discovery(`…,"token_file":"/run/token"`)},
		{"datacenter", consul("datacenter dc2"), discovery(`"datacenter":"dc2",`)},
		{"namespace", consul("namespace ns"), discovery(`"namespace":"ns",`)},
		{"partition", consul("partition p"), discovery(`"partition":"p",`)},
		{"peer", consul("peer east"), discovery(`"peer":"east",`)},
		{"consistency default", consul("consistency default"), discovery(`"consistency":"default",`)},
		{"consistency stale", consul("consistency stale"), discovery(`"consistency":"stale",`)},
		{"consistency consistent", consul("consistency consistent"), discovery(`"consistency":"consistent",`)},
		{"poll_interval", consul("poll_interval 1m30s"), discovery(`"poll_interval":90000000000,`)},
		{"tls", consul("tls {\nca /ca.pem\ncert /c.pem\nkey /k.pem\nserver_name consul.test\ninsecure_skip_verify\n}"), discovery(
			`…,"tls":{"ca":"/ca.pem","cert":"/c.pem","insecure_skip_verify":true,"key":"/k.pem","server_name":"consul.test"}`)},
		{"empty tls", consul("tls"), discovery(`…,"tls":{}`)},
		{"scheme http", "vault_redirect {\nscheme http\n}", handler(`,"scheme":"http"`)},
		{"scheme https", "vault_redirect {\nscheme https\n}", handler(`,"scheme":"https"`)},
		{"redirect_to", "vault_redirect {\nredirect_to node_name\n}", handler(`,"redirect_to":"node_name"`)},
		{"redirect_to tagged", "vault_redirect {\nredirect_to tagged:wan\n}", handler(`,"redirect_to":"tagged:wan"`)},
		{"redirect_to template", "vault_redirect {\nredirect_to {node}.{datacenter}.{meta.zone}.test\n}", handler(`,"redirect_to":"{node}.{datacenter}.{meta.zone}.test"`)},
		{"redirect_to one placeholder", "vault_redirect {\nredirect_to {node}\n}", handler(`,"redirect_to":"{node}"`)},
		{"name", "vault_redirect {\nname prod\n}", handler(`,"name":"prod"`)},
		{"port", "vault_redirect {\nport 8200\n}", handler(`,"port":8200`)},
		{"health_path", "vault_redirect {\nhealth_path /up\n}", `{"discovery":{"source":"consul"},"handler":"vault_redirect","health_path":"/up"}`},
		{"health_path off", "vault_redirect {\nhealth_path off\n}", `{"discovery":{"source":"consul"},"handler":"vault_redirect","health_path":"off"}`},
		{"max_stale", "vault_redirect {\nmax_stale 1d\n}", handler(`,"max_stale":86400000000000`)},
		{"max_stale 0 is not left out", "vault_redirect {\nmax_stale 0\n}", handler(`,"max_stale":0`)},
		{"retry_after", "vault_redirect {\nretry_after 2s\n}", handler(`,"retry_after":2000000000`)},
		{"pass_thru", "vault_redirect {\npass_thru\n}", handler(`,"pass_thru":true`)},
		{"pass_thru, and what comes next", "vault_redirect {\npass_thru\n}\nvault_redirect {\nname b\n}", handler(`,"pass_thru":true`) + " " + handler(`,"name":"b"`)},
		{"comments and quotes", "vault_redirect { # x\n\"port\" \"1\" # y\n}", handler(`,"port":1`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := adaptDirective(tc.text); err != nil || got != tc.want {
				t.Errorf("error %v\n got %s\nwant %s", err, got, tc.want)
			}
		})
	}
}

func TestCaddyfileRefuses(t *testing.T) {
	consul := func(option string) string { return "vault_redirect {\nconsul {\n" + option + "\n}\n}" }
	for _, tc := range []struct {
		name, text string
		want       []string // the line of the file, the option and what would be right
	}{
		{"unknown option", "vault_redirect {\nshceme https\n}", []string{"Caddyfile:3", `"shceme"`, "scheme", "redirect_to", "health_path"}},
		{"unknown option of consul", consul("prot 1"), []string{"Caddyfile:4", `"prot"`, "service", "poll_interval"}},
		{"unknown option of tls", consul("tls {\nverify\n}"), []string{"Caddyfile:5", `"verify"`, "insecure_skip_verify"}},
		{"option of consul outside", "vault_redirect {\nservice vault\n}", []string{"Caddyfile:3", `"service"`, "consul"}},
		{"second address", "vault_redirect a:1 b:2", []string{"Caddyfile:2", "only the address"}},
		{"second address of consul", "vault_redirect {\nconsul a:1 b:2\n}", []string{"Caddyfile:3", "only the address"}},
		{"address twice", "vault_redirect a:1 {\nconsul b:2\n}", []string{"Caddyfile:3", "address", "twice", "a:1", "b:2"}},
		{"consul twice", "vault_redirect {\nconsul a:1\nconsul\n}", []string{"Caddyfile:4", "consul", "twice"}},
		{"pass_thru with an argument", "vault_redirect {\npass_thru off\n}", []string{"Caddyfile:3", "pass_thru", `"off"`, "none"}},
		{"pass_thru twice", "vault_redirect {\npass_thru\npass_thru\n}", []string{"Caddyfile:4", "pass_thru", "twice"}},
		{"scheme twice", "vault_redirect {\nscheme http\nscheme http\n}", []string{"Caddyfile:4", "scheme", "twice"}},
		{"max_stale twice", "vault_redirect {\nmax_stale 0\nmax_stale 0\n}", []string{"Caddyfile:4", "max_stale", "twice"}},
		{"tag twice", consul("tag a\ntag b"), []string{"Caddyfile:5", "tag", "twice"}},
		{"tls twice", consul("tls\ntls"), []string{"Caddyfile:5", "tls", "twice"}},
		{"ca twice", consul("tls {\nca a\nca a\n}"), []string{"Caddyfile:6", "ca", "twice"}},
		{"tls with an argument", consul("tls on"), []string{"Caddyfile:4", "tls", `"on"`, "block"}},
		{"insecure_skip_verify true", consul("tls {\ninsecure_skip_verify true\n}"), []string{"Caddyfile:5", "insecure_skip_verify", `"true"`, "none"}},
		{"scheme ftp", "vault_redirect {\nscheme ftp\n}", []string{"Caddyfile:3", "scheme", `"ftp"`, "https or http"}},
		{"active_by", consul("active_by leader"), []string{"Caddyfile:4", "active_by", `"leader"`, "auto or tag or check"}},
		{"select, as it was called once", consul("select auto"), []string{"Caddyfile:4", "unknown option", `"select"`, "active_by"}},
		{"consistency", consul("consistency strong"), []string{"Caddyfile:4", "consistency", `"strong"`, "stale"}},
		{"port 0", "vault_redirect {\nport 0\n}", []string{"Caddyfile:3", "port", `"0"`, "1 to 65535"}},
		{"port 65536", "vault_redirect {\nport 65536\n}", []string{"Caddyfile:3", "port", "1 to 65535"}},
		{"port -1", "vault_redirect {\nport -1\n}", []string{"Caddyfile:3", "port", "1 to 65535"}},
		{"port by name", "vault_redirect {\nport https\n}", []string{"Caddyfile:3", "port", `"https"`, "1 to 65535"}},
		{"negative max_stale", "vault_redirect {\nmax_stale -5s\n}", []string{"Caddyfile:3", "max_stale", `"-5s"`, "duration"}},
		{"negative retry_after", "vault_redirect {\nretry_after -1ms\n}", []string{"Caddyfile:3", "retry_after", `"-1ms"`}},
		{"negative poll_interval", consul("poll_interval -1s"), []string{"Caddyfile:4", "poll_interval", `"-1s"`, "30s"}},
		{"duration without unit", "vault_redirect {\nmax_stale 5\n}", []string{"Caddyfile:3", "max_stale", `"5"`, "30s"}},
		{"block after a value", "vault_redirect {\nport 1 {\n}\n}", []string{"Caddyfile:3"}},
		{"block after consul's address", "vault_redirect {\nconsul a:1 {\nservice {\nx\n}\n}\n}", []string{"Caddyfile:4", "service", "value is missing"}},
		// A stray block names the option that takes none.
		{"block where none goes", "vault_redirect {\nscheme https {\n}\n}", []string{"Caddyfile:3", "scheme", "block"}},
		{"block after tag", consul("tag active {\nx\n}"), []string{"Caddyfile:4", "tag", "block"}},
		// What needs no file is found here, where file and line are known.
		{"unknown redirect_to", "vault_redirect {\nredirect_to node-name\n}", []string{"Caddyfile:3", "redirect_to", `"node-name"`, "node_name"}},
		{"bad template", "vault_redirect {\nredirect_to {nod}.x\n}", []string{"Caddyfile:3", "redirect_to", "{nod}", "{node}"}},
		{"health_path without slash", "vault_redirect {\nhealth_path up\n}", []string{"Caddyfile:3", "health_path", `"up"`, "off"}},
		{"health_path in Vault's API", "vault_redirect {\nhealth_path /v1/sys/health\n}", []string{"Caddyfile:3", "health_path"}},
		{"long poll_interval", consul("poll_interval 11m"), []string{"Caddyfile:4", "poll_interval", "10m"}},
		// 0 is not the default.
		{"poll_interval 0", consul("poll_interval 0"), []string{"Caddyfile:4", "poll_interval", "1s"}},
		{"short poll_interval", consul("poll_interval 999ms"), []string{"Caddyfile:4", "poll_interval", "999ms", "1s"}},
		{"token and token_file", consul("token a\ntoken_file b"), []string{"Caddyfile:", "token", "token_file"}},
		{"no token and token_file", consul("token \"\"\ntoken_file b"), []string{"Caddyfile:", "token", "token_file"}},
		{"token without a value", consul("token"), []string{"Caddyfile:4", "token", "one value, not 0"}},
		{"name without a value", "vault_redirect {\nname\n}", []string{"Caddyfile:3", "name", "value is missing"}},
		{"name twice", "vault_redirect {\nname a\nname b\n}", []string{"Caddyfile:4", "name", "twice"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := adaptDirective(tc.text)
			if err == nil {
				t.Fatalf("adapted to %s", got)
			}
			wantError(t, err, tc.want...)
		})
	}
	for _, option := range []string{"scheme", "redirect_to", "port", "health_path", "max_stale", "retry_after"} {
		for _, value := range []string{"", ` ""`} {
			_, err := adaptDirective("vault_redirect {\n" + option + value + "\n}")
			wantError(t, err, "Caddyfile:3", option, "value is missing")
		}
		_, err := adaptDirective("vault_redirect {\n" + option + " a b\n}")
		wantError(t, err, "Caddyfile:3", option, "one value, not 2")
	}
	for _, option := range []string{"service", "active_by", "tag", "check_id", "token_file", "datacenter", "namespace", "partition", "peer", "consistency", "poll_interval"} {
		_, err := adaptDirective(consul(option))
		wantError(t, err, "Caddyfile:4", option, "value is missing")
		_, err = adaptDirective(consul(option + " a b"))
		wantError(t, err, "Caddyfile:4", option, "one value, not 2")
	}
	for _, option := range []string{"ca", "cert", "key", "server_name"} {
		_, err := adaptDirective(consul("tls {\n" + option + "\n}"))
		wantError(t, err, "Caddyfile:5", option, "value is missing")
	}
}

// validate does what `caddy validate` does with a config that has the handler.
func validate(handler string) error {
	text := `{"admin":{"disabled":true},"logging":{"logs":{"default":{"level":"PANIC"}}},"apps":{"http":{"servers":{"s":{
		"listen":["127.0.0.1:0"],"routes":[{"handle":[` + handler + `]}]}}}}}`
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON([]byte(text), &config); err != nil {
		return err
	}
	return caddy.Validate(&config)
}

func TestValidateJSON(t *testing.T) {
	clearConsulEnv(t)
	handler := func(fields string) string { return `{"handler":"vault_redirect"` + fields + `}` }
	discovery := func(fields string) string { return handler(`,"discovery":{"source":"consul"` + fields + `}`) }
	for _, tc := range []struct {
		name, config string
		want         []string // nil: valid
	}{
		{"nothing", handler(""), nil},
		{"source only", discovery(""), nil},
		{"all of it", handler(`,"discovery":{"source":"consul","address":"127.0.0.1:8500","service":"vault","active_by":"auto","tag":"active","check_id":"",
			"token_file":"","datacenter":"","namespace":"","partition":"","peer":"","consistency":"default","poll_interval":"30s",
			"tls":{"ca":"","cert":"","key":"","server_name":"","insecure_skip_verify":false}},"scheme":"https","redirect_to":"auto","port":0,
			"health_path":"/vault-redirector-health","max_stale":"5m","retry_after":"1s"`), nil},
		{"max_stale 0", handler(`,"max_stale":0`), nil},
		{"unknown field", handler(`,"shceme":"http"`), []string{`unknown field "shceme"`}},
		{"unknown field of consul", discovery(`,"sevice":"x"`), []string{"discovery", `unknown field "sevice"`}},
		{"unknown field of tls", discovery(`,"tls":{"verify":true}`), []string{`unknown field "verify"`}},
		{"unknown source", handler(`,"discovery":{"source":"etcd"}`), []string{"discovery", "etcd"}},
		{"no source", handler(`,"discovery":{"address":"127.0.0.1:8500"}`), []string{"discovery", "source"}},
		{"scheme", handler(`,"scheme":"ftp"`), []string{"scheme", `"ftp"`, "http or https"}},
		{"redirect_to", handler(`,"redirect_to":"host"`), []string{"redirect_to", `"host"`, "node_name"}},
		{"port", handler(`,"port":70000`), []string{"port", "70000", "65535"}},
		{"port as text", handler(`,"port":"8200"`), []string{"port"}},
		{"health_path", handler(`,"health_path":"up"`), []string{"health_path", `"up"`, "off"}},
		{"health_path in Vault's API", handler(`,"health_path":"/v1/sys/health"`), []string{"health_path", "Vault"}},
		{"health_path /", handler(`,"health_path":"/"`), []string{"health_path"}},
		{"max_stale", handler(`,"max_stale":"-1s"`), []string{"max_stale", "-1s"}},
		{"retry_after", handler(`,"retry_after":-1`), []string{"retry_after"}},
		{"active_by", discovery(`,"active_by":"leader"`), []string{"discovery", "active_by", `"leader"`, "auto, tag or check"}},
		{"select", discovery(`,"select":"auto"`), []string{`unknown field "select"`}},
		{"no token", discovery(`,"token":""`), nil},
		{"no token and token_file", discovery(`,"token":"","token_file":"x"`), []string{"token", "token_file"}},
		{"consistency", discovery(`,"consistency":"x"`), []string{"consistency", `"x"`, "stale"}},
		{"poll_interval", discovery(`,"poll_interval":"999ms"`), []string{"poll_interval", "999ms", "1s"}},
		{"negative poll_interval", discovery(`,"poll_interval":"-30s"`), []string{"poll_interval", "1s"}},
		{"long poll_interval", discovery(`,"poll_interval":"10m1s"`), []string{"poll_interval", "10m"}},
		{"service", discovery(`,"service":"a/b"`), []string{"service", `"a/b"`}},
		{"address", discovery(`,"address":"ftp://x"`), []string{"address", "ftp", "https"}},
		{"token and token_file", discovery(`,"token":"a","token_file":"b"`), []string{"token", "token_file"}},
		{"token_file", discovery(`,"token_file":"/nonexistent/token"`), []string{"token_file", "/nonexistent/token"}},
		{"ca", discovery(`,"tls":{"ca":"/nonexistent/ca"}`), []string{"tls ca", "/nonexistent/ca"}},
		{"cert without key", discovery(`,"tls":{"cert":"/c"}`), []string{"tls", "cert", "key"}},
		{"placeholder of nothing", discovery(`,"token":"{env.VAULT_REDIRECT_NONE}"`), []string{"token", "VAULT_REDIRECT_NONE"}},
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
