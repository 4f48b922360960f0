// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"context"
	"errors"
	"runtime"
	"testing"
)

var errNotLinux = errors.New("start cluster: it needs Linux, where all of 127.0.0.0/8 is loopback")

// Needed skips a test that starts real servers where they are not wanted (-short, make test-quick) or not possible.
// Run calls it; a test calls it itself before it does something else that takes long.
func Needed(tb testing.TB) {
	tb.Helper()
	switch {
	case testing.Short():
		tb.Skip("starts a real Consul or Vault: left out with -short (make test-quick)")
	case runtime.GOOS != "linux":
		tb.Skip("starts a real Consul or Vault: needs Linux, where all of 127.0.0.0/8 is loopback")
	}
}

// Run starts a cluster that ends with the test. When the start or the test fails, the end of each server's log is
// logged. With -short, and on other systems than Linux, the test is skipped; so is one with DynamoStorage where dynalite is
// not installed.
func Run(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	Needed(tb)
	if o.Storage == DynamoStorage {
		if _, err := findDynalite(); err != nil {
			tb.Skip(err)
		}
	}
	c, err := start(context.Background(), o)
	tb.Cleanup(func() {
		if tb.Failed() {
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

func (c *Cluster) logTails(tb testing.TB) {
	c.procMu.Lock()
	all := c.processes
	c.procMu.Unlock()
	for _, p := range all {
		tb.Logf("%s (%s):\n%s", p.Label, p.LogFile, p.Tail(20))
	}
}
