// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package nodes finds the nodes of a Vault cluster by their URLs, whose names it looks up.
package nodes

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// ParseURL returns the node that a URL names.
func ParseURL(text string) (discovery.Node, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return discovery.Node{}, fmt.Errorf("%q is not the URL of a node, such as https://vault-0.example.com:8200", text)
	case u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return discovery.Node{}, fmt.Errorf("the URL of a node has a scheme, a host and a port, such as https://vault-0.example.com:8200, and nothing else")
	}
	host, err := sanitize.Host(u.Hostname())
	if err != nil {
		return discovery.Node{}, fmt.Errorf("%q: %w", text, err)
	}
	port := 443
	if u.Scheme == "http" {
		port = 80
	}
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return discovery.Node{}, fmt.Errorf("%q: port %s is not between 1 and 65535", text, p)
		}
	}
	id := u.Scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port))
	return discovery.Node{Name: host, ID: id, Address: host, ServiceAddress: host, Port: port, Scheme: u.Scheme}, nil
}

// Source looks up the names of the nodes.
type Source struct {
	nodes  []discovery.Node
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	known  [][]discovery.Node // what each of nodes resolved to last
}

// New returns the source for nodes that ParseURL has returned.
func New(nodes []discovery.Node) *Source {
	return &Source{nodes, net.DefaultResolver.LookupNetIP, make([][]discovery.Node, len(nodes))}
}

// lookupTimeout limits the look-up of one name. All names are looked up at once.
const lookupTimeout = 5 * time.Second

// Close implements [discovery.Source].
func (*Source) Close() {}

// Query implements [discovery.Source]. A query with an index waits for the whole time, and then looks the names up.
func (s *Source) Query(ctx context.Context, index uint64, wait time.Duration) (discovery.Answer, error) {
	if index > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	now := make([][]discovery.Node, len(s.nodes))
	var group sync.WaitGroup
	for i, n := range s.nodes {
		group.Go(func() { now[i] = s.resolve(ctx, n, s.known[i]) })
	}
	group.Wait()
	if ctx.Err() != nil {
		return discovery.Answer{}, ctx.Err()
	}
	s.known = now
	return discovery.Answer{Nodes: slices.Concat(now...), Index: index + 1}, nil
}

// resolve returns the nodes that a name resolves to. A name with at most one address of each family stays as it is, unless it
// resolved to several nodes before: their number may change, but not the identity of each. If the look-up fails, the nodes are
// those of the last one. If there was none, the name stays as it is, and its probe reports the error.
func (s *Source) resolve(ctx context.Context, n discovery.Node, known []discovery.Node) []discovery.Node {
	if _, err := netip.ParseAddr(n.Name); err == nil {
		return []discovery.Node{n}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := s.lookup(ctx, "ip", n.Name)
	switch {
	case err != nil && known != nil:
		return known
	case err != nil:
		return []discovery.Node{n}
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
	if several := len(known) > 0 && known[0].ServerName != ""; len(many) == 0 || len(many) == 1 && !several {
		return []discovery.Node{n}
	}
	slices.SortFunc(many, netip.Addr.Compare)
	var nodes []discovery.Node
	for _, a := range slices.Compact(many) {
		one := n
		one.ID, one.ServerName = n.ID+"@"+a.String(), n.Name
		one.Name, one.Address, one.ServiceAddress = a.String(), a.String(), a.String()
		nodes = append(nodes, one)
	}
	return nodes
}
