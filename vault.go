// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the discovery without Consul: the nodes are named, and asked themselves.

package vaultredirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(Vault{}) }

// Vault finds the active node by asking the nodes themselves, over the API of HashiCorp Vault or of OpenBao. It needs no
// Consul and works with any storage. No token is sent.
type Vault struct {
	// URLs of the nodes, such as https://vault-0.example.com:8200; without a port, that of the scheme. A name that has
	// several addresses stands for as many nodes: they are redirected to by address, unless redirect_to is leader, and
	// their certificates must be for the name. Names are looked up every 10s. May have global placeholders.
	URLs []string `json:"urls,omitempty"`

	Probe

	nodes []Node // as the URLs name them
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
		node, err := parseVaultURL(text)
		if err != nil {
			return fmt.Errorf("urls: %w", err)
		}
		if slices.ContainsFunc(v.nodes, func(n Node) bool { return n.ID == node.ID }) {
			return fmt.Errorf("urls: %s is given twice", node.ID)
		}
		v.nodes = append(v.nodes, node)
	}
	return nil
}

// parseVaultURL returns the node that a URL names.
func parseVaultURL(text string) (Node, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return Node{}, fmt.Errorf("%q is not the URL of a node, such as https://vault-0.example.com:8200", text)
	case u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return Node{}, fmt.Errorf("the URL of a node has a scheme, a host and a port, such as https://vault-0.example.com:8200, and nothing else")
	}
	host, err := validHost(u.Hostname())
	if err != nil {
		return Node{}, fmt.Errorf("%q: %w", text, err)
	}
	port := 443
	if u.Scheme == "http" {
		port = 80
	}
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return Node{}, fmt.Errorf("%q: port %s is not between 1 and 65535", text, p)
		}
	}
	id := u.Scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port))
	return Node{Name: host, ID: id, Address: host, ServiceAddress: host, Port: port, Scheme: u.Scheme}, nil
}

// Key implements [Discovery].
func (v *Vault) Key() string { return "vault:" + v.Endpoint() }

// Endpoint implements [Discovery].
func (v *Vault) Endpoint() string {
	var ids []string
	for _, n := range v.nodes {
		ids = append(ids, n.ID)
	}
	return strings.Join(ids, ",")
}

// Selection implements [Discovery].
func (v *Vault) Selection() Selection { return Selection{Mode: selectProbe} }

// MaxWait implements [Discovery].
func (v *Vault) MaxWait() time.Duration { return resolveInterval }

// Open implements [Discovery].
func (v *Vault) Open() (Source, error) {
	return &vaultSource{v.nodes, net.DefaultResolver.LookupNetIP, make([][]Node, len(v.nodes))}, nil
}

func (v *Vault) probes() *Probe { return &v.Probe }

func (v *Vault) checkScheme(scheme string) error {
	for _, n := range v.nodes {
		if scheme != "" && scheme != n.Scheme {
			return fmt.Errorf("scheme: %s does not go with %s: with vault, the URLs say it", scheme, n.ID)
		}
	}
	return nil
}

// vaultSource looks up the names of the nodes.
type vaultSource struct {
	nodes  []Node
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	known  [][]Node // what each of nodes stood for when it was looked up last
}

// lookupTimeout is how long one name may take; all are looked up at once.
const lookupTimeout = 5 * time.Second

// Close implements [Source].
func (*vaultSource) Close() {}

// Query implements [Source]: the answer to a query with an index comes when the wait is over.
func (s *vaultSource) Query(ctx context.Context, index uint64, wait time.Duration) (Answer, error) {
	if index > 0 {
		pause(ctx, wait)
	}
	now := make([][]Node, len(s.nodes))
	var group sync.WaitGroup
	for i, n := range s.nodes {
		group.Go(func() { now[i] = s.resolve(ctx, n, s.known[i]) })
	}
	group.Wait()
	if ctx.Err() != nil {
		return Answer{}, ctx.Err()
	}
	s.known = now
	return Answer{Nodes: slices.Concat(now...), Index: index + 1}, nil
}

// resolve returns the nodes that a name stands for. One that has at most one address of each family is left as it is. One
// that cannot be looked up stands for what it stood for before; else it is left as it is, and its probe says so.
func (s *vaultSource) resolve(ctx context.Context, n Node, known []Node) []Node {
	if _, err := netip.ParseAddr(n.Name); err == nil {
		return []Node{n}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := s.lookup(ctx, "ip", n.Name)
	switch {
	case err != nil && known != nil:
		return known
	case err != nil:
		return []Node{n}
	}
	var v4, v6 []netip.Addr
	for _, a := range addresses {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	many := v4
	if len(v6) > len(v4) {
		many = v6
	}
	if len(many) <= 1 {
		return []Node{n}
	}
	slices.SortFunc(many, netip.Addr.Compare)
	var nodes []Node
	for _, a := range slices.Compact(many) {
		one := n
		one.ID, one.ServerName = n.ID+"@"+a.String(), n.Name
		one.Name, one.Address, one.ServiceAddress = a.String(), a.String(), a.String()
		nodes = append(nodes, one)
	}
	return nodes
}

// Interface guards
var (
	_ caddy.Provisioner = (*Vault)(nil)
	_ Discovery         = (*Vault)(nil)
	_ selfProbing       = (*Vault)(nil)
)
