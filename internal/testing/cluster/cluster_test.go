// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package cluster

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// lines sends the cluster's notes to the test's log.
type lines struct{ testing.TB }

func (l lines) Write(b []byte) (int, error) {
	l.Logf("%s", strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// within gives a test's context an end, so that a wait that never ends says what for.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pids is every process the cluster has now.
func pids(c *Cluster) (ids []int) {
	for _, p := range c.processes {
		ids = append(ids, p.PID())
	}
	return ids
}

// gone says that none of the processes exists, not even as a zombie.
func gone(t *testing.T, ids []int) {
	t.Helper()
	for _, id := range ids {
		if err := syscall.Kill(id, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d: %v, want %v", id, err, syscall.ESRCH)
		}
	}
}

func TestTLSAndSocket(t *testing.T) {
	t.Parallel()
	c := Run(t, Options{Vaults: 2, TLS: true, ConsulTLS: true, ConsulSocket: true, ReconcileTimeout: 3 * time.Second, Log: lines{t}})
	ctx := within(t)
	agent := c.Consuls[0]
	services := func(cfg *api.Config) error {
		client, err := api.NewClient(cfg)
		ok(t, err)
		entries, _, err := client.Health().Service("vault", "active", true, (&api.QueryOptions{}).WithContext(ctx))
		if err == nil && len(entries) != 1 {
			t.Errorf("%d active services at %s", len(entries), cfg.Address)
		}
		return err
	}
	ok(t, services(&api.Config{Address: agent.HTTPAddr}))
	ok(t, services(&api.Config{Address: "unix://" + agent.Socket}))
	with := api.TLSConfig{CAFile: c.ConsulCA, CertFile: c.ConsulCert, KeyFile: c.ConsulKey}
	ok(t, services(&api.Config{Address: agent.HTTPSAddr, Scheme: "https", TLSConfig: with}))
	without := api.TLSConfig{CAFile: c.ConsulCA}
	if err := services(&api.Config{Address: agent.HTTPSAddr, Scheme: "https", TLSConfig: without}); err == nil {
		t.Error("consul took a client without a certificate")
	}
	if _, err := http.Get(c.Vaults[0].URL + "/v1/sys/health"); err == nil { //nolint:bodyclose // there is none
		t.Error("vault's certificate is trusted without its CA")
	}
	_, _, err := c.Cert("localhost", c.IP(FirstFreeHost))
	ok(t, err)

	ok(t, agent.Pause(ctx))
	ok(t, agent.Continue())
	_, err = agent.API().KV().Put(&api.KVPair{Key: "before"}, nil)
	ok(t, err)
	begin := time.Now()
	ok(t, agent.Restart(ctx))
	if pair, _, err := agent.API().KV().Get("before", nil); err != nil || pair != nil {
		t.Errorf("after a restart the agent still has %v, %v", pair, err)
	}
	ok(t, c.WaitSettled(ctx))
	t.Logf("consul restarted empty: settled after %s", since(begin))
}

func TestACL(t *testing.T) {
	t.Parallel()
	c := Run(t, Options{Vaults: 1, AgentPerNode: true, ACL: true, Storage: ConsulStorage, Log: lines{t}})
	ctx := within(t)
	seen := func(token string) (int, error) {
		opts := (&api.QueryOptions{Token: token}).WithContext(ctx)
		entries, _, err := c.Consuls[0].API().Health().Service("vault", "", false, opts)
		for _, e := range entries {
			if e.Node.Node != "vault-0" || c.Vaults[0].Node != "vault-0" {
				t.Errorf("vault is on the node %q", e.Node.Node)
			}
		}
		return len(entries), err
	}
	reader, err := c.Token(ctx, `service "vault" { policy = "read" } node_prefix "" { policy = "read" }`)
	ok(t, err)
	if n, err := seen(reader); err != nil || n != 1 {
		t.Errorf("with the rights: %d services, %v", n, err)
	}
	stranger, err := c.Token(ctx, `key "x" { policy = "read" }`)
	ok(t, err)
	if n, err := seen(stranger); err != nil || n != 0 {
		t.Errorf("without the rights: %d services, %v", n, err)
	}
	ok(t, c.DeleteToken(ctx, reader))
	if n, err := seen(reader); err == nil {
		t.Errorf("with a deleted token: %d services", n)
	}
	agent := c.Agents[0]
	ok(t, agent.Kill())
	ok(t, agent.Restart(ctx))
	ok(t, agent.WaitLeader(ctx))
	ok(t, c.WaitSettled(ctx))
}

func TestConsulStorageThreeServers(t *testing.T) {
	t.Parallel()
	c := Run(t, Options{Vaults: 2, Consuls: 3, Storage: ConsulStorage, Log: lines{t}})
	ctx := within(t)
	active, err := c.Active(ctx)
	ok(t, err)
	ok(t, active.StepDown(ctx))
	_, err = c.WaitActive(ctx, active)
	ok(t, err)
	spare := c.Consuls[2] // no Vault registers with it
	ok(t, spare.Stop(ctx))
	ok(t, c.Consuls[0].WaitLeader(ctx))
	ok(t, spare.Restart(ctx))
	ok(t, spare.WaitLeader(ctx))
	ok(t, c.WaitSettled(ctx))
}

func TestNoConsul(t *testing.T) {
	t.Parallel()
	c := Run(t, Options{Vaults: 1, NoConsul: true})
	ctx := within(t)
	ok(t, c.Vaults[0].Restart(ctx))
	_, err := c.WaitActive(ctx)
	ok(t, err)
	ok(t, c.WaitSettled(ctx))
}

func TestStartFails(t *testing.T) {
	Needed(t)
	t.Parallel()
	for name, o := range map[string]Options{
		"storage without consul": {NoConsul: true, Storage: ConsulStorage},
		"too many":               {Vaults: 1000},
		"logs below a file":      {LogDir: os.Args[0] + "/logs"},
	} {
		if c, err := Start(t.Context(), o); err == nil {
			t.Errorf("%s: started; close: %v", name, c.Close())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := start(ctx, Options{Consuls: 3})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("start in 300 ms: %v", err)
	}
	ids := pids(c)
	ok(t, c.Close())
	gone(t, ids)
}
