// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package standin plays a Consul agent and Vault nodes inside the process: for the demo where no real
// servers are at hand, and for faults that real servers do not show on demand.
//
// Everything listens on real sockets and may be used from several goroutines. Every Close waits until
// the goroutines of its server are gone.
package standin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// Consul answers health queries, blocking ones too, as an agent does. There is one index for all
// services. Filters (tag, passing, filter) are not applied: the redirector asks for the whole set.
type Consul struct {
	server *server
	stir   signal // requests and connections: for Await
	wake   signal // index, fault or abandonment changed: for blocked queries

	mu       sync.Mutex
	services map[string]json.RawMessage
	index    uint64
	epoch    uint64 // raised by SetIndex; a query that began in an older one is let go
	fault    func(http.ResponseWriter, *http.Request) bool
	faults   uint64 // counts changes of fault, so that a blocked query meets each one once
	header   func(http.Header)
	requests []Request
	queries  int
	open     int
}

// Request is one request that Consul has got.
type Request struct {
	Time       time.Time
	Method     string
	Path       string
	RawQuery   string
	Index      uint64        // 0 when absent or no number
	Wait       time.Duration // 0 when absent or no duration
	Token      string        // X-Consul-Token
	RemoteAddr string
}

// NewConsul starts an agent that knows no service, at index 1. An empty addr means a free port of 127.0.0.1.
func NewConsul(addr string) (*Consul, error) { return NewConsulTLS(addr, nil) }

// NewConsulTLS is NewConsul over TLS. A nil config means plain HTTP.
func NewConsulTLS(addr string, config *tls.Config) (*Consul, error) {
	c := &Consul{services: map[string]json.RawMessage{}, index: 1}
	c.server = newServer(addr, config, c, &c.stir)
	if err := c.server.start(); err != nil {
		return nil, fmt.Errorf("consul stand-in: %w", err)
	}
	return c, nil
}

// Addr is "host:port"; it stays the same through Refuse and Accept.
func (c *Consul) Addr() string { return c.server.addr }

// URL is the address with its scheme.
func (c *Consul) URL() string { return c.server.url() }

// Close ends the agent and waits for its goroutines. A fault must return when its request's context ends.
func (c *Consul) Close() { c.server.close() }

// Set replaces the whole set of a service's entries. The index rises by one and blocked queries that wait
// for a lower index return. The entries are copied: changing them afterwards changes nothing here.
func (c *Consul) Set(service string, entries ...*api.ServiceEntry) {
	body := encode(entries)
	c.mu.Lock()
	c.services[service] = body
	c.index++
	c.mu.Unlock()
	c.wake.fire()
}

// SetQuietly is Set without a new index: blocked queries see the new content when their wait is over.
func (c *Consul) SetQuietly(service string, entries ...*api.ServiceEntry) {
	body := encode(entries)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services[service] = body
}

// encode gives Consul's JSON, in which lists are empty but never null.
func encode(entries []*api.ServiceEntry) json.RawMessage {
	out := make([]*api.ServiceEntry, len(entries))
	for i, e := range entries {
		if e == nil {
			continue
		}
		copied := *e
		if copied.Service != nil && copied.Service.Tags == nil {
			service := *copied.Service
			service.Tags = []string{}
			copied.Service = &service
		}
		if copied.Checks == nil {
			copied.Checks = api.HealthChecks{}
		}
		out[i] = &copied
	}
	body, err := json.Marshal(out)
	if err != nil {
		panic(fmt.Sprintf("standin: entries cannot be encoded: %v", err)) // plain data: a bug of the script
	}
	return body
}

// Index is the index that answers carry now.
func (c *Consul) Index() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

// SetIndex makes the next answers carry n, without a change of content. Blocked queries return at once whatever they
// wait for, as they do when Consul's state is restored from a snapshot; those that come later with an index
// of n or more wait.
func (c *Consul) SetIndex(n uint64) {
	c.mu.Lock()
	c.index = n
	c.epoch++
	c.mu.Unlock()
	c.wake.fire()
}

// Handle shows every request to f first, on all paths; f reports whether it has answered. Blocked queries are
// released to meet f and go on waiting if it declines them. Nil removes the fault. A fault that waits must
// watch its request's context.
func (c *Consul) Handle(f func(w http.ResponseWriter, r *http.Request) (handled bool)) {
	c.mu.Lock()
	c.fault = f
	c.faults++
	c.mu.Unlock()
	c.wake.fire()
}

// Header lets f edit the headers of the agent's own answers before they are written. Nil removes it.
func (c *Consul) Header(f func(http.Header)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header = f
}

// Refuse closes the listener and all connections: from then on connecting is refused.
func (c *Consul) Refuse() { c.server.stop() }

// Accept listens again on the same address, with the same content. It fails if another process took the port meanwhile.
func (c *Consul) Accept() error { return c.server.start() }

// Reset ends every open connection with a TCP reset. New ones are welcome.
func (c *Consul) Reset() { c.server.drop(true) }

// Requests is what has come so far, oldest first.
func (c *Consul) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Queries is the number of health queries that have come so far.
func (c *Consul) Queries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queries
}

// Open is the number of health queries in flight now.
func (c *Consul) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// Connections is the number of open TCP connections.
func (c *Consul) Connections() int { return c.server.connections() }

// Await returns nil once cond holds, or the context's error. It asks again whenever requests, queries or
// connections come or go, so that tests need not poll.
func (c *Consul) Await(ctx context.Context, cond func() bool) error { return c.stir.await(ctx, cond) }
