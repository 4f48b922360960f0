// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// pageMistakes are the mistakes that docs/check.md shows, by its headings.
var pageMistakes = []struct{ heading, mistake, balancer string }{
	{"One Vault is registered twice", "one Vault, registered through a balancer with another agent, too", ""},
	{"All nodes are registered with the balancer's address", "api_addr is the balancer's", "vault.example.com:8200"},
	{"api_addr has no port", "api_addr has no port", ""},
	{"A proxy cuts blocking queries short", "a proxy cuts blocking queries short", ""},
	{"The listener expects the PROXY protocol", "a listener that expects the PROXY protocol", ""},
}

// TestCheckPage compares what docs/check.md shows with what check prints of scripted clusters. With -v, it prints that.
func TestCheckPage(t *testing.T) {
	noConsulEnv(t)
	page, err := os.ReadFile("docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pageMistakes {
		m := mistakes[slices.IndexFunc(mistakes, func(m mistake) bool { return m.name == p.mistake })]
		got := printed(t, m)
		if p.balancer != "" {
			got = strings.ReplaceAll(got, "vault-0.example.com:8200", p.balancer)
		}
		if testing.Verbose() {
			fmt.Printf("\n%s\n\n%s", p.heading, got)
		}
		_, rest, found := strings.Cut(strings.ReplaceAll(string(page), "\r\n", "\n"), "\n## "+p.heading+"\n")
		_, rest, _ = strings.Cut(rest, "```console\n")
		shown, _, _ := strings.Cut(rest, "```")
		if !found || shown != "$ caddy vault-redirect check --config Caddyfile\n"+got {
			t.Errorf("docs/check.md shows under %q\n%s\nbut check prints\n%s", p.heading, shown, got)
		}
	}
}

// printed is what check prints of a mistake, without the lines that are ok, and as if the nodes had names and TLS.
func printed(t *testing.T, m mistake) string {
	t.Helper()
	c := mistaken(t, m)
	list, _ := m.findings(t, c, m.site)
	names := namesFor(c)
	for i := range list {
		f := &list[i]
		f.Subject, f.Detail, f.Remedy = names(f.Subject), names(f.Detail), names(f.Remedy)
	}
	var b strings.Builder
	if err := doctor.Print(&b, []doctor.Report{{Title: names("vault (consul " + c.Consul.Addr() + ")"), Findings: list}}); err != nil {
		t.Fatal(err)
	}
	text := ""
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "  ok ") {
			text += line
		}
	}
	return text
}

// namesFor returns a function that replaces what differs from one run to the next.
func namesFor(c *standin.Cluster) func(string) string {
	replace := []string{c.Consul.Addr(), "127.0.0.1:8500", "http://", "https://"}
	for i, v := range c.Vaults {
		replace = append(replace, v.Addr(), fmt.Sprintf("vault-%d.example.com:8200", i))
	}
	localhost, after := regexp.MustCompile(`localhost is [0-9a-f.:, ]*, port`), regexp.MustCompile(`after 1\.\ds`)
	return func(text string) string {
		text = localhost.ReplaceAllString(strings.NewReplacer(replace...).Replace(text), "vault-0 is 192.0.2.10, port")
		return strings.ReplaceAll(after.ReplaceAllString(text, "after 1.2s"), "localhost", "vault-0")
	}
}
