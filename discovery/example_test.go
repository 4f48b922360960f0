// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package discovery_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Inventory is a discovery over a list of nodes that the config has. As a Caddy module it is used like this:
//
//	{"handler": "vault_redirect", "discovery": {"source": "inventory", "nodes": ["vault-1", "vault-2"]}, "probe": {}}
//
// The fields of the type are the fields of the config. To be a Caddy module it needs two things more, which this example
// leaves out so that it needs no Caddy:
//
//	func init() { caddy.RegisterModule(new(Inventory)) }
//
//	func (*Inventory) CaddyModule() caddy.ModuleInfo {
//		return caddy.ModuleInfo{
//			ID:  "http.vault_redirect.discovery.inventory",
//			New: func() caddy.Module { return new(Inventory) },
//		}
//	}
//
// Defaults and checks go into its Provision and Validate, as with every Caddy module.
type Inventory struct {
	// Nodes is the host names of the nodes.
	Nodes []string `json:"nodes,omitempty"`
}

// Key tells one inventory from another: two handlers with the same list share a source.
func (i *Inventory) Key() string {
	sum := sha256.Sum256([]byte(strings.Join(i.Nodes, "\x00")))
	return "inventory:" + hex.EncodeToString(sum[:])
}

// Cluster is empty: what another list was about says nothing of this one.
func (i *Inventory) Cluster() string { return "" }

// Selection leaves it to the nodes to say which of them is active: a list does not know.
func (i *Inventory) Selection() discovery.Selection {
	return discovery.Selection{Mode: discovery.ByProbe}
}

// MaxWait is how often the plugin asks for the list.
func (i *Inventory) MaxWait() time.Duration { return 30 * time.Second }

// Endpoint is where the list is, for people.
func (i *Inventory) Endpoint() string { return fmt.Sprintf("a list of %d nodes", len(i.Nodes)) }

// Open returns the source. It keeps a copy of what it needs, since it outlives the module.
func (i *Inventory) Open() (discovery.Source, error) {
	return &source{names: slices.Clone(i.Nodes)}, nil
}

// source answers queries.
type source struct{ names []string }

// Query returns all nodes, at once. The answer has no index, since there is no change that a query could wait for: so the
// plugin polls. A source that asks a server passes ctx on to each request.
func (s *source) Query(ctx context.Context, _ uint64, _ time.Duration) (discovery.Answer, error) {
	if err := ctx.Err(); err != nil {
		return discovery.Answer{}, err
	}
	var answer discovery.Answer
	for _, name := range s.names {
		answer.Nodes = append(answer.Nodes, discovery.Node{Name: name, ID: "vault", Address: name, Port: 8200})
	}
	return answer, nil
}

// Close has nothing to close.
func (s *source) Close() {}

// The compiler sees to it that nothing is missing.
var (
	_ discovery.Discoverer = (*Inventory)(nil)
	_ discovery.Source     = (*source)(nil)
)

// A discovery of your own: where the nodes are is in a list.
func Example() {
	inventory := &Inventory{Nodes: []string{"vault-1.example.com", "vault-2.example.com"}}
	source, err := inventory.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()
	answer, err := source.Query(context.Background(), 0, inventory.MaxWait())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range answer.Nodes {
		fmt.Println(n.Identity(), "at", n.Address, n.Port)
	}
	// Output:
	// vault-1.example.com/vault at vault-1.example.com 8200
	// vault-2.example.com/vault at vault-2.example.com 8200
}
