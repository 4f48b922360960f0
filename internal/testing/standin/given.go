// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Given is a discovery without a server: its answer is given, and changes only by Say.
type Given struct {
	Nodes []discovery.Node
	By    discovery.Selection

	mu   sync.Mutex
	err  error
	said uint64 // how often Say was called
	stir signal
}

// Say changes the nodes, or makes every query fail.
func (g *Given) Say(err error, nodes ...discovery.Node) {
	g.mu.Lock()
	g.Nodes, g.err = nodes, err
	g.said++
	g.mu.Unlock()
	g.stir.fire()
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

// Query implements [discovery.Source]: it waits for an answer with another index, or an error.
func (g *Given) Query(ctx context.Context, index uint64, _ time.Duration) (a discovery.Answer, err error) {
	ended := g.stir.await(ctx, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		a, err = discovery.Answer{Nodes: g.Nodes, Index: g.said + 1}, g.err
		return err != nil || a.Index != index
	})
	if ended != nil {
		return discovery.Answer{}, ended
	}
	return a, err
}
