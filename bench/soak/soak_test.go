// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func TestSoak(t *testing.T) {
	cluster.Needed(t)
	program, err := harness.Build(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	// This seed's first fault lasts for half a second.
	args := []string{"-caddy", program, "-duration", "1ms", "-seed", "82", "-faults", "active stepped down"}
	if code := run(t.Context(), args, &out, &errs); code != 0 || errs.Len() > 0 {
		t.Fatalf("exit code %d, want 0\n%s\n%s", code, &out, &errs)
	}
	for _, want := range []string{"seed 82", "307 right", "active stepped down", "memory", "goroutines"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	t.Logf("\n%s", &out)
}

func TestOptions(t *testing.T) {
	for _, args := range []string{"-faults=unheard-of", "-rate=0", "-duration=0s", "extra", "-unknown"} {
		var out, errs strings.Builder
		if code := run(t.Context(), []string{args}, &out, &errs); code != 2 || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("%s: exit code %d, want 2 and a word on it\n%s", args, code, &errs)
		}
	}
}

func TestRule(t *testing.T) {
	now := time.Now()
	o := &oracle{active: map[string]time.Time{"a": now, "b": now.Add(-3 * time.Second), "c": now.Add(-7 * time.Second)}}
	s := newScore()
	for _, target := range []string{"a", "b", "c", "d"} {
		s.add(now, pending, target)
	}
	s.add(now, unavailable, "")
	if s.verdict() == nil {
		t.Error("nothing right, and that is fine?")
	}
	s.settle(o)
	if got, want := s.total().by, [verdicts]int{right: 1, late: 1, wrong: 2, unavailable: 1}; got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if err := s.verdict(); err == nil || !strings.Contains(err.Error(), "2 redirects were wrong") {
		t.Errorf("verdict: %v", err)
	}
}
