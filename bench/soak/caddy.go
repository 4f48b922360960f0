// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const caddyfile = `{
	persist_config off
	default_bind {ip}
}
http://{ip}:8080 {
	vault_redirect {
		consul {consul} {
			poll_interval 2s
		}
		scheme http
	}
}
`

// caddy is the child process.
type caddy struct{ *harness.Caddy }

// startCaddy returns when Caddy redirects. It asks the cluster's first Consul server.
func startCaddy(ctx context.Context, program string, c *cluster.Cluster) (*caddy, error) {
	program, err := filepath.Abs(program) // Caddy has a working directory of its own
	if err != nil {
		return nil, err
	}
	config := strings.ReplaceAll(caddyfile, "{consul}", c.Consuls[0].HTTPAddr)
	child, err := harness.Start(ctx, harness.Options{Program: program, IP: c.IP(cluster.FirstFreeHost), Caddyfile: config})
	if err != nil {
		return nil, err
	}
	y := &caddy{child}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("not after 30s"))
	defer cancel()
	err = wait.Poll(ctx, 20*time.Millisecond, "wait for redirects", func(ctx context.Context) error {
		if err := y.Ended(); err != nil {
			return err
		}
		h, err := harness.ReadHealth(ctx, y.site())
		if err == nil && !h.Healthy {
			err = fmt.Errorf("%s\n%s", h.Reason, y.Tail(20))
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, y.Close())
	}
	return y, nil
}

func (y *caddy) site() string { return "http://" + y.IP + ":8080" }

// knows tells whether Caddy redirects to a URL and has heard from Consul that it is to.
func (y *caddy) knows(ctx context.Context, url string) bool {
	h, err := harness.ReadHealth(ctx, y.site())
	return err == nil && h.Reason == "ok" && h.RedirectTo == url
}

// usage is what Caddy takes.
type usage struct {
	memory     int // resident, in bytes
	goroutines int
}

func (y *caddy) usage(ctx context.Context) (u usage, err error) {
	g, err := y.Goroutines(ctx)
	if err != nil {
		return u, err
	}
	u.goroutines = g.Total
	u.memory, err = y.Memory()
	return u, err
}
