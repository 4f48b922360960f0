// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/check"
	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// runCheckCommand runs the command and returns what it prints and its exit code. An error comes as the text.
func runCheckCommand(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := check.Command(loadForCheck)
	if err := cmd.ParseFlags(args); err != nil {
		return err.Error(), 1
	}
	var b strings.Builder
	code, err := check.Run(&b, caddycmd.Flags{FlagSet: cmd.Flags()}, loadForCheck)
	if err != nil {
		return err.Error(), code
	}
	return b.String(), code
}

// findingsOf runs the command with --json, and a timeout that is soon over.
func findingsOf(t *testing.T, args ...string) (list []doctor.Finding, code int) {
	t.Helper()
	out, code := runCheckCommand(t, append([]string{"--timeout", "3s", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("exit %d: %v: %s", code, err, out)
	}
	return list, code
}

// wantFinding fails unless there is a finding with the check, the severity, and a text in the subject, the detail or the remedy each.
func wantFinding(t *testing.T, list []doctor.Finding, about string, severity doctor.Severity, subject, detail, remedy string) {
	t.Helper()
	ok := slices.ContainsFunc(list, func(f doctor.Finding) bool {
		return f.Check == about && f.Severity == severity && strings.Contains(f.Subject, subject) && strings.Contains(f.Detail, detail) &&
			strings.Contains(f.Remedy, remedy)
	})
	if !ok {
		t.Errorf("no %s %s of %q with %q and %q in\n%s", severity, about, subject, detail, remedy, dump(list))
	}
}

func dump(list []doctor.Finding) string {
	var b strings.Builder
	_ = doctor.Print(&b, []doctor.Report{{Title: "findings", Findings: list}})
	return b.String()
}

// noConsulEnv keeps the environment's Consul out of a test.
func noConsulEnv(t *testing.T) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "CONSUL_") {
			t.Setenv(name, "")
		}
	}
}

// standIns returns a cluster that a test can change: three nodes on 127.0.0.1, of which the first is active.
func standIns(t *testing.T) *standin.Cluster {
	t.Helper()
	noConsulEnv(t)
	return standin.RunCluster(t, 3)
}

// configFile writes a config, in which {consul} stands for the address of Consul.
func configFile(t *testing.T, consul, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "{consul}", consul)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const localSite = `
http://127.0.0.1:18200 {
	bind 127.0.0.1
	vault_redirect {consul} {
		scheme http
	}
}`

func TestCheckHealthy(t *testing.T) {
	c := standIns(t)
	file := configFile(t, c.Consul.Addr(), localSite)
	list, code := findingsOf(t, "--config", file)
	for _, f := range list {
		if f.Severity != doctor.OK || f.Remedy != "" {
			t.Errorf("%+v", f)
		}
	}
	wantFinding(t, list, "active", doctor.OK, "vault", "vault-0, "+c.Vaults[0].URL()+": it says so itself", "")
	wantFinding(t, list, "mark", doctor.OK, "vault", `tag "active" (active_by auto): it marks vault-0`, "")
	wantFinding(t, list, "standby", doctor.OK, "vault", "vault-1, vault-2", "")
	wantFinding(t, list, "role", doctor.OK, "vault-1", "standby (429)", "")
	wantFinding(t, list, "version", doctor.OK, "vault", "1.21.0", "")
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	out, code := runCheckCommand(t, "--config", file)
	if code != 0 || !strings.HasSuffix(out, " ok, 0 warning, 0 wrong\n") || !strings.HasPrefix(out, "vault (consul "+c.Consul.Addr()+")\n") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	// By its address alone it is not known where the clients are: these nodes are for this machine only.
	list, code = findingsOf(t, "--scheme", "http", c.Consul.Addr())
	wantFinding(t, list, "redirect", doctor.Warning, "vault-0", "loopback", "api_addr")
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, v := range c.Vaults {
		for _, r := range v.Requests() {
			if r.Method != http.MethodGet || r.Path != "/v1/sys/health" || r.Token {
				t.Errorf("%s was asked %+v", v.Name(), r)
			}
		}
	}
}

func TestCheckWithoutConsul(t *testing.T) {
	c := standIns(t)
	list, code := findingsOf(t, "--vault", c.Vaults[0].URL(), "--vault", c.Vaults[1].URL())
	wantFinding(t, list, "nodes", doctor.OK, "127.0.0.1", c.Vaults[1].Addr(), "")
	wantFinding(t, list, "active", doctor.OK, "127.0.0.1", c.Vaults[0].Addr(), "")
	wantFinding(t, list, "role", doctor.OK, c.Vaults[1].Addr(), "standby", "")
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	if n := c.Consul.Queries(); n != 0 {
		t.Errorf("Consul was asked %d times", n)
	}
}

func TestCheckFindsAllHandlers(t *testing.T) {
	c := standIns(t)
	one := map[string]any{"handler": "vault_redirect", "name": "one", "scheme": "http", "discovery": map[string]any{"source": "consul", "address": c.Consul.Addr()}}
	config := map[string]any{"apps": map[string]any{"http": map[string]any{"servers": map[string]any{
		"a": map[string]any{
			"listen": []string{"127.0.0.1:18201"},
			"routes": []any{map[string]any{"handle": []any{map[string]any{
				"handler": "subroute", "routes": []any{map[string]any{"handle": []any{one}}},
			}}}},
		},
		"c": map[string]any{"listen": []string{"127.0.0.1:18203"}, "routes": []any{map[string]any{"handle": []any{one}}}}, // the same once more
		"b": map[string]any{
			"listen": []string{"127.0.0.1:18202"},
			"routes": []any{map[string]any{"handle": []any{map[string]any{
				"handler": "vault_redirect", "name": "two", "discovery": map[string]any{"source": "vault", "urls": []string{c.Vaults[0].URL()}},
			}}}},
		},
	}}}}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := runCheckCommand(t, "--config", file)
	for _, title := range []string{"one (consul " + c.Consul.Addr() + ")\n", "two (without Consul)\n"} {
		if n := strings.Count(out, title); code != 0 || n != 1 {
			t.Errorf("exit %d, %q is there %d times:\n%s", code, title, n, out)
		}
	}
	list, _ := findingsOf(t, "--config", file)
	wantFinding(t, list, "role", doctor.OK, "one (consul "+c.Consul.Addr()+"): vault-1", "standby", "")
}

func TestCheckRefusesBadInput(t *testing.T) {
	noConsulEnv(t)
	none := configFile(t, "", ":18200 {\n\trespond ok\n}\n")
	broken := configFile(t, "", ":18200 {\n\tvault_redirect {\n\t\tnonsense\n\t}\n}\n")
	badJSON := filepath.Join(t.TempDir(), "x.json")
	badOption := filepath.Join(t.TempDir(), "y.json")
	if err := os.WriteFile(badJSON, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(badOption, []byte(`{"routes": [{"handler": "vault_redirect", "hold": -1}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"127.0.0.1:1", "127.0.0.2:1"}, "only one CONSUL_HOST_PORT"},
		{[]string{"127.0.0.1"}, "host:port"},
		{[]string{"127.0.0.1:99999"}, "port 99999"},
		{[]string{"127.0.0.1:1", "--vault", "http://127.0.0.1:1"}, "mutually exclusive"},
		{[]string{"127.0.0.1:1", "--config", none}, "mutually exclusive"},
		{[]string{"--vault", "vault-0:8200"}, "is not the URL of a node"},
		{[]string{"--vault", "http://127.0.0.1:1", "--scheme", "https"}, "scheme: https contradicts"},
		{[]string{"--vault", "http://127.0.0.1:1", "--token-file", none}, "--token-file cannot be used with --vault"},
		{[]string{"--scheme", "ftp", "127.0.0.1:1"}, "is not http or https"},
		{[]string{"--adapter", "caddyfile"}, "--adapter needs --config"},
		{[]string{"--config", none, "--adapter", "nope"}, `no adapter "nope"`},
		{[]string{"--config", none, "--scheme", "http"}, "cannot be used with --config"},
		{[]string{"--config", "/no/such/file"}, "no such file"},
		{[]string{"--config", none}, "no vault_redirect handler found"},
		{[]string{"--config", broken}, "nonsense"},
		{[]string{"--config", badJSON}, "not valid JSON"},
		{[]string{"--config", badOption}, "routes[0]: hold: -1ns is negative"},
		{[]string{"--timeout", "0s", "127.0.0.1:1"}, "--timeout"},
		{[]string{"--timeout", "soon", "127.0.0.1:1"}, "invalid argument"},
		{[]string{"--token-file", "/no/such/token", "127.0.0.1:1"}, "no such file"},
	} {
		if out, code := runCheckCommand(t, row.args...); code != 1 || !strings.Contains(out, row.want) {
			t.Errorf("%v: exit %d, want 1 and %q: %s", row.args, code, row.want, out)
		}
	}
}

func TestCheckShowsNoToken(t *testing.T) {
	const planted = "11111111-PLANTED-2222"
	c := standIns(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(planted+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	echo := func(w http.ResponseWriter, r *http.Request) bool {
		http.Error(w, "token "+r.Header.Get("X-Consul-Token")+" is not known", http.StatusForbidden)
		return true
	}
	site := func(option string) string { return strings.Replace(localSite, "scheme http", option, 1) }
	inConfig := configFile(t, "", site("consul "+c.Consul.Addr()+" {\n\t\t\ttoken "+planted+"\n\t\t}"))
	twoTokens := configFile(t, "", site("consul "+c.Consul.Addr()+" {\n\t\t\ttoken "+planted+" "+planted+"\n\t\t}"))
	for _, row := range []struct {
		name string
		args []string
		env  string
		asks bool // Consul, with the token
	}{
		{"file", []string{"--token-file", file, c.Consul.Addr()}, "", true},
		{"environment", []string{c.Consul.Addr()}, "CONSUL_HTTP_TOKEN", true},
		{"config", []string{"--config", inConfig}, "", true},
		{"two in the config", []string{"--config", twoTokens}, "", false},
		{"as the file", []string{"--token-file", planted, c.Consul.Addr()}, "", false},
		{"as the address", []string{planted}, "", false},
		{"as a second address", []string{c.Consul.Addr(), planted}, "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.env != "" {
				t.Setenv(row.env, planted)
			}
			before := len(c.Consul.Requests())
			for _, fault := range []func(http.ResponseWriter, *http.Request) bool{nil, echo} {
				c.Consul.Handle(fault)
				for _, args := range [][]string{row.args, append(slices.Clone(row.args), "--json")} {
					if out, code := runCheckCommand(t, args...); strings.Contains(out, "PLANTED") {
						t.Errorf("%v: exit %d: %s", args, code, out)
					}
				}
			}
			asked := slices.ContainsFunc(c.Consul.Requests()[before:], func(r standin.Request) bool { return r.Token == planted })
			if asked != row.asks {
				t.Errorf("the token was used: %t, want %t", asked, row.asks)
			}
		})
	}
	// A node's name is foreign text, too.
	c.Consul.Handle(nil)
	e := standin.Active("vault\x1b[31m", standin.Address("127.0.0.1"), portOf(c.Vaults[0]))
	c.Consul.Set("vault", []*api.ServiceEntry{e}...)
	if out, _ := runCheckCommand(t, c.Consul.Addr()); strings.Contains(out, "\x1b") {
		t.Errorf("escape sequence in %q", out)
	}
}
