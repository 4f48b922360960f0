// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// genuine is a cluster of real servers.
type genuine struct {
	*cluster.Cluster
	vault  string // the program
	log    *os.File
	killed *cluster.Vault
}

// startReal returns nil, not a typed one, with an error.
func (d *demo) startReal(ctx context.Context) (vaults, error) {
	g := new(genuine)
	progress := func(format string, args ...any) { d.printf(format+"\n", args...) } // a first build takes minutes
	consul, err := cluster.Program(ctx, "consul", progress)
	if err != nil {
		return nil, err
	}
	if g.vault, err = cluster.Program(ctx, "vault", progress); err != nil {
		return nil, err
	}
	d.printf("Starting %s\nand three times %s ...\n", consul, g.vault)
	if g.log, err = os.Create(filepath.Join(d.dir, "cluster.log")); err != nil {
		return nil, err
	}
	if g.Cluster, err = cluster.Start(ctx, cluster.Options{Log: g.log, LogDir: d.dir}); err != nil {
		return nil, errors.Join(err, g.log.Close())
	}
	mount := map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}
	if err := g.Do(ctx, nil, http.MethodPost, "/v1/sys/mounts/secret", mount, nil); err != nil {
		return nil, errors.Join(err, g.close())
	}
	d.printf("%d nodes are up, their logs in %s\n", len(g.Vaults), d.dir)
	return g, nil
}

func (g *genuine) consul() string  { return g.Consuls[0].HTTPAddr }
func (g *genuine) program() string { return g.vault }
func (g *genuine) token() string   { return g.RootToken }

func (g *genuine) name(addr string) string {
	for _, v := range g.Vaults {
		if v.Addr == addr {
			return v.Name
		}
	}
	return addr
}

func (g *genuine) active(ctx context.Context) (string, error) {
	v, err := g.WaitActive(ctx)
	if err != nil {
		return "", err
	}
	return v.Name, nil
}

func (g *genuine) takeAway(ctx context.Context, how way) error {
	v, err := g.Active(ctx)
	if err != nil {
		return err
	}
	if how == stepDown {
		return v.StepDown(ctx)
	}
	g.killed = v
	return v.Kill()
}

func (g *genuine) dead() string {
	if g.killed == nil {
		return ""
	}
	return g.killed.Name
}

func (g *genuine) revive(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, failoverTimeout, fmt.Errorf("%s is not back after %s", g.killed.Name, failoverTimeout))
	defer cancel()
	if err := g.killed.Restart(ctx); err != nil {
		return err
	}
	g.killed = nil
	return g.WaitSettled(ctx)
}

// settle waits for followers that lag behind: with those an election takes up to 9 seconds, else 2.
func (g *genuine) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	_ = g.WaitHealthy(ctx) // no more than a wish
}

func (g *genuine) close() error { return errors.Join(g.Close(), g.log.Close()) }
