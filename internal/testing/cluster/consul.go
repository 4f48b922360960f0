// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// Consul is one Consul agent. Its Name is its node name.
//
// Kill and Pause leave the agent's records in the catalog; the others call its node critical after 2 to 3 seconds.
// Stop does the same for a server; a client agent takes 3 seconds to leave the cluster with Stop, and its node and
// services leave the catalog.
type Consul struct {
	*process.Process
	IP        string
	HTTPAddr  string // "127.x.y.1:8500", plain HTTP, always there
	HTTPSAddr string // "127.x.y.1:8501", mutual TLS; "" without Options.ConsulTLS
	Socket    string // path of the unix socket; "" without Options.ConsulSocket
	Server    bool

	dev     bool // the only server, in memory
	cluster *Cluster
	api     *api.Client
}

// API is a client of this agent with the management token, if there are ACLs. It keeps no idle connections.
func (a *Consul) API() *api.Client { return a.api }

// Restart starts the agent again, stopping it first if it still runs, and returns when it answers. With a single
// server (Options.Consuls 1) the state lives in memory: it comes back EMPTY. A Vault that registers with it is seen
// again when it next looks: after up to a minute (Options.ReconcileTimeout), or when its active state changes. Client
// agents, too, take up to a minute to tell an empty server what they have.
func (a *Consul) Restart(ctx context.Context) error {
	if err := a.Stop(ctx); err != nil {
		return err
	}
	if err := a.Start(); err != nil {
		return err
	}
	if a.dev {
		return a.WaitLeader(ctx)
	}
	return a.waitUp(ctx)
}

// waitUp waits for an answer, even "no leader": of three killed servers the first to be back has none.
func (a *Consul) waitUp(ctx context.Context) error {
	return wait.Poll(ctx, pollEvery, "wait for "+a.Label+" at "+a.HTTPAddr, func(ctx context.Context) error {
		if err := a.Ended(); err != nil {
			return err
		}
		_, err := a.api.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
		if status := (api.StatusError{}); errors.As(err, &status) {
			return nil
		}
		return err
	})
}

// WaitLeader waits until the agent knows a leader and can answer questions about the catalog.
func (a *Consul) WaitLeader(ctx context.Context) error { return a.waitNodes(ctx, 1) }

// waitNodes waits until the catalog holds n nodes.
func (a *Consul) waitNodes(ctx context.Context, n int) error {
	return wait.Poll(ctx, pollEvery, fmt.Sprintf("wait for %d nodes in %s at %s", n, a.Label, a.HTTPAddr), func(ctx context.Context) error {
		if err := a.Ended(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		nodes, _, err := a.api.Catalog().Nodes((&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		if len(nodes) < n {
			return fmt.Errorf("%d nodes in the catalog", len(nodes))
		}
		return nil
	})
}

// newConsul writes an agent's configuration; it is not started yet.
func (c *Cluster) newConsul(name string, host int, server bool) (*Consul, error) {
	ip := c.IP(host)
	a := &Consul{
		Process:  c.process(name, c.consulProgram),
		IP:       ip,
		HTTPAddr: c.net.addr(host, consulHTTPPort),
		Server:   server,
		dev:      server && c.options.Consuls == 1,
		cluster:  c,
	}
	cfg, err := c.consulConfig(a)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.dir, name+".json")
	a.Args = []string{"agent", "-config-file=" + file}
	switch {
	case a.dev:
		a.Args = append(a.Args, "-dev")
		delete(cfg, "retry_join")
	case server:
		cfg["server"], cfg["bootstrap_expect"] = true, c.options.Consuls
		fallthrough
	default:
		cfg["data_dir"] = filepath.Join(c.dir, name+"-consul") // a Vault node may have the same name
	}
	client, err := api.NewClient(&api.Config{
		Address: a.HTTPAddr, Scheme: "http", Token: c.ManagementToken,
		HttpClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", name, err)
	}
	a.api = client
	return a, writeJSON(file, cfg)
}

// consulConfig returns an agent's configuration, and completes the addresses at which it answers.
func (c *Cluster) consulConfig(a *Consul) (map[string]any, error) {
	name, ip := a.Name, a.IP
	cfg := map[string]any{
		"node_name":            name,
		"node_id":              uuid(), // so that a dev agent comes back as the same node
		"datacenter":           "dc1",
		"bind_addr":            ip,
		"client_addr":          ip,
		"log_level":            "warn",
		"disable_update_check": true,
		"connect":              map[string]any{"enabled": false}, // making its CA takes time
		// Twice as quick as a LAN's defaults, yet patient with a machine that is busy with tests.
		"gossip_lan": map[string]any{"gossip_interval": "100ms", "probe_interval": "500ms", "probe_timeout": "300ms", "suspicion_mult": 3},
		"retry_join": c.consulJoin(ip), "retry_interval": "250ms",
		"performance": map[string]any{"raft_multiplier": 1, "leave_drain_time": "10ms"},
	}
	if n := c.options.ConsulConns; n > 0 {
		cfg["limits"] = map[string]any{"http_max_conns_per_client": n}
	}
	ports := map[string]any{"serf_wan": -1, "grpc": -1, "grpc_tls": -1}
	addresses := map[string]any{}
	if c.options.ConsulTLS {
		cert, key, err := c.consulAuthority.issue(name, ip, name, "localhost", "server.dc1.consul")
		if err != nil {
			return nil, err
		}
		ports["https"] = consulHTTPSPort
		a.HTTPSAddr = net.JoinHostPort(ip, fmt.Sprint(consulHTTPSPort))
		cfg["tls"] = map[string]any{"https": map[string]any{"ca_file": c.ConsulCA, "cert_file": cert, "key_file": key, "verify_incoming": true}}
	}
	if c.options.ConsulSocket {
		a.Socket = filepath.Join(c.dir, name+".sock")
		if len(a.Socket) > 107 { // the kernel's limit; Consul's own error does not say so
			return nil, fmt.Errorf("the path of the socket %s is longer than 107 bytes: set TMPDIR to a shorter folder", a.Socket)
		}
		addresses["http"] = ip + " unix://" + a.Socket
	}
	if c.options.ACL {
		cfg["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]any{"initial_management": c.ManagementToken, "agent": c.ManagementToken},
		}
	}
	cfg["ports"], cfg["addresses"] = ports, addresses
	return cfg, nil
}

// consulJoin is the addresses of all servers but ip.
func (c *Cluster) consulJoin(ip string) []string {
	join := []string{}
	for i := range c.options.Consuls {
		if other := c.IP(firstConsulHost + i); other != ip {
			join = append(join, other)
		}
	}
	return join
}

// startConsul brings up the servers and the client agents and waits until the catalog has them all.
func (c *Cluster) startConsul(ctx context.Context) error {
	for i := range c.options.Consuls {
		a, err := c.newConsul(fmt.Sprintf("consul-%d", i), firstConsulHost+i, true)
		if err != nil {
			return err
		}
		c.Consuls = append(c.Consuls, a)
	}
	if c.options.AgentPerNode {
		for i := range c.options.Vaults {
			a, err := c.newConsul(fmt.Sprintf("vault-%d", i), firstVaultHost+i, false)
			if err != nil {
				return err
			}
			a.Label = a.Name + "-consul" // the Vault node has the same name
			a.LogFile = filepath.Join(c.logDir, a.Label+".log")
			c.Agents = append(c.Agents, a)
		}
	}
	all := append(append([]*Consul(nil), c.Consuls...), c.Agents...)
	for _, a := range all {
		if err := a.Start(); err != nil {
			return err
		}
	}
	begin := time.Now()
	if err := wait.Each(all, func(a *Consul) error { return a.waitNodes(ctx, len(all)) }); err != nil {
		return err
	}
	c.note("consul is up after %s", since(begin))
	return nil
}

func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o600)
}
