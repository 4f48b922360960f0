// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	vaultredirect "github.com/vault-redirector/caddy-vault-redirect"
)

// caddyfile loads a Caddyfile that is an example.
func caddyfile(t *testing.T, text string) {
	if !strings.HasPrefix(text, "# ") {
		t.Error("it does not begin with a comment that says what it shows")
	}
	adapt(t, text)
}

// adapt adapts a Caddyfile, without a warning, and validates the outcome.
func adapt(t *testing.T, text string) {
	t.Helper()
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Errorf("line %d: %s", w.Line, w.Message)
	}
	validate(t, adapted)
}

// validate does what caddy validate does: every module is provisioned, nothing is started.
func validate(t *testing.T, text []byte) {
	var c caddy.Config
	if err := caddy.StrictUnmarshalJSON(text, &c); err != nil {
		t.Fatal(err)
	}
	// What Caddy keeps goes here rather than into the home folder.
	c.StorageRaw = json.RawMessage(`{"module": "file_system", "root": ` + quote(t.TempDir()) + `}`)
	if err := caddy.Validate(&c); err != nil {
		t.Fatal(err)
	}
}

// filtered fails for a Caddyfile whose logs would have tokens.
func filtered(t *testing.T, text string) {
	t.Helper()
	for _, header := range []string{"X-Vault-Token", "X-Consul-Token", "X-Vault-Mfa", "Authorization", "Cookie"} {
		if !strings.Contains(text, "request>headers>"+header+" delete") {
			t.Errorf("%s is not filtered from the logs", header)
		}
	}
}

func withoutConsul(t *testing.T, text string) {
	setFiles(t)
	caddyfile(t, text)
	filtered(t, text)
	// What is commented out is to be true as well.
	leader := strings.Replace(text, "#   redirect_to leader", "redirect_to leader", 1)
	if leader == text {
		t.Fatal("redirect_to leader is not found")
	}
	caddyfile(t, leader)
	for _, nodes := range []string{"https://vault-internal.vault.svc:8200", "https://10.0.0.1:8200 https://10.0.0.2:8200"} {
		t.Setenv("VAULT_REDIRECT_NODES", nodes)
		caddyfile(t, text)
	}
}

func proxy(t *testing.T, text string) {
	setFiles(t)
	caddyfile(t, text)
	named := strings.Replace(text, "# server_name ", "server_name ", 1)
	if named == text {
		t.Fatal("server_name is not found")
	}
	caddyfile(t, named)
}

func proxyAll(t *testing.T, text string) {
	setFiles(t)
	caddyfile(t, text)
}

func status(t *testing.T, text string) {
	if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil); err == nil {
		t.Error("it is served without a password")
	}
	t.Setenv("VAULT_REDIRECT_PASSWORD_HASH", "$2a$14$g4VWYh4L2fAc1aP3fLFzjuHpX1iK/OAn2bzdrWFRqpIbxMsRqGvsG")
	caddyfile(t, text)
	t.Setenv("VAULT_REDIRECT_OPERATORS", "10.0.0.0/8")
	caddyfile(t, text)
}

func production(t *testing.T, text string) {
	f := setFiles(t)
	caddyfile(t, text)
	filtered(t, text)
	// What is commented out is to be true as well.
	safe(t, text)
	for _, comment := range []string{"\t# log\n", "\t\t\t\t# server_name "} {
		with := strings.Replace(text, comment, strings.Replace(comment, "# ", "", 1), 1)
		if with == text {
			t.Fatalf("%q is not found", comment)
		}
		caddyfile(t, with)
	}
	const plain = "# http:// {\n# \timport redirect\n# }\n"
	if !strings.Contains(text, plain) {
		t.Fatal("the http site is not found")
	}
	caddyfile(t, strings.Replace(text, plain, strings.ReplaceAll(plain, "# ", ""), 1))
	// The alternative that is commented out is loaded in place of the site before it.
	site := regexp.MustCompile(`(?ms)^https:// \{.*?^\}\n`)
	commented := regexp.MustCompile(`(?ms)^# https://vault\.example\.com \{\n.*?^# \}\n`)
	acme := regexp.MustCompile(`(?m)^# `).ReplaceAllString(commented.FindString(text), "")
	if acme == "" || !site.MatchString(text) {
		t.Fatal("the two https sites are not found")
	}
	acme = strings.ReplaceAll(acme, "/etc/vault-redirect/acme-ca.pem", f.cert)
	caddyfile(t, site.ReplaceAllLiteralString(commented.ReplaceAllLiteralString(text, ""), acme))
}

// safe fails for a Caddyfile that serves or redirects to plain http, logs the paths of secrets, lets others change the config,
// or ends without draining.
func safe(t *testing.T, text string) {
	t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Admin struct{ Listen string }
		Apps  struct {
			HTTP struct {
				GracePeriod   caddy.Duration `json:"grace_period"`
				ShutdownDelay caddy.Duration `json:"shutdown_delay"`
				Servers       map[string]struct {
					Listen    []string
					Logs      *struct{}
					AutoHTTPS struct {
						DisableRedirects bool `json:"disable_redirects"`
					} `json:"automatic_https"`
					TLS []struct{} `json:"tls_connection_policies"`
				}
			}
		}
	}
	if err := json.Unmarshal(adapted, &c); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.Admin.Listen, "unix/") {
		t.Errorf("the admin API is at %s", c.Admin.Listen)
	}
	if c.Apps.HTTP.ShutdownDelay <= 0 || time.Duration(c.Apps.HTTP.GracePeriod) < 50*time.Second {
		t.Errorf("shutdown_delay %v, grace_period %v", c.Apps.HTTP.ShutdownDelay, c.Apps.HTTP.GracePeriod)
	}
	redirectors := 0
	for name, server := range c.Apps.HTTP.Servers {
		if server.Logs != nil {
			t.Errorf("%s logs requests", name)
		}
		if !slices.ContainsFunc(server.Listen, func(address string) bool { return strings.HasSuffix(address, ":443") }) {
			continue
		}
		if redirectors++; len(server.TLS) == 0 || !server.AutoHTTPS.DisableRedirects {
			t.Errorf("%s: TLS %v, redirects of plain http disabled: %v", name, server.TLS, server.AutoHTTPS.DisableRedirects)
		}
	}
	if redirectors != 1 || strings.Contains(string(adapted), `"scheme":"http"`) {
		t.Errorf("%d servers at port 443, want one, which redirects to https: %s", redirectors, adapted)
	}
	filtered(t, text)
}

func fleet(t *testing.T, text string) {
	setFiles(t)
	caddyfile(t, text)
	safe(t, text)
	if drained, interval := duration(t, text, `(?m)^\tshutdown_delay (\S+)$`), duration(t, page(t, "examples/redirector-service.json"), `"interval": "(\S+)"`); drained < 3*interval {
		t.Errorf("it drains for %s, too short for a check every %s", drained, interval)
	}
	caddyfile(t, uncommented(t, text, "\t# storage "))
}

func internalCA(t *testing.T, text string) {
	f := setFiles(t)
	caddyfile(t, text)
	filtered(t, text)
	root := text
	for _, line := range []string{"\t\t\t# root {", "\t\t\t# \tcert ", "\t\t\t# \tkey ", "\t\t\t# }"} {
		root = uncommented(t, root, line)
	}
	caddyfile(t, strings.NewReplacer("/etc/vault-redirect/root.crt", f.cert, "/etc/vault-redirect/root.key", f.key).Replace(root))
}

// uncommented takes the comment from a line, which is to be true as well.
func uncommented(t *testing.T, text, line string) string {
	t.Helper()
	with := strings.Replace(text, line, strings.Replace(line, "# ", "", 1), 1)
	if with == text {
		t.Fatalf("%q is not found", line)
	}
	return with
}

func config(t *testing.T, text string) {
	f := newFiles(t)
	paths := strings.NewReplacer(
		`"/etc/vault-redirect/consul-token"`, quote(f.token),
		`"/etc/vault-redirect/consul-ca.pem"`, quote(f.cert),
		`"/etc/vault-redirect/consul-client.pem"`, quote(f.cert),
		`"/etc/vault-redirect/consul-client-key.pem"`, quote(f.key),
		`"/etc/vault-redirect/vault-ca.pem"`, quote(f.cert),
	)
	validate(t, []byte(paths.Replace(text)))

	var c struct {
		Apps struct {
			HTTP struct {
				Servers struct {
					Vault struct {
						Routes []struct{ Handle []map[string]any }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	handler := c.Apps.HTTP.Servers.Vault.Routes[0].Handle[0]
	discovery, _ := handler["discovery"].(map[string]any)
	tls, _ := discovery["tls"].(map[string]any)
	probe, _ := handler["probe"].(map[string]any)
	complete(t, "handler", handler, vaultredirect.Handler{})
	complete(t, "probe", probe, vaultredirect.Probe{})
	complete(t, "discovery", discovery, vaultredirect.Consul{})
	complete(t, "tls", tls, vaultredirect.TLS{})
}

// complete fails for each field of a module that its object in the config does not have.
func complete(t *testing.T, where string, object map[string]any, module any) {
	t.Helper()
	for _, name := range optionsOf(module) {
		if name == "token" { // excludes token_file
			continue
		}
		if _, ok := object[name]; !ok {
			t.Errorf("%s: the option %q is missing", where, name)
		}
	}
}

// optionsOf returns the names of a module's options.
func optionsOf(module any) (names []string) {
	for _, field := range reflect.VisibleFields(reflect.TypeOf(module)) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}
