// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package harness

import (
	"errors"
	"strings"
	"testing"
)

// Run starts a Caddy that ends with the test. When the test fails, the end of Caddy's log is shown. The test fails if
// Caddy has to be killed in the end, or if its race detector found something.
func Run(tb testing.TB, o Options) *Caddy {
	tb.Helper()
	c := Prepare(tb, o)
	if err := c.Start(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return c
}

// Prepare is Run without the start. Where there is no address for the Caddy the test is skipped.
func Prepare(tb testing.TB, o Options) *Caddy {
	tb.Helper()
	c, err := New(o)
	if errors.Is(err, errNotLinux) {
		tb.Skip(err)
	} else if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.StopOrKill(stopTimeout); err != nil {
			tb.Error(err)
		}
		if c.PID() != 0 {
			log := c.Log()
			if tb.Failed() {
				tb.Logf("the end of Caddy's log:\n%s", log[max(0, len(log)-8000):])
			}
			if strings.Contains(log, "DATA RACE") {
				tb.Errorf("the race detector found something:\n%s", log)
			}
		}
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}
