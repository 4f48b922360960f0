// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.MainAsCaddy(m, caddycmd.Main)) }

// Fifty redirectors follow each change: that they do is what run waits for.
func TestRun(t *testing.T) {
	cluster.Needed(t)
	text, err := run(t.Context(), options{redirectors: []int{2}, span: 2 * time.Second, rate: [2]int{100, 50}, watchers: 50, changes: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(text)
	if strings.Count(text, "\n| 2 | ") != 3 || !strings.Contains(text, "50 redirectors") {
		t.Error("a table or a sentence is missing")
	}
}

func TestPercent(t *testing.T) {
	for part, want := range map[float64]string{-0.01: "less than 0.1 %", 0: "less than 0.1 %", 0.0123: "1.2 %", 1.5: "150.0 %"} {
		if got := percent(part); got != want {
			t.Errorf("%v: %q, want %q", part, got, want)
		}
	}
}
