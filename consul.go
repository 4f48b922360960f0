// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
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
// Options that are not set come from the environment variables of Consul's own client: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_AUTH, CONSUL_HTTP_SSL, CONSUL_HTTP_SSL_VERIFY, CONSUL_CACERT, CONSUL_CAPATH,
// CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME, CONSUL_NAMESPACE and CONSUL_PARTITION.
//
// Names, paths, addresses and the token may have global placeholders such as {env.NAME} and {file./path}. Their values are
// read when the config is loaded, and never written to it.
type Consul struct {
	// Address of a Consul agent: host:port, http://host:port, https://host:port (a path prefix may follow), or
	// unix:///path/to/socket. Without a scheme it is https if there are TLS settings or if CONSUL_HTTP_SSL is true, else
	// http. Default: CONSUL_HTTP_ADDR, else 127.0.0.1:8500.
	Address string `json:"address,omitempty"`
	// Service is the name under which Vault is registered. Default: vault.
	Service string `json:"service,omitempty"`
	// ActiveBy says what marks the active node among those that are alive: tag, that it has the tag below; check, that its
	// check check_id passes; auto, tag if any instance has that tag or one of active, standby and performance-standby, as Vault
	// registers them, else check.
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
	// TokenFile is a file with the ACL token. It is read before each query, so that a new token is used without a reload. Not
	// together with token.
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
	// Consul is polled if it does not support that. Changes arrive at once in any case. From 1s to 10m. Default: 30s.
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

// Cluster implements [discovery.Discoverer]: the same service of the same Consul, with any credentials.
func (c *Consul) Cluster() string {
	r := c.resolved
	return strings.Join([]string{"consul", r.endpoint.String(), r.Datacenter, r.Namespace, r.Partition, r.Peer, r.Service}, "\x00")
}

// Key implements [discovery.Discoverer]. Options that only select among the nodes are not part of it. Secrets are part of a digest.
func (c *Consul) Key() string {
	s := *c.resolved
	s.ActiveBy, s.Tag, s.CheckID, s.TLS, s.Token = "", "", "", nil, nil
	auth := *cmp.Or(s.auth, new(api.HttpBasicAuth))
	text := fmt.Sprintf("%#v %#v %q %#v %x", s.Consul, s.endpoint, s.token, auth, s.tlsKey)
	return fmt.Sprintf("consul:%x", sha256.Sum256([]byte(text)))
}

// Open implements [discovery.Discoverer].
func (c *Consul) Open() (discovery.Source, error) {
	r := c.resolved
	return consul.New(consul.Settings{
		Endpoint: r.endpoint, Service: r.Service, Datacenter: r.Datacenter, Namespace: r.Namespace, Partition: r.Partition,
		Peer: r.Peer, Consistency: r.Consistency, Token: cmp.Or(r.token, r.fileToken), TokenFile: r.TokenFile, Auth: r.auth, TLS: r.tls,
	}), nil
}

// SourceName implements [discovery.SourceNamer].
func (*Consul) SourceName() string { return "consul" }

// ClusterName implements [discovery.ClusterNamer].
func (c *Consul) ClusterName() string { return c.resolved.Service }

// Unverified implements [discovery.Unverified].
func (c *Consul) Unverified() bool {
	return c.resolved.endpoint.Scheme == "https" && c.resolved.tlsSettings.InsecureSkipVerify
}

// consulSettings is the complete config. It is a copy, since the values of placeholders must not show in the config.
type consulSettings struct {
	Consul
	endpoint    consul.Endpoint
	token       string
	fileToken   string // what the token file holds now
	auth        *api.HttpBasicAuth
	tlsSettings TLS
	tls         *tls.Config
	tlsKey      [sha256.Size]byte
}

// resolve replaces placeholders, adds settings from the environment and defaults, and checks the result.
func (c *Consul) resolve(repl *caddy.Replacer, getenv func(string) string) (*consulSettings, error) {
	s := &consulSettings{Consul: *c, token: *cmp.Or(c.Token, new(string)), tlsSettings: *cmp.Or(c.TLS, new(TLS))}
	s.resolved = nil
	for name, field := range map[string]*string{
		"address": &s.Address, "service": &s.Service, "tag": &s.Tag, "check_id": &s.CheckID, "token": &s.token,
		"token_file": &s.TokenFile, "datacenter": &s.Datacenter, "namespace": &s.Namespace, "partition": &s.Partition,
		"peer": &s.Peer,
	} {
		var err error
		if *field, err = repl.ReplaceOrErr(*field, true, true); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := s.tlsSettings.expand(repl); err != nil {
		return nil, err
	}
	if s.Token != nil && s.TokenFile != "" {
		return nil, errTwoTokens
	}
	if err := s.fill(getenv); err != nil {
		return nil, err
	}
	s.Service = cmp.Or(s.Service, "vault")
	s.ActiveBy = cmp.Or(s.ActiveBy, discovery.ByAuto)
	s.Tag = cmp.Or(s.Tag, "active")
	s.Consistency = cmp.Or(s.Consistency, consul.ConsistencyDefault)
	s.PollInterval = cmp.Or(s.PollInterval, caddy.Duration(30*time.Second))
	if err := s.check(); err != nil {
		return nil, err
	}
	var err error
	if s.tls, s.tlsKey, err = s.tlsSettings.config(); err != nil {
		return nil, err
	}
	if s.TokenFile != "" {
		s.fileToken, err = consul.ReadToken(s.TokenFile)
	}
	return s, err
}

// fill adds the settings that the config does not have from the environment of Consul's own client, and parses the address.
func (s *consulSettings) fill(getenv func(string) string) error {
	env, err := consul.ReadEnv(getenv)
	if err != nil {
		return err
	}
	source, useTLS := "address", env.TLS || s.TLS != nil // settings for TLS mean TLS
	if s.Address == "" {
		source, s.Address = api.HTTPAddrEnvName, cmp.Or(env.Address, "127.0.0.1:8500")
	}
	if s.endpoint, err = consul.ParseEndpoint(s.Address, useTLS); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if useTLS && source != "address" {
		s.endpoint.Scheme = "https" // as in Consul's own client: http:// in the environment does not turn TLS off
	}
	if s.TLS != nil && s.endpoint.Scheme != "https" {
		return fmt.Errorf("tls: has settings, but the address %s is http", s.endpoint)
	}
	if s.Token == nil && s.TokenFile == "" {
		if s.TokenFile = env.TokenFile; s.TokenFile == "" {
			s.token = env.Token
		}
	}
	s.auth = env.Auth
	s.Namespace, s.Partition = cmp.Or(s.Namespace, env.Namespace), cmp.Or(s.Partition, env.Partition)
	s.tlsSettings.CA = cmp.Or(s.tlsSettings.CA, env.CA)
	s.tlsSettings.ServerName = cmp.Or(s.tlsSettings.ServerName, env.ServerName)
	if s.tlsSettings.Cert == "" && s.tlsSettings.Key == "" {
		s.tlsSettings.Cert, s.tlsSettings.Key = env.Cert, env.Key
	}
	if s.TLS == nil { // else the config alone decides
		s.tlsSettings.InsecureSkipVerify = !env.Verify
	}
	return nil
}

// check checks the settings that need no file.
func (s *consulSettings) check() error {
	if !slices.Contains([]string{discovery.ByAuto, discovery.ByTag, discovery.ByCheck}, s.ActiveBy) {
		return fmt.Errorf("active_by: %q is not auto, tag or check", s.ActiveBy)
	}
	if !slices.Contains([]string{consul.ConsistencyDefault, consul.ConsistencyStale, consul.ConsistencyConsistent}, s.Consistency) {
		return fmt.Errorf("consistency: %q is not default, stale or consistent", s.Consistency)
	}
	if err := checkService(s.Service); err != nil {
		return err
	}
	return checkPollInterval(s.PollInterval)
}

func checkService(name string) error {
	if strings.ContainsAny(name, "/?#%") {
		return fmt.Errorf("service: %q is not the name of a service", name)
	}
	return nil
}

// The bounds of poll_interval.
const (
	minPoll = time.Second
	maxPoll = 10 * time.Minute
)

func checkPollInterval(d caddy.Duration) error {
	if d := time.Duration(d); d < minPoll || d > maxPoll {
		return fmt.Errorf("poll_interval: %s is not between 1s and 10m (changes arrive at once in any case)", d)
	}
	return nil
}

var errTwoTokens = errors.New("token and token_file are mutually exclusive")

// Interface guards
var (
	_ caddy.Provisioner      = (*Consul)(nil)
	_ discovery.Discoverer   = (*Consul)(nil)
	_ discovery.SourceNamer  = (*Consul)(nil)
	_ discovery.ClusterNamer = (*Consul)(nil)
	_ discovery.Unverified   = (*Consul)(nil)
)
