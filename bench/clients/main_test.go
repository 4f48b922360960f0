// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package main

import (
	"os"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.MainAsCaddy(m, caddycmd.Main)) }

// TestClients runs the short part with what is installed or was downloaded by an earlier `make clients`; nothing is downloaded.
func TestClients(t *testing.T) {
	cluster.Needed(t)
	m, err := run(t.Context(), options{short: true, tell: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.surprises(); err != nil {
		t.Error(err)
	}
	asked := 0
	for _, r := range m.rows {
		asked += len(r.cells)
	}
	if asked < 5 { // vault itself is always there
		t.Errorf("only %d cells", asked)
	}
}

// The page has every client of the list: the list has not grown, or shrunk, since the last run that wrote the page.
func TestPageHasEveryClient(t *testing.T) {
	text, err := os.ReadFile("../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	_, made, _ := strings.Cut(string(text), "<!-- begin: clients -->")
	made, _, found := strings.Cut(made, "<!-- end: clients -->")
	if !found {
		t.Fatal("docs/clients.md has no part that `make clients` writes")
	}
	for _, c := range clients {
		if !strings.Contains(made, c.name) {
			t.Errorf("docs/clients.md does not have %s: run make clients", c.name)
		}
	}
	for _, tool := range tools {
		if !strings.Contains(made, "| "+tool.name+" | ") {
			t.Errorf("docs/clients.md does not have %s: run make clients", tool.name)
		}
	}
}
