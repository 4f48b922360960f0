// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package harness

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func TestMain(m *testing.M) { os.Exit(MainAsCaddy(m, caddycmd.Main)) }

// answering is a site that answers with a text.
func answering(text string) string {
	return "{\n\tmetrics\n}\nhttp://{ip}:8080 {\n\tbind {ip}\n\trespond \"" + text + "\"\n}\n"
}

// says is what the site of answering says now.
func says(t *testing.T, c *Caddy) string {
	t.Helper()
	resp, err := healthClient.Get("http://" + c.IP + ":8080/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCaddyAndItsReloads(t *testing.T) {
	t.Parallel()
	c := Run(t, Options{Caddyfile: answering("one")})
	if got := says(t, c); got != "one" {
		t.Errorf("it says %q", got)
	}
	if err := c.Load(t.Context(), answering("two")); err != nil {
		t.Error(err)
	}
	if got := says(t, c); got != "two" {
		t.Errorf("after a reload by the admin API it says %q", got)
	}
	if err := c.Reload(t.Context(), answering("three")); err != nil {
		t.Error(err)
	}
	if got := says(t, c); got != "three" {
		t.Errorf("after caddy reload it says %q", got)
	}
	const wrong = "http://{ip}:8080 {\n\tno_such_directive\n}\n"
	for name, load := range map[string]func(context.Context, string) error{"the admin API": c.Load, "caddy reload": c.Reload} {
		if err := load(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "no_such_directive") {
			t.Errorf("a wrong config by %s: %v", name, err)
		}
	}
	if got := says(t, c); got != "three" {
		t.Errorf("after wrong configs it says %q", got)
	}
	if text, err := c.Metrics(t.Context()); err != nil || !strings.Contains(text, "caddy_http_requests_total") {
		t.Errorf("metrics: %v: %.200s", err, text)
	}
	if g, err := c.Goroutines(t.Context()); err != nil || g.Total < 3 || g.In("net/http.(*Server).Serve") == 0 || g.Ours() != 0 {
		t.Errorf("goroutines: %v: %+v", err, g)
	}
	if runtime.GOOS == "linux" {
		if memory, err := c.Memory(); err != nil || memory < 1<<20 {
			t.Errorf("memory: %d, %v", memory, err)
		}
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if code, err := c.Wait(t.Context()); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if _, _, err := c.Ask(t.Context(), http.MethodGet, "/config/", "", ""); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a question after the end: %v", err)
	}
}

func TestAdminByTCPAndJSON(t *testing.T) {
	t.Parallel()
	ip, err := Loopback()
	if errors.Is(err, errNotLinux) {
		t.Skip(err)
	}
	c := Run(t, Options{
		IP: ip, Admin: ip + ":2019", Env: []string{"TEXT=by env"},
		JSON: `{"apps": {"http": {"servers": {"s": {"listen": ["{ip}:8080"],
			"routes": [{"handle": [{"handler": "static_response", "body": "{env.TEXT}"}]}]}}}}}`,
	})
	if got := says(t, c); got != "by env" {
		t.Errorf("it says %q", got)
	}
	if code, answer, err := c.Ask(t.Context(), http.MethodGet, "/config/apps/http/servers/s/listen", "", ""); err != nil || code != 200 || answer != `["`+c.IP+`:8080"]`+"\n" {
		t.Errorf("status %d, %v: %s", code, err, answer)
	}
}

func TestWhatCannotStart(t *testing.T) {
	t.Parallel()
	ip, err := Loopback()
	if errors.Is(err, errNotLinux) {
		t.Skip(err)
	}
	for _, row := range []struct {
		name string
		o    Options
		want string
	}{
		{"nothing to run", Options{}, "one of Caddyfile, JSON and Args"},
		{"two configs", Options{Caddyfile: "a", JSON: "{}"}, "one of Caddyfile, JSON and Args"},
		{"a wrong config", Options{Caddyfile: "{\n\tno_such_option\n}\n"}, "no_such_option"},
		{"a command that ends", Options{Args: []string{"version"}}, "has ended (exit status 0)"},
		{"no such program", Options{Program: "/no/such/caddy", Args: []string{"run"}}, "/no/such/caddy"},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.o.IP = ip
			if c, err := Start(t.Context(), row.o); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q; %v", err, row.want, c.Close())
			}
		})
	}
	var none *Caddy
	if err := none.Close(); err != nil {
		t.Error(err)
	}
}

func TestParseGoroutines(t *testing.T) {
	t.Parallel()
	const text = "goroutine profile: total 14\n" +
		"10 @ 0x1 0x2\n#\t0x1\tgithub.com/vault-redirector/caddy-vault-redirect/internal/engine.(*pool).run+0x8\t/x/pool.go:1\n\n" +
		"2 @ 0x3\n#\t0x3\tnet/http.(*persistConn).roundTrip+0x1\t/x/t.go:1\n#\t0x4\tgithub.com/hashicorp/consul/api.(*Client).doRequest+0x1\t/x/api.go:1\n\n" +
		"1 @ 0x5\n#\t0x5\tgithub.com/vault-redirector/caddy-vault-redirect/internal/testing/integration.TestMain+0x1\t/caddy-vault-redirect.d/m.go:1\n\n" +
		"1 @ 0x6\n#\t0x6\tgithub.com/vault-redirector/caddy-vault-redirect.(*Handler).ServeHTTP+0x1\t/x/h.go:1\n"
	g, err := parseGoroutines(text)
	if err != nil {
		t.Fatal(err)
	}
	if g.Total != 14 || g.Ours() != 13 || g.In("(*Handler).ServeHTTP") != 1 {
		t.Errorf("total %d, ours %d: %+v", g.Total, g.Ours(), g)
	}
	if _, err := parseGoroutines("404 page not found"); err == nil {
		t.Error("no profile, and no error")
	}
}
