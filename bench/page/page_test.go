// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package page

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "docs", "benchmarks.md")
	for _, step := range []struct{ name, text, want string }{
		{"one", "first\n", "# Benchmarks\n\n<!-- begin: one -->\nfirst\n<!-- end: one -->\n"},
		{"two", "other\n", "# Benchmarks\n\n<!-- begin: one -->\nfirst\n<!-- end: one -->\n<!-- begin: two -->\nother\n<!-- end: two -->\n"},
		{"one", "again\n", "# Benchmarks\n\n<!-- begin: one -->\nagain\n<!-- end: one -->\n<!-- begin: two -->\nother\n<!-- end: two -->\n"},
	} {
		if err := Replace(file, step.name, step.text); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil || string(text) != step.want {
			t.Errorf("%v: %q, want %q", err, text, step.want)
		}
	}
}

func TestTable(t *testing.T) {
	want := "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
	if got := Table([]string{"a", "b"}, [][]string{{"1", "2"}}); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMedian(t *testing.T) {
	if got := Median([]float64{5000, 1000, 4000, 3000, 2000}, 1000, 1); got != "3.0 (1.0–5.0)" {
		t.Error(got)
	}
	if got := Median(nil, 1, 0); got != "–" {
		t.Error(got)
	}
}
