// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the command line, and what the run consists of.

// Command benchfailover takes the active node away from a real Vault cluster again and again, under load through this
// plugin and through what else people put in front of Vault, side by side, and tells how each fared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/vault-redirector/caddy-vault-redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

type options struct {
	failovers int
	out       string // file of the Markdown, "" for none
	log       string // file of the failures, "" for none
	clients   int    // for each front
	every     time.Duration
	only      *regexp.Regexp // names of fronts
	kind      string         // step-down or kill -9 alone, "" for both in turn
}

func main() {
	if harness.AsCaddy() { // this program is the Caddy that it measures
		caddycmd.Main()
		return
	}
	var o options
	only := flag.String("only", "", "only the fronts whose name matches this regular `expression`")
	flag.IntVar(&o.failovers, "n", 20, "number of failovers, step-down and kill -9 in turn")
	flag.StringVar(&o.out, "out", "", "`file` in which the Markdown replaces that of the last run")
	flag.StringVar(&o.log, "log", "", "`file` for each failed operation, as JSON lines")
	flag.IntVar(&o.clients, "clients", 4, "clients of each front")
	flag.DurationVar(&o.every, "every", 100*time.Millisecond, "between two operations of a client")
	flag.StringVar(&o.kind, "kind", "", `only "step-down" or only "kill -9"`)
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := func() (err error) {
		if o.only, err = regexp.Compile(*only); err != nil {
			return err
		}
		result, err := run(ctx, o)
		if err != nil {
			return err
		}
		return result.write(os.Stdout, o)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchfailover:", err)
		os.Exit(1)
	}
}

// bench is a run.
type bench struct {
	options
	dir     string
	cluster *cluster.Cluster
	fronts  []*front
	left    []string // peers that are not installed
	closers []func() error
	nodes   []*nodeWatch
	current atomic.Pointer[round] // nil between failovers
}

// run runs all of it.
func run(ctx context.Context, o options) (result *result, err error) {
	b := &bench{options: o}
	defer func() {
		for i := len(b.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, b.closers[i]())
		}
	}()
	if b.dir, err = os.MkdirTemp("", "benchfailover-"); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, func() error { return os.RemoveAll(b.dir) })
	result = newResult(ctx, o)
	if b.cluster, err = cluster.Start(ctx, cluster.Options{LogDir: filepath.Join(b.dir, "logs")}); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.cluster.Close)
	if err := b.cluster.Do(ctx, nil, http.MethodPost, "/v1/sys/mounts/bench", map[string]any{"type": "kv"}, nil); err != nil {
		return nil, err
	}
	if err := b.startFronts(ctx); err != nil {
		return nil, err
	}
	if err := b.cluster.WaitHealthy(ctx); err != nil {
		return nil, err
	}
	return result, b.measure(ctx, result)
}

// measure has the load and the failovers run side by side.
func (b *bench) measure(ctx context.Context, result *result) error {
	var background sync.WaitGroup
	defer background.Wait()
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, v := range b.cluster.Vaults {
		n := &nodeWatch{vault: v}
		b.nodes = append(b.nodes, n)
		background.Go(func() { n.run(working) })
	}
	for _, f := range b.fronts {
		background.Go(func() { f.watch(working, &b.current) })
		for i := range b.clients {
			w := newWorker(f, i, b.cluster.RootToken)
			background.Go(func() { w.run(working, b.every, time.Duration(i)*b.every/time.Duration(b.clients)) })
		}
	}
	if err := wait.Sleep(ctx, time.Second); err != nil {
		return err
	}
	for i := range b.failovers {
		how := ways[i%len(ways)]
		if b.kind != "" {
			how = b.kind
		}
		r, err := b.failover(ctx, how)
		if err != nil {
			return fmt.Errorf("failover %d (%s): %w", i+1, how, err)
		}
		result.rounds = append(result.rounds, r)
		fmt.Printf("failover %2d of %d: %-9s %s\n", i+1, b.failovers, how, r.summary())
	}
	if err := wait.Sleep(ctx, time.Second); err != nil {
		return err
	}
	cancel()
	background.Wait()
	result.fronts, result.left = b.fronts, b.left
	for _, n := range b.nodes {
		_, times := n.seen()
		for _, at := range times {
			result.losses = append(result.losses, loss{n.vault.Addr, at})
		}
	}
	return result.finish(b.log)
}
