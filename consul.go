// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the discovery through Consul: its config and how that is completed from the environment.

package vaultredirect

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/consul"
)

func init() { caddy.RegisterModule(Consul{}) }

// Consul finds the Vault nodes in Consul's catalog: it watches the health of the service with blocking queries, so that
// changes arrive at once, and it needs no more rights than service:read on the service and node:read on its nodes.
//
// What is left out is taken from the environment variables of Consul's own client: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_AUTH, CONSUL_HTTP_SSL, CONSUL_HTTP_SSL_VERIFY, CONSUL_CACERT, CONSUL_CAPATH,
// CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME, CONSUL_NAMESPACE and CONSUL_PARTITION.
//
// Names, paths, addresses and the token may have global placeholders such as {env.NAME} and {file./path}, which are
// filled when the config is loaded and never written back to it.
type Consul struct {
	// Address of a Consul agent: host:port, http://host:port, https://host:port (a path prefix may follow), or
	// unix:///path/to/socket. Without a scheme it is https if there are TLS settings or if CONSUL_HTTP_SSL is true, else
	// http. Default: CONSUL_HTTP_ADDR, else 127.0.0.1:8500.
	Address string `json:"address,omitempty"`
	// Service is the name under which Vault is registered. Default: vault.
	Service string `json:"service,omitempty"`
	// ActiveBy says what marks the active node among those that are alive. With tag, the node carries the tag; with check,
	// its check check_id passes; with auto, it goes by tags if any instance carries active, standby or
	// performance-standby, as Vault's own registration does, or the tag named below, and by check if none does.
	// Default: auto.
	ActiveBy string `json:"active_by,omitempty"`
	// Tag that marks the active node, compared as a whole. Default: active.
	Tag string `json:"tag,omitempty"`
	// CheckID is the ID of the check that passes on the active node only, such as an HTTP check on /v1/sys/health, where
	// a standby's answer of 429 is a warning. Default: service:<service> if any instance has such a check; else all
	// checks of an instance must pass, and there must be at least one.
	CheckID string `json:"check_id,omitempty"`
	// Token is the ACL token. Prefer a placeholder such as {env.NAME}, or token_file, to the token itself. Empty: no token,
	// whatever the environment says, as for a second Consul. Default: CONSUL_HTTP_TOKEN_FILE, then CONSUL_HTTP_TOKEN, then
	// the agent's own token.
	Token *string `json:"token,omitempty"`
	// TokenFile is a file with the ACL token, read before each query: a token that is replaced there is used without a
	// reload. Not together with token.
	TokenFile string `json:"token_file,omitempty"`
	// Datacenter to ask. Default: that of the agent.
	Datacenter string `json:"datacenter,omitempty"`
	// Namespace of the service (Consul Enterprise). Default: CONSUL_NAMESPACE, else that of the token.
	Namespace string `json:"namespace,omitempty"`
	// Partition of the service (Consul Enterprise). Default: CONSUL_PARTITION, else that of the agent.
	Partition string `json:"partition,omitempty"`
	// Peer is the cluster peer that exports the service. Default: none.
	Peer string `json:"peer,omitempty"`
	// Consistency of the queries: default, stale (any server answers, even without a leader; an answer given without one
	// is never taken as proof that no node is active) or consistent (the leader makes sure that it is the leader: one
	// more round trip for each change). Default: default.
	// See https://developer.hashicorp.com/consul/api-docs/features/consistency.
	Consistency string `json:"consistency,omitempty"`
	// PollInterval is the longest time between two queries: how long a blocking query waits for a change, and how often
	// a Consul that cannot wait is asked. Changes arrive at once whatever it is. From 1s to 10m. Default: 30s.
	PollInterval caddy.Duration `json:"poll_interval,omitempty"`
	// TLS settings of the connection to Consul.
	TLS *TLS `json:"tls,omitempty"`

	resolved *consulSettings
}

// CaddyModule returns the Caddy module information.
func (Consul) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.vault_redirect.discovery.consul",
		New: func() caddy.Module { return new(Consul) },
	}
}

// Provision completes the settings and checks them. It does not use the network.
func (c *Consul) Provision(caddy.Context) error {
	var err error
	c.resolved, err = c.resolve(caddy.NewReplacer(), os.Getenv)
	return err
}

// Selection implements [discovery.Discoverer].
func (c *Consul) Selection() discovery.Selection {
	r := c.resolved
	return discovery.Selection{Mode: r.ActiveBy, Tag: r.Tag, CheckID: r.CheckID, Service: r.Service}
}

// MaxWait implements [discovery.Discoverer].
func (c *Consul) MaxWait() time.Duration { return time.Duration(c.resolved.PollInterval) }

// Endpoint implements [discovery.Discoverer].
func (c *Consul) Endpoint() string { return c.resolved.endpoint.String() }

// Cluster implements [discovery.Discoverer]: the same service of the same Consul, whatever the credentials.
func (c *Consul) Cluster() string {
	r := c.resolved
	return strings.Join([]string{"consul", r.endpoint.String(), r.Datacenter, r.Namespace, r.Partition, r.Peer, r.Service}, "\x00")
}

// Key implements [discovery.Discoverer]. What only selects among the nodes is not part of it, and secrets are in it as a
// digest.
func (c *Consul) Key() string {
	s := *c.resolved
	s.ActiveBy, s.Tag, s.CheckID, s.TLS, s.Token = "", "", "", nil, nil
	auth := api.HttpBasicAuth{}
	if s.auth != nil {
		auth = *s.auth
	}
	text := fmt.Sprintf("%#v %#v %q %#v %x", s.Consul, s.endpoint, s.token, auth, s.tlsKey)
	return fmt.Sprintf("consul:%x", sha256.Sum256([]byte(text)))
}

// Open implements [discovery.Discoverer].
func (c *Consul) Open() (discovery.Source, error) {
	r := c.resolved
	return consul.New(consul.Settings{
		Endpoint: r.endpoint, Service: r.Service, Datacenter: r.Datacenter, Namespace: r.Namespace, Partition: r.Partition,
		Peer: r.Peer, Consistency: r.Consistency, Token: cmp.Or(r.token, r.fileToken), TokenFile: r.TokenFile, Auth: r.auth, TLS: r.tls,
	})
}

// clusterName is the default name of the cluster.
func (c *Consul) clusterName() string { return c.resolved.Service }

// unverified reports whether the certificate of Consul is not verified.
func (c *Consul) unverified() bool {
	return c.resolved.endpoint.Scheme == "https" && c.resolved.tlsSettings.InsecureSkipVerify
}

// Interface guards
var (
	_ caddy.Provisioner    = (*Consul)(nil)
	_ discovery.Discoverer = (*Consul)(nil)
)
