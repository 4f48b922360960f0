// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// A discovery for tests of what needs only its answer, and no server.

package standin

import (
	"context"
	"fmt"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Given is a discovery whose answer is given, and never changes.
type Given struct {
	Nodes []discovery.Node
	By    discovery.Selection
}

// Key implements [discovery.Discoverer]: each has one of its own.
func (g *Given) Key() string { return fmt.Sprintf("given:%p", g) }

// Cluster implements [discovery.Discoverer].
func (g *Given) Cluster() string { return "" }

// Selection implements [discovery.Discoverer].
func (g *Given) Selection() discovery.Selection { return g.By }

// MaxWait implements [discovery.Discoverer].
func (g *Given) MaxWait() time.Duration { return time.Minute }

// Endpoint implements [discovery.Discoverer].
func (g *Given) Endpoint() string { return "given" }

// Open implements [discovery.Discoverer].
func (g *Given) Open() (discovery.Source, error) { return g, nil }

// Close implements [discovery.Source].
func (g *Given) Close() {}

// Query implements [discovery.Source]: there is never anything newer.
func (g *Given) Query(ctx context.Context, index uint64, _ time.Duration) (discovery.Answer, error) {
	if index > 0 {
		<-ctx.Done()
	}
	return discovery.Answer{Nodes: g.Nodes, Index: 1}, ctx.Err()
}
