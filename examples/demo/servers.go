// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

//go:embed demo.Caddyfile
var caddyfile string

// startCaddy returns when Caddy redirects.
func (d *demo) startCaddy(ctx context.Context) error {
	host, port, err := net.SplitHostPort(d.listen)
	if err != nil {
		return err
	}
	socket := "unix/" + filepath.Join(d.dir, "admin.sock")
	waiting, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("caddy does not redirect after %s", startTimeout))
	defer cancel()
	d.caddy, err = harness.Start(waiting, harness.Options{
		Program: d.options.caddy, Caddyfile: caddyfile, IP: host, Admin: socket, Dir: d.dir,
		Env: []string{"CONSUL_HTTP_ADDR=" + d.vaults.consul(), "DEMO_HOST=" + host, "DEMO_PORT=" + port, "DEMO_ADMIN=" + socket},
	})
	if err != nil {
		return err
	}
	err = d.poll(waiting, 10*time.Millisecond, func() bool {
		h, err := harness.ReadHealth(waiting, d.base)
		return err == nil && h.Healthy
	})
	if err != nil && waiting.Err() != nil {
		err = fmt.Errorf("%w; the end of its log:\n%s", err, d.caddy.Tail(10))
	}
	if err != nil {
		return err
	}
	d.printf("Caddy redirects at %s, %s after the start of the demo.\n", d.base, round(time.Since(d.begin)))
	d.printf("Status page: %s%s\n", d.base, pagePath)
	d.printf("Its configuration is examples/demo/demo.Caddyfile, its log %s\n", d.caddy.LogFile)
	return nil
}

// close ends and removes what there is.
func (d *demo) close() error {
	if d.client != nil {
		d.client.CloseIdleConnections()
	}
	errs := []error{d.caddy.Close()}
	if d.vaults != nil {
		errs = append(errs, d.vaults.close())
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

// way is how a node loses its role.
type way int

const (
	stepDown way = iota
	kill
)

func (w way) String() string { return [...]string{"steps down", "is killed (kill -9)"}[w] }

func (w way) title() string { return [...]string{"step-down", "kill -9"}[w] }

func (w way) other() way { return 1 - w }

// vaults is a Vault cluster and its Consul.
type vaults interface {
	consul() string  // its address
	program() string // the path of a vault program
	token() string   // root's; "" if none is needed
	name(addr string) string
	active(context.Context) (name string, err error)
	takeAway(context.Context, way) error // the active node
	dead() (name string)                 // the node that was killed, "" if none is
	revive(context.Context) error        // that node
	settle(context.Context)              // waits, within reason, until a failover is as quick as it can be
	close() error
}

// startVaults returns when a node is active.
func (d *demo) startVaults(ctx context.Context) (err error) {
	if d.real {
		d.vaults, err = d.startReal(ctx)
		return err
	}
	c, err := standin.NewCluster(3, "")
	if err != nil {
		return err
	}
	d.vaults = &played{Cluster: c}
	return nil
}
