// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.MainAsCaddy(m, caddycmd.Main)) }

// TestFronts takes each measure of each front once.
func TestFronts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nginx and HAProxy, and keeps a core busy")
	}
	if _, err := exec.LookPath("taskset"); err != nil {
		t.Skip("taskset is not installed")
	}
	b, err := newBench(t.Context(), options{rounds: 1, lasts: 200 * time.Millisecond, connections: 2, idle: 20, rate: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	r := newResult(t.Context(), b)
	for _, m := range measures {
		for _, f := range b.fronts {
			if why := b.cannot(m); why != "" {
				r.leftOut(why)
				continue
			}
			if err := m.take(t.Context(), b, f, r); err != nil {
				t.Errorf("%s, %s: %v", m.name, f.name, err)
			}
		}
	}
	r.machine.End()
	text := r.markdown()
	for _, f := range b.fronts {
		if n := strings.Count(text, "\n| "+f.name+" |"); n != len(tables) {
			t.Errorf("%s is in %d tables, want %d", f.name, n, len(tables))
		}
	}
	for _, f := range b.fronts[:4] { // Caddy's
		if r.cell(f, hybridCPU, 1, 0) == "–" {
			t.Errorf("%s does not agree on keys by X25519MLKEM768", f.name)
		}
	}
	for _, program := range r.left {
		if !strings.Contains(text, "not installed:") || !strings.Contains(text, program) {
			t.Errorf("it does not say that %s is not installed", program)
		}
	}
}

// TestCell tells the median with the least and the most.
func TestCell(t *testing.T) {
	b := &bench{fronts: []*front{{name: "a"}}}
	r := newResult(t.Context(), b)
	for _, v := range []float64{5000, 1000, 4000, 3000, 2000} {
		r.add(b.fronts[0], plainRate, v)
	}
	if got := r.cell(b.fronts[0], plainRate, 1000, 1); got != "3.0 (1.0–5.0)" {
		t.Error(got)
	}
	if got := r.cell(b.fronts[0], p99, 1, 0); got != "–" {
		t.Error(got)
	}
}

// TestWriteMarkdown replaces what the last run wrote, and nothing else.
func TestWriteMarkdown(t *testing.T) {
	const begin, end = "<!-- begin: benchfront -->\n", "<!-- end: benchfront -->\n"
	file := filepath.Join(t.TempDir(), "b.md")
	if err := os.WriteFile(file, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newResult(t.Context(), &bench{options: options{out: file}})
	for range 2 {
		if err := r.writeMarkdown(); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text); !strings.HasPrefix(got, "before\n"+begin) || strings.Count(got, begin) != 1 || !strings.HasSuffix(got, end) {
		t.Errorf("%s", got)
	}
}
