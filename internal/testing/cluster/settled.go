// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// WaitSettled waits until every node whose process runs is unsealed, and one of them is active; and, with Consul,
// until every such node is registered and passing, and the active one, alone among the passing, has the tag "active".
// Start ends with it; between the rounds of a test it says that the last fault is forgotten. A killed node may stay
// in Consul, critical.
func (c *Cluster) WaitSettled(ctx context.Context) error {
	return wait.Poll(ctx, pollEvery, "wait for a settled cluster", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		active, err := c.settledNodes(ctx)
		if err != nil || c.options.NoConsul {
			return err
		}
		return c.settledConsul(ctx, active)
	})
}

// settledNodes asks the nodes themselves.
func (c *Cluster) settledNodes(ctx context.Context) (active *Vault, err error) {
	for _, v := range c.Vaults {
		if !v.Running() {
			continue
		}
		switch status, err := v.Health(ctx); {
		case err != nil:
			return nil, err
		case status == http.StatusOK && active != nil:
			return nil, fmt.Errorf("%s and %s are both active", active.Name, v.Name)
		case status == http.StatusOK:
			active = v
		case status != http.StatusTooManyRequests:
			return nil, fmt.Errorf("health of %s is %d", v.Name, status)
		}
	}
	if active == nil {
		return nil, fmt.Errorf("no node is active")
	}
	return active, nil
}

// settledConsul asks any Consul server that runs.
func (c *Cluster) settledConsul(ctx context.Context, active *Vault) error {
	i := slices.IndexFunc(c.Consuls, func(a *Consul) bool { return a.Running() })
	if i < 0 {
		return fmt.Errorf("no consul server is running")
	}
	entries, _, err := c.Consuls[i].api.Health().Service("vault", "", false, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("ask %s at %s: %w", c.Consuls[i].Name, c.Consuls[i].HTTPAddr, err)
	}
	passing := make(map[string]bool)
	for _, e := range entries {
		if e.Checks.AggregatedStatus() != api.HealthPassing {
			continue
		}
		passing[e.Service.ID] = true
		tagged, is := slices.Contains(e.Service.Tags, "active"), e.Service.ID == active.ServiceID
		if tagged != is {
			return fmt.Errorf("%s is active, but %s has the tags %q", active.ServiceID, e.Service.ID, e.Service.Tags)
		}
	}
	for _, v := range c.Vaults {
		if v.Running() && !passing[v.ServiceID] {
			return fmt.Errorf("%s is not passing in consul", v.ServiceID)
		}
	}
	return nil
}

// WaitHealthy waits, after WaitSettled, until raft's autopilot calls every node whose process runs healthy: the
// followers have caught up. A fault before that costs a longer election (4 seconds seen, not 2), so what measures
// failovers one after another waits for it. It takes up to 5 seconds, the followers' reporting interval. With
// ConsulStorage it is WaitSettled alone.
func (c *Cluster) WaitHealthy(ctx context.Context) error {
	if err := c.WaitSettled(ctx); err != nil || c.options.Storage != Raft {
		return err
	}
	return wait.Poll(ctx, pollEvery, "wait for a healthy raft cluster", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		var answer struct {
			Data struct {
				Servers map[string]struct {
					Healthy bool `json:"healthy"`
				} `json:"servers"`
			} `json:"data"`
		}
		if err := c.Do(ctx, nil, http.MethodGet, "/v1/sys/storage/raft/autopilot/state", nil, &answer); err != nil {
			return err
		}
		for _, v := range c.Vaults {
			if v.Running() && !answer.Data.Servers[v.Name].Healthy {
				return fmt.Errorf("raft's autopilot calls %s unhealthy", v.Name)
			}
		}
		return nil
	})
}
