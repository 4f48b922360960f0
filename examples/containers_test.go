// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// embedded returns the Caddyfile in a file: the lines after one, for as long as they are indented deeper.
func embedded(t *testing.T, text, after string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, after+"\n")
	if !found {
		t.Fatalf("%q is not found", after)
	}
	indent := rest[:len(rest)-len(strings.TrimLeft(rest, " "))]
	var lines []string
	for line := range strings.Lines(rest) {
		line, ok := strings.CutPrefix(line, indent)
		if !ok && strings.TrimSpace(line) != "" {
			break
		}
		lines = append(lines, line)
	}
	return strings.TrimSpace(strings.Join(lines, "")) + "\n"
}

// drains returns how long a Caddy with this Caddyfile may take to end.
func drains(t *testing.T, caddyfile string) time.Duration {
	t.Helper()
	return duration(t, caddyfile, `(?m)^\tshutdown_delay (\S+)$`) + duration(t, caddyfile, `(?m)^\tgrace_period (\S+)$`)
}

// duration returns the one that an expression finds.
func duration(t *testing.T, text, expression string) time.Duration {
	t.Helper()
	found := regexp.MustCompile(expression).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("%s is not found", expression)
	}
	value := found[1]
	if strings.Trim(value, "0123456789") == "" {
		value += "s"
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// longer fails if the container runtime does not wait until Caddy has ended.
func longer(t *testing.T, who string, waits, caddy time.Duration) {
	t.Helper()
	if waits <= caddy {
		t.Errorf("%s waits for %s, no longer than Caddy drains, %s", who, waits, caddy)
	}
}

func dockerfile(t *testing.T, text string) {
	for _, name := range regexp.MustCompile(`VAULT_REDIRECT_\w+`).FindAllString(text, -1) {
		if name != "VAULT_REDIRECT_CONSUL" && !strings.Contains(page(t, "examples/fleet.Caddyfile"), "{$"+name+":") {
			t.Errorf("fleet.Caddyfile has no variable %s", name)
		}
	}
	tags := regexp.MustCompile(`-tags[= ](\S+)`).FindStringSubmatch(text)
	if tags == nil || !strings.Contains(page(t, "Makefile"), "TAGS := "+tags[1]+"\n") {
		t.Errorf("the tags of the build are %q, others than in the Makefile", tags)
	}
	version := regexp.MustCompile(`(?m)^FROM golang:(\d+\.\d+)-`).FindStringSubmatch(text)
	if version == nil || !strings.Contains(page(t, "go.mod"), "\ngo "+version[1]+".") {
		t.Errorf("it builds with Go %q, another version than in go.mod", version)
	}
	longer(t, "docker run", duration(t, text, `--stop-timeout (\d+)`), drains(t, page(t, "examples/fleet.Caddyfile")))
}

func composed(t *testing.T, text string) {
	config := embedded(t, text, "    content: |")
	adapt(t, config)
	filtered(t, config)
	longer(t, "compose", duration(t, text, `stop_grace_period: (\S+)`), drains(t, config))
}

func kubernetes(t *testing.T, text string) {
	f := newFiles(t)
	config := embedded(t, text, "  Caddyfile: |")
	adapt(t, strings.NewReplacer(
		"/etc/vault-redirect/tls.crt", f.cert, "/etc/vault-redirect/tls.key", f.key, "/etc/vault-redirect/vault-ca.crt", f.cert,
	).Replace(config))
	filtered(t, config)
	longer(t, "the kubelet", duration(t, text, `terminationGracePeriodSeconds: (\d+)`), drains(t, config))
}

func nomad(t *testing.T, text string) {
	f := newFiles(t)
	config := embedded(t, text, "        data        = <<-EOF")
	adapt(t, strings.NewReplacer(
		"/etc/vault-redirect/vault.pem", f.cert, "/etc/vault-redirect/vault-key.pem", f.key, "/etc/vault-redirect/vault-ca.pem", f.cert,
	).Replace(config))
	filtered(t, config)
	longer(t, "Nomad", duration(t, text, `kill_timeout = "(\S+)"`), drains(t, config))
}

// TestDockerContext: what the build makes is not sent to Docker.
func TestDockerContext(t *testing.T) {
	text, err := os.ReadFile("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".git", "caddy", "dist"} {
		if !strings.Contains("\n"+string(text), "\n"+name+"\n") {
			t.Errorf(".dockerignore does not have %s", name)
		}
	}
}
