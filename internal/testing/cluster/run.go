// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// The cluster as a test's fixture.

package cluster

import "context"

// TB is what Run needs of a *testing.T, *testing.B or whatever else ends what it began.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// Run starts a cluster that ends with the test. When the start or the test fails, the end of each server's log is
// logged.
func Run(tb TB, o Options) *Cluster {
	tb.Helper()
	c, err := start(context.Background(), o)
	tb.Cleanup(func() {
		if f, ok := tb.(interface{ Failed() bool }); ok && f.Failed() {
			c.logTails(tb)
		}
		if err := c.Close(); err != nil {
			tb.Fatalf("close cluster: %v", err)
		}
	})
	if err != nil {
		tb.Fatalf("start cluster: %v", err)
	}
	return c
}

func (c *Cluster) logTails(tb TB) {
	c.procMu.Lock()
	all := c.processes
	c.procMu.Unlock()
	for _, p := range all {
		tb.Logf("%s (%s):\n%s", p.label, p.LogFile, p.Tail(20))
	}
}
