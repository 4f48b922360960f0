// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const (
	stepDown = "step-down"
	kill     = "kill -9"
	stop     = "stop" // SIGTERM, as by systemctl stop

	// blocked is how long Vault keeps a node that stepped down from becoming active again.
	blocked = 10 * time.Second
	// expiry is when Consul has noticed that a node is dead: Vault's check there has a TTL of 5s.
	expiry = 8 * time.Second
	// limit is how long a failover may take, and after it each front.
	limit = 60 * time.Second
)

var ways = []string{stepDown, kill, stop}

// restAfter is how long a failover lasts at least: a node that steps down is kept from its role for blocked, and one that was killed
// stays in Consul until its check expires. One that is stopped leaves Consul by itself.
var restAfter = map[string]time.Duration{stepDown: blocked + 500*time.Millisecond, kill: expiry, stop: 3 * time.Second}

// round is one failover.
type round struct {
	how      string
	old      string    // host:port of the node that was active
	begin    time.Time // when it was told to step down or to stop, or killed
	gone     time.Time // when its connections broke, its listener closed, or it first said that it is not active: there is no earlier sign
	new      string    // of the node that is active then
	first200 time.Time // when that node said so first
	sights   map[*front]*sight
}

func (r *round) summary() string {
	return fmt.Sprintf("%s -> %s, gone after %s, next after %s", r.old, r.new, ms(r.gone.Sub(r.begin)), ms(r.first200.Sub(r.begin)))
}

// failover takes the active node away and returns when all is well again.
func (b *bench) failover(ctx context.Context, p *phase, how string) (*round, error) {
	old, err := b.cluster.Active(ctx)
	if err != nil {
		return nil, err
	}
	r := &round{how: how, old: old.Addr, sights: map[*front]*sight{}}
	for _, f := range p.fronts {
		r.sights[f] = &sight{named: map[string]span{}, right: map[string]span{}}
	}
	b.current.Store(r)
	defer b.current.Store(nil)
	if err := wait.Sleep(ctx, 500*time.Millisecond); err != nil {
		return nil, err
	}
	if err := b.takeAway(ctx, r, old); err != nil {
		return nil, err
	}
	if err := b.await(ctx, "the next active node", func() bool { return b.succeeded(r) }); err != nil {
		return nil, err
	}
	err = b.await(ctx, "every front", func() bool {
		for _, s := range r.sights {
			if s.firstRight(r.new).IsZero() {
				return false
			}
		}
		return true
	})
	if err != nil && !errors.Is(err, errLate) { // one that is late is reported so
		return nil, err
	}
	if err := wait.Sleep(ctx, time.Until(r.begin.Add(restAfter[how]))); err != nil {
		return nil, err
	}
	b.current.Store(nil)
	if how != stepDown {
		if err := old.Restart(ctx); err != nil {
			return nil, err
		}
	}
	healthy, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r, b.cluster.WaitHealthy(healthy)
}

// takeAway does to the active node what the round is about.
func (b *bench) takeAway(ctx context.Context, r *round, old *cluster.Vault) error {
	switch r.how {
	case kill:
		return b.kill(r, old)
	case stop:
		return b.stop(ctx, r, old)
	default:
		r.begin = time.Now()
		return b.cluster.Do(ctx, old, http.MethodPut, "/v1/sys/step-down", nil, nil)
	}
}

// stop tells a node to end and notes when it refuses new connections. It goes on answering on those that are kept.
func (b *bench) stop(ctx context.Context, r *round, old *cluster.Vault) error {
	r.begin = time.Now()
	if err := old.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	for time.Since(r.begin) < limit {
		conn, err := net.DialTimeout("tcp", old.Addr, time.Second)
		if errors.Is(err, syscall.ECONNREFUSED) {
			r.gone = time.Now()
			return nil
		}
		if err == nil {
			conn.Close()
		}
		if err := wait.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("stop %s: its listener is still open: %w", old.Name, errLate)
}

// kill kills a node and notes when its connections break: that is the earliest sign of it, some ms after the signal.
func (b *bench) kill(r *round, old *cluster.Vault) error {
	conn, err := net.Dial("tcp", old.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	broken := make(chan time.Time, 1)
	go func() {
		_, _ = io.ReadAll(conn)
		broken <- time.Now()
	}()
	r.begin = time.Now()
	if err := old.Kill(); err != nil {
		return err
	}
	r.gone = <-broken
	return nil
}

// succeeded reports whether there is a new active node, and notes it.
func (b *bench) succeeded(r *round) bool {
	var next *nodeWatch
	for _, n := range b.nodes {
		first, losses := n.seen()
		if n.vault.Addr == r.old && r.how == stepDown {
			if len(losses) == 0 || losses[len(losses)-1].Before(r.begin) {
				return false // it is active as ever
			}
			r.gone = losses[len(losses)-1]
		}
		if first.After(r.begin) {
			next, r.first200 = n, first
		}
	}
	if next == nil {
		return false
	}
	r.new = next.vault.Addr
	return true
}

var errLate = errors.New("too late")

func (b *bench) await(ctx context.Context, what string, ok func() bool) error {
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for %s: %w", what, errLate)
		}
		if err := wait.Sleep(ctx, watchEvery); err != nil {
			return err
		}
	}
	return nil
}
