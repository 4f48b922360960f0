// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package cluster

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRaft(t *testing.T) {
	t.Parallel()
	c := Run(t, Options{Log: lines{t}})
	ctx := within(t)
	first, err := c.Active(ctx)
	ok(t, err)
	if s, err := first.Health(ctx); err != nil || s != http.StatusOK {
		t.Fatalf("health of the active node: %d, %v", s, err)
	}
	writeAndAudit(ctx, t, c)
	second := stepDown(ctx, t, c, first)
	third := killActive(ctx, t, c, second)
	fourth := pauseActive(ctx, t, c, third)
	sealStandbyAndActive(ctx, t, c, fourth)
	closeWhilePaused(ctx, t, c, fourth)
}

// writeAndAudit uses the API of the active node, and reads what the audit device has of it.
func writeAndAudit(ctx context.Context, t *testing.T, c *Cluster) {
	t.Helper()
	audit, err := c.EnableAudit(ctx, "audit.log")
	ok(t, err)
	ok(t, c.Do(ctx, nil, http.MethodPost, "/v1/sys/mounts/kv", map[string]string{"type": "kv"}, nil))
	ok(t, c.Do(ctx, nil, http.MethodPut, "/v1/kv/a", map[string]string{"b": "c"}, nil))
	var secret struct{ Data map[string]string }
	ok(t, c.Do(ctx, nil, http.MethodGet, "/v1/kv/a", nil, &secret))
	if secret.Data["b"] != "c" {
		t.Errorf("the secret is %v", secret.Data)
	}
	if text, err := os.ReadFile(audit); err != nil || !strings.Contains(string(text), `"remote_address":"127.0.0.1"`) {
		t.Errorf("audit file %s: %v\n%s", audit, err, text)
	}
	var apiErr *APIError
	if err := c.Do(ctx, nil, http.MethodGet, "/v1/kv/none", nil, nil); !errors.As(err, &apiErr) || apiErr.Status != http.StatusNotFound {
		t.Errorf("a secret that is not there: %v", err)
	}
}

// stepDown makes the active node step down, once, and returns the one that is active then.
func stepDown(ctx context.Context, t *testing.T, c *Cluster, first *Vault) (second *Vault) {
	t.Helper()
	begin := time.Now()
	ok(t, first.StepDown(ctx))
	second, err := c.WaitActive(ctx, first)
	ok(t, err)
	t.Logf("step-down: another node is active after %s", since(begin))
	ok(t, c.WaitSettled(ctx))
	if err := first.StepDown(ctx); err == nil {
		t.Error("a standby stepped down")
	}
	return second
}

// killActive kills the active node, twice, and restarts it. It returns the one that is active then.
func killActive(ctx context.Context, t *testing.T, c *Cluster, second *Vault) (third *Vault) {
	t.Helper()
	begin := time.Now()
	ok(t, second.Kill())
	third, err := c.WaitActive(ctx)
	ok(t, err)
	t.Logf("kill: another node is active after %s", since(begin))
	ok(t, second.Kill())
	ok(t, second.Restart(ctx))
	ok(t, c.WaitHealthy(ctx))
	return third
}

// pauseActive pauses the active node until another is active, which it returns.
func pauseActive(ctx context.Context, t *testing.T, c *Cluster, third *Vault) (fourth *Vault) {
	t.Helper()
	begin := time.Now()
	ok(t, third.Pause(ctx))
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if s, err := third.Health(short); err == nil {
		t.Errorf("health of a paused node is %d", s)
	}
	fourth, err := c.WaitActive(ctx)
	ok(t, err)
	t.Logf("pause: another node is active after %s", since(begin))
	ok(t, third.Continue())
	ok(t, c.WaitSettled(ctx))
	return fourth
}

// sealStandbyAndActive seals and unseals a standby, seals the active node, and restarts it.
func sealStandbyAndActive(ctx context.Context, t *testing.T, c *Cluster, fourth *Vault) {
	t.Helper()
	standby := c.Vaults[slices.IndexFunc(c.Vaults, func(v *Vault) bool { return v != fourth })]
	ok(t, standby.Seal(ctx))
	ok(t, standby.Unseal(ctx))
	begin := time.Now()
	ok(t, fourth.Seal(ctx))
	_, err := c.WaitActive(ctx)
	ok(t, err)
	t.Logf("seal: another node is active after %s", since(begin))
	ok(t, fourth.Stop(ctx))
	ok(t, fourth.Restart(ctx))
	ok(t, c.WaitSettled(ctx))
}

// closeWhilePaused ends the cluster, twice, while a node is paused.
func closeWhilePaused(ctx context.Context, t *testing.T, c *Cluster, fourth *Vault) {
	t.Helper()
	ids := pids(c)
	ok(t, fourth.Pause(ctx))
	ok(t, c.Close())
	ok(t, c.Close())
	gone(t, ids)
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder after Close: %v", err)
	}
	if err := fourth.Restart(ctx); err == nil {
		t.Error("a node came back after Close")
	}
}
