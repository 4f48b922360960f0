// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Vault is one node: initialised, unsealed and a standby until told otherwise. It checks no token.
type Vault struct {
	name   string
	server *server
	stir   signal // requests and connections: for Await
	wake   signal // the end of a hang

	mu       sync.Mutex
	group    *group
	active   bool
	since    time.Time // of active
	sealed   bool
	forced   int
	reads    bool   // it serves reads as a standby
	cluster  string // cluster_id
	hang     bool
	requests []VaultRequest
}

// VaultRequest is one request that a Vault node has got.
type VaultRequest struct {
	Time       time.Time
	Method     string
	Path       string
	RawQuery   string
	Token      bool // X-Vault-Token was there; its value is not kept
	RemoteAddr string
}

// group is what the nodes of one cluster have in common.
type group struct {
	store store

	mu       sync.Mutex
	nodes    []*Vault
	stepDown func(*Vault) // what a step-down request does; nil: the node becomes a standby
}

// NewVault starts a node that is a cluster of its own. An empty addr means a free port of 127.0.0.1.
func NewVault(addr, name string) (*Vault, error) { return NewVaultTLS(addr, name, nil) }

// NewVaultTLS is NewVault over TLS. A nil config means plain HTTP.
func NewVaultTLS(addr, name string, config *tls.Config) (*Vault, error) {
	v := &Vault{name: name, cluster: "stand-in"}
	v.group = &group{nodes: []*Vault{v}}
	v.server = newServer(addr, config, v, &v.stir)
	if err := v.server.start(); err != nil {
		return nil, fmt.Errorf("vault stand-in %s: %w", name, err)
	}
	return v, nil
}

// Join makes the nodes one cluster with one empty store: standbys send clients to the one that is active.
func Join(nodes ...*Vault) {
	g := &group{nodes: slices.Clone(nodes)}
	for _, v := range nodes {
		v.mu.Lock()
		v.group = g
		v.mu.Unlock()
	}
}

// leader is the first node that is up, unsealed and active, or nil.
func (g *group) leader() *Vault {
	g.mu.Lock()
	nodes := g.nodes
	g.mu.Unlock()
	for _, v := range nodes {
		if v.leads() {
			return v
		}
	}
	return nil
}

// Name is the node's name, as its answers give it in X-Vault-Stand-In.
func (v *Vault) Name() string { return v.name }

// Addr is "host:port"; it stays the same through Kill and Start.
func (v *Vault) Addr() string { return v.server.addr }

// URL is the address with its scheme.
func (v *Vault) URL() string { return v.server.url() }

// Close ends the node and waits for its goroutines.
func (v *Vault) Close() { v.server.close() }

// Kill takes listener and connections away, as the death of the process does. What the node was (active,
// sealed) is kept for Start.
func (v *Vault) Kill() { v.server.stop() }

// Start listens again on the same address. It fails if another process took the port meanwhile.
func (v *Vault) Start() error { return v.server.start() }

// SetActive makes the node active or standby. It does not touch other nodes: two may be active.
func (v *Vault) SetActive(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if on && !v.active {
		v.since = time.Now()
	}
	v.active = on
}

// SetSealed seals or unseals the node. A sealed node is never the leader.
func (v *Vault) SetSealed(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sealed = on
}

// SetHealth forces the status of /v1/sys/health, with a document that fits. 0 gives the node's own again.
func (v *Vault) SetHealth(code int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forced = code
}

// SetServesReads makes the node, while it is a standby, serve reads itself, as OpenBao's do, or not, as those of Vault.
func (v *Vault) SetServesReads(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads = on
}

// SetClusterID changes the cluster_id, which is the same for all nodes by default.
func (v *Vault) SetClusterID(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cluster = id
}

// Hang makes the node accept requests and not answer them. They are answered when the hang is taken back.
func (v *Vault) Hang(on bool) {
	v.mu.Lock()
	v.hang = on
	v.mu.Unlock()
	v.wake.fire()
}

// Requests is what has come so far, oldest first.
func (v *Vault) Requests() []VaultRequest {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.requests)
}

// Connections is the number of open TCP connections.
func (v *Vault) Connections() int { return v.server.connections() }

// Await returns nil once cond holds, or the context's error. It asks again whenever requests or connections
// come or go.
func (v *Vault) Await(ctx context.Context, cond func() bool) error { return v.stir.await(ctx, cond) }

func (v *Vault) groupNow() *group {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.group
}

// eligible means that the node could lead.
func (v *Vault) eligible() bool {
	v.mu.Lock()
	sealed := v.sealed
	v.mu.Unlock()
	return !sealed && v.server.listening()
}

func (v *Vault) leads() bool {
	v.mu.Lock()
	active := v.active
	v.mu.Unlock()
	return active && v.eligible()
}

// arrive notes the request and waits while the node hangs; false means that the client went first.
func (v *Vault) arrive(r *http.Request) bool {
	v.mu.Lock()
	v.requests = append(v.requests, VaultRequest{
		Time: time.Now(), Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery,
		Token: r.Header.Get("X-Vault-Token") != "", RemoteAddr: r.RemoteAddr,
	})
	v.mu.Unlock()
	v.stir.fire()
	return v.wake.await(r.Context(), func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return !v.hang
	}) == nil
}
