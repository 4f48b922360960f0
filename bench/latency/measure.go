// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/load"
)

// path is what is read, with a token.
const path, token = "/v1/secret/data/team/app?version=3", "hvs.CAESIJ0bench"

// client reads a secret on kept connections: one to the front and, if the front redirects, one to the node.
type client struct {
	front, node *load.Conn
	request     []byte
	location    string // that a redirect has to name
}

// newClient connects.
func (g *stage) newClient(f *front) (c *client, err error) {
	var config *tls.Config
	if g.tls {
		config = g.trust
	}
	c = &client{request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nX-Vault-Token: %s\r\nX-Vault-Request: true\r\nUser-Agent: benchlatency\r\n\r\n", path, f.entry, token)}
	if c.front, err = load.Connect(f.entry, config); err != nil {
		return nil, err
	}
	if f.proxies || f.process == nil {
		return c, nil
	}
	c.location = g.scheme() + "://" + g.node + path
	if c.node, err = load.Connect(g.node, config); err != nil {
		return nil, errors.Join(err, c.front.Close())
	}
	return c, nil
}

func (c *client) close() {
	_ = c.front.Close()
	if c.node != nil {
		_ = c.node.Close()
	}
}

// read reads the secret.
func (c *client) read() error {
	res, length, err := c.front.Ask(c.request)
	if err != nil {
		return err
	}
	if c.node != nil {
		if location := res.Header.Get("Location"); res.StatusCode != http.StatusTemporaryRedirect || location != c.location {
			return fmt.Errorf("status %s, Location %q, want %q", res.Status, location, c.location)
		}
		if res, length, err = c.node.Ask(c.request); err != nil {
			return err
		}
	}
	if res.StatusCode != http.StatusOK || length != int64(len(secret)) {
		return fmt.Errorf("status %s, %d bytes", res.Status, length)
	}
	return nil
}

// measure takes all figures of one setting, the fronts in turns.
func (b *bench) measure(ctx context.Context, r *result, s setting) (err error) {
	g, err := b.newStage(ctx, s)
	defer func() { err = errors.Join(err, g.close()) }()
	if err != nil {
		return err
	}
	r.note(g.fronts)
	for round := range b.rounds {
		for _, f := range g.fronts {
			fmt.Fprintf(os.Stderr, "%s, round %d: %s\n", s, round+1, f.name)
			if err := g.latency(ctx, r, f); err != nil {
				return fmt.Errorf("latency, %s: %w", f.name, err)
			}
			if s.delay > 0 || !f.proxies {
				continue
			}
			if err := g.throughput(ctx, r, f); err != nil {
				return fmt.Errorf("throughput, %s: %w", f.name, err)
			}
		}
	}
	return nil
}

// latency takes how long reads take.
func (g *stage) latency(ctx context.Context, r *result, f *front) error {
	var reads []func() error
	for range g.clients {
		c, err := g.newClient(f)
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.read(); err != nil { // the front connects to the node
			return err
		}
		reads = append(reads, c.read)
	}
	took, err := load.Paced(ctx, g.rate, g.lasts, reads)
	if err != nil {
		return err
	}
	r.add(f, g.setting, p50, took[len(took)/2].Seconds()*milliseconds)
	r.add(f, g.setting, p99, took[len(took)*99/100].Seconds()*milliseconds)
	return nil
}

// throughput takes how many reads a second a proxy passes on, and what each costs it.
func (g *stage) throughput(ctx context.Context, r *result, f *front) error {
	if _, err := exec.LookPath("wrk"); err != nil {
		g.leaveOut("wrk")
		return nil
	}
	var rate float64
	spent, err := load.CPU(f.process, func() (err error) {
		rate, err = load.Wrk(ctx, g.scheme()+"://"+f.address+path, g.connections, g.lasts, "X-Vault-Token: "+token)
		return err
	})
	if err != nil {
		return err
	}
	seconds := max(time.Second, g.lasts.Round(time.Second)).Seconds() // as wrk takes it
	r.add(f, g.setting, readsRate, rate)
	r.add(f, g.setting, readsCPU, spent.Seconds()/(rate*seconds)*microseconds)
	return nil
}

// leaveOut notes that a program is not installed.
func (b *bench) leaveOut(program string) {
	if !slices.Contains(b.missing, program) {
		b.missing = append(b.missing, program)
	}
}
