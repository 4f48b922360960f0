// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/nodes"
)

func init() { caddy.RegisterModule(Vault{}) }

// Vault finds the active node by asking the nodes themselves, through the API of HashiCorp Vault or OpenBao. It needs no Consul
// and works with any storage. No token is sent.
type Vault struct {
	// URLs of the nodes, such as https://vault-0.example.com:8200. The default port is that of the scheme. A name that has
	// several addresses is as many nodes: redirects lead to their addresses, unless redirect_to is leader, and their
	// certificates must be for the name. Names are looked up every 10s. May have global placeholders.
	URLs []string `json:"urls,omitempty"`

	nodes []discovery.Node // as the URLs name them
}

// resolveInterval is how often names are looked up.
const resolveInterval = 10 * time.Second

// CaddyModule returns the Caddy module information.
func (Vault) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.vault_redirect.discovery.vault",
		New: func() caddy.Module { return new(Vault) },
	}
}

// Provision checks the URLs. It does not use the network.
func (v *Vault) Provision(caddy.Context) error {
	if len(v.URLs) == 0 {
		return errors.New("urls: the URLs of the nodes are missing, such as https://vault-0.example.com:8200")
	}
	repl := caddy.NewReplacer()
	v.nodes = nil
	for _, text := range v.URLs {
		text, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			return fmt.Errorf("urls: %w", err)
		}
		node, err := nodes.ParseURL(text)
		if err != nil {
			return fmt.Errorf("urls: %w", err)
		}
		if slices.ContainsFunc(v.nodes, func(n discovery.Node) bool { return n.ID == node.ID }) {
			return fmt.Errorf("urls: %s is given twice", node.ID)
		}
		v.nodes = append(v.nodes, node)
	}
	return nil
}

// Key implements [discovery.Discoverer].
func (v *Vault) Key() string { return "vault:" + v.Endpoint() }

// Endpoint implements [discovery.Discoverer].
func (v *Vault) Endpoint() string {
	var ids []string
	for _, n := range v.nodes {
		ids = append(ids, n.ID)
	}
	return strings.Join(ids, ",")
}

// Selection implements [discovery.Discoverer].
func (v *Vault) Selection() discovery.Selection {
	return discovery.Selection{Mode: discovery.ByProbe}
}

// MaxWait implements [discovery.Discoverer].
func (v *Vault) MaxWait() time.Duration { return resolveInterval }

// Open implements [discovery.Discoverer].
func (v *Vault) Open() (discovery.Source, error) { return nodes.New(v.nodes), nil }

// Cluster implements [discovery.Discoverer]: lists that begin with the same node are of the same cluster.
func (v *Vault) Cluster() string { return "vault\x00" + v.nodes[0].ID }

// SourceName implements [discovery.SourceNamer].
func (*Vault) SourceName() string { return "vault" }

// ClusterName implements [discovery.ClusterNamer].
func (v *Vault) ClusterName() string { return v.nodes[0].Name }

// CheckScheme implements [discovery.SchemeChecker].
func (v *Vault) CheckScheme(scheme string) error {
	for _, n := range v.nodes {
		if scheme != "" && scheme != n.Scheme {
			return fmt.Errorf("scheme: %s contradicts %s: with vault, the URLs have the scheme", scheme, n.ID)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Vault)(nil)
	_ discovery.Discoverer    = (*Vault)(nil)
	_ discovery.SourceNamer   = (*Vault)(nil)
	_ discovery.ClusterNamer  = (*Vault)(nil)
	_ discovery.SchemeChecker = (*Vault)(nil)
)
