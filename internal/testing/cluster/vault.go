// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// Vault is one Vault node.
type Vault struct {
	*process.Process
	IP        string
	Addr      string  // "127.x.y.11:8200"
	URL       string  // "http://127.x.y.11:8200", or https with Options.TLS
	Agent     *Consul // the agent it registers with; nil with Options.NoConsul
	Node      string  // the Consul node it shows as: the agent's name, equal to Name with Options.AgentPerNode
	ServiceID string  // its service in Consul: "vault:127.x.y.11:8200"

	cluster *Cluster
}

// newVault writes a node's configuration; it is not started yet.
func (c *Cluster) newVault(ctx context.Context, i int) (*Vault, error) {
	name, host := fmt.Sprintf("vault-%d", i), firstVaultHost+i
	v := &Vault{
		Process: c.process(name, c.vaultProgram),
		IP:      c.IP(host),
		Addr:    c.net.addr(host, vaultPort),
		URL:     "http://" + c.net.addr(host, vaultPort),
		cluster: c,
	}
	v.ServiceID = "vault:" + v.Addr
	clusterAddr := c.net.addr(host, vaultClusterPort)
	listener := map[string]any{"address": v.Addr, "cluster_address": clusterAddr, "tls_disable": true}
	maps.Copy(listener, c.options.Listener)
	if c.options.TLS {
		v.URL = "https://" + v.Addr
		cert, key, err := c.vaultAuthority.issue(name, v.IP, name, "localhost")
		if err != nil {
			return nil, err
		}
		listener["tls_disable"], listener["tls_cert_file"], listener["tls_key_file"] = false, cert, key
	}
	cfg := map[string]any{
		"api_addr":      v.URL,
		"cluster_addr":  "https://" + clusterAddr,
		"cluster_name":  "vault",
		"disable_mlock": true,
		"ui":            false,
		"log_level":     "warn",
		"listener":      []any{map[string]any{"tcp": listener}},
	}
	var token any
	if !c.options.NoConsul {
		registration, err := c.registration(ctx, v, i)
		if err != nil {
			return nil, err
		}
		cfg["service_registration"], token = map[string]any{"consul": registration}, registration["token"]
	}
	storage, err := c.storage(v, token)
	if err != nil {
		return nil, err
	}
	cfg["storage"] = storage
	file := filepath.Join(c.dir, name+"-vault.json")
	v.Args = []string{"server", "-config=" + file}
	return v, writeJSON(file, cfg)
}

// registration is how a node registers with its Consul agent.
func (c *Cluster) registration(ctx context.Context, v *Vault, i int) (map[string]any, error) {
	v.Agent = c.Consuls[i%len(c.Consuls)]
	if c.options.AgentPerNode {
		v.Agent = c.Agents[i]
	}
	v.Node = v.Agent.Name
	registration := map[string]any{"address": v.Agent.HTTPAddr}
	if c.options.ReconcileTimeout > 0 {
		registration["reconcile_timeout"] = c.options.ReconcileTimeout.String()
	}
	if c.options.ACL {
		token, err := c.Token(ctx, vaultRules)
		if err != nil {
			return nil, err
		}
		registration["token"] = token
	}
	return registration, nil
}

// storage is where a node keeps its data; token is that for Consul, nil without ACLs.
func (c *Cluster) storage(v *Vault, token any) (map[string]any, error) {
	switch c.options.Storage {
	case DynamoStorage:
		return c.dynamoStorage(), nil
	case ConsulStorage:
		storage := map[string]any{"address": v.Agent.HTTPAddr, "path": "vault/", "session_ttl": "10s"} // the least Consul allows
		if token != nil {
			storage["token"] = token
		}
		return map[string]any{"consul": storage}, nil
	}
	data := filepath.Join(c.dir, v.Name)
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	return map[string]any{"raft": map[string]any{
		"path": data, "node_id": v.Name, "performance_multiplier": strconv.Itoa(c.options.RaftMultiplier),
		// A node that joins gets its vote from the autopilot, which by default looks every 10 seconds.
		"autopilot_reconcile_interval": "200ms", "autopilot_update_interval": "100ms",
	}}, nil
}

// Health asks the node's /v1/sys/health: 200 active, 429 standby, 501 not initialised, 503 sealed.
// https://developer.hashicorp.com/vault/api-docs/system/health
func (v *Vault) Health(ctx context.Context) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.URL+"/v1/sys/health", nil)
	if err != nil {
		return 0, err
	}
	res, err := v.cluster.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask %s for its health: %w", v.Name, err)
	}
	_ = res.Body.Close()
	return res.StatusCode, nil
}

// WaitHealth waits until Health says one of the wanted codes.
func (v *Vault) WaitHealth(ctx context.Context, want ...int) error {
	return wait.Poll(ctx, pollEvery, fmt.Sprintf("wait for health %d of %s at %s", want, v.Name, v.Addr), func(ctx context.Context) error {
		if err := v.Ended(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		status, err := v.Health(ctx)
		if err != nil {
			return err
		}
		for _, w := range want {
			if status == w {
				return nil
			}
		}
		return fmt.Errorf("health is %d", status)
	})
}

// Restart starts the node again on its data and address, stopping it first if it still runs, and unseals it.
func (v *Vault) Restart(ctx context.Context) error {
	if err := v.restartSealed(ctx); err != nil {
		return err
	}
	return v.Unseal(ctx)
}

func (v *Vault) restartSealed(ctx context.Context) error {
	if err := v.Stop(ctx); err != nil {
		return err
	}
	if err := v.Start(); err != nil {
		return err
	}
	return v.WaitHealth(ctx, http.StatusServiceUnavailable)
}

// Seal seals the node. The active one is asked to; a standby refuses that ("please restart instead"), so it is
// restarted and left sealed. Both are critical in Consul.
func (v *Vault) Seal(ctx context.Context) error {
	status, err := v.Health(ctx)
	if err != nil {
		return err
	}
	switch status {
	case http.StatusServiceUnavailable:
		return nil
	case http.StatusOK:
		err = v.cluster.Do(ctx, v, http.MethodPut, "/v1/sys/seal", nil, nil)
	default:
		err = v.restartSealed(ctx)
	}
	if err != nil {
		return err
	}
	if err := v.WaitHealth(ctx, http.StatusServiceUnavailable); err != nil {
		return err
	}
	v.cluster.note("%s sealed", v.Name)
	return nil
}

// Unseal unseals the node and returns when it is active or standby.
func (v *Vault) Unseal(ctx context.Context) error {
	key := map[string]string{"key": v.cluster.unsealKey}
	err := wait.Poll(ctx, pollEvery, "unseal", func(ctx context.Context) error {
		if err := v.Ended(); err != nil {
			return err
		}
		return v.cluster.Do(ctx, v, http.MethodPut, "/v1/sys/unseal", key, nil)
	})
	if err != nil {
		return err
	}
	// One that joins a raft cluster is unsealed in the background, once it has the keys from the leader.
	if err := v.WaitHealth(ctx, http.StatusOK, http.StatusTooManyRequests); err != nil {
		return err
	}
	v.cluster.note("%s unsealed", v.Name)
	return nil
}

// StepDown asks the active node to give up its role, and returns when it has accepted; see WaitActive. For 10 seconds
// Vault keeps this node from becoming active again, even when raft elects it: another fault within them may leave the
// cluster without an active node until they are over. StepDown is an error for a standby, which would forward the
// request to the active node.
func (v *Vault) StepDown(ctx context.Context) error {
	if status, err := v.Health(ctx); err != nil {
		return err
	} else if status != http.StatusOK {
		return fmt.Errorf("step down %s at %s: it is not active, its health is %d", v.Name, v.Addr, status)
	}
	if err := v.cluster.Do(ctx, v, http.MethodPut, "/v1/sys/step-down", nil, nil); err != nil {
		return err
	}
	v.cluster.note("%s stepped down", v.Name)
	return nil
}

// startVault brings up all nodes: the first is initialised, the others join it, all are unsealed.
func (c *Cluster) startVault(ctx context.Context) error {
	begin := time.Now()
	for i := range c.options.Vaults {
		v, err := c.newVault(ctx, i)
		if err != nil {
			return err
		}
		c.Vaults = append(c.Vaults, v)
		if err := v.Start(); err != nil {
			return err
		}
		if i == 0 && c.options.Storage == DynamoStorage { // it makes the table; of two that do, one fails
			if err := v.WaitHealth(ctx, http.StatusNotImplemented); err != nil {
				return err
			}
		}
	}
	first, others := c.Vaults[0], c.Vaults[1:]
	if err := first.WaitHealth(ctx, http.StatusNotImplemented); err != nil {
		return err
	}
	c.note("%s answers after %s", first.Name, since(begin))
	if err := c.initialise(ctx, first); err != nil {
		return err
	}
	if err := first.WaitHealth(ctx, http.StatusOK); err != nil {
		return err
	}
	c.note("%s is active after %s", first.Name, since(begin))
	if c.options.Storage == Raft {
		if err := c.quickVotes(ctx, first); err != nil {
			return err
		}
	}
	if err := wait.Each(others, func(v *Vault) error { return c.join(ctx, v, first) }); err != nil {
		return err
	}
	c.note("all are unsealed after %s", since(begin))
	if c.options.Storage == Raft {
		if err := c.waitVoters(ctx); err != nil {
			return err
		}
		c.note("all vote after %s", since(begin))
	}
	if err := c.WaitSettled(ctx); err != nil {
		return err
	}
	c.note("all is settled after %s", since(begin))
	return nil
}
