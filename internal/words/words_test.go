// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package words

import (
	"testing"
	"time"
)

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", time.Microsecond: "less than 1ms", 1234 * time.Microsecond: "1ms", 410 * time.Millisecond: "410ms",
		1234 * time.Millisecond: "1.2s", 59 * time.Second: "59s", 90 * time.Second: "1m30s", 125*time.Minute + 30*time.Second: "2h5m",
		146*time.Hour + 30*time.Minute: "6d2h",
	} {
		if got := Brief(d); got != want {
			t.Errorf("%d ns: %q, want %q", d, got, want)
		}
	}
	if got := Seconds(.41); got != "410ms" {
		t.Errorf("0.41 seconds: %q", got)
	}
}

func TestPlural(t *testing.T) {
	for n, want := range []string{"0 changes", "1 change", "2 changes"} {
		if got := Plural(n, "change"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
