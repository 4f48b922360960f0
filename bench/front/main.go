// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command front measures what a redirect costs: by this plugin with and without its fast lane, by Caddy's own redir, by nginx
// and by HAProxy, each on one core, with the load on another one, in turns. It needs Linux and two cores, and is built as
// benchfront.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/vault-redirector/caddy-vault-redirect"
	"github.com/vault-redirector/caddy-vault-redirect/bench/load"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

type options struct {
	rounds      int
	lasts       time.Duration // one measurement
	connections int           // that are kept under load
	idle        int           // that are kept idle
	rate        int           // requests a second where latency is measured
	out         string        // file of the Markdown, "" for none
}

func main() {
	if harness.AsCaddy() { // this program is the Caddy that it measures
		caddycmd.Main()
		return
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each figure is measured; the median is told")
	flag.DurationVar(&o.lasts, "lasts", 3*time.Second, "how long one measurement lasts")
	flag.IntVar(&o.connections, "connections", 32, "kept connections under load")
	flag.IntVar(&o.idle, "idle", 2000, "kept connections that are idle, for their memory")
	flag.IntVar(&o.rate, "rate", 1000, "requests a second where latency is measured")
	flag.StringVar(&o.out, "out", "", "`file` in which the Markdown replaces that of the last run")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	r, err := run(ctx, o)
	if err == nil {
		fmt.Print(r.markdown())
		if o.out != "" {
			err = r.writeMarkdown()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchfront:", err)
		os.Exit(1)
	}
}

// run measures all fronts, in turns.
func run(ctx context.Context, o options) (r *result, err error) {
	if err := load.Pin(ctx); err != nil {
		return nil, err
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	r = newResult(ctx, b)
	for round := range o.rounds {
		for _, m := range measures {
			for _, f := range b.fronts {
				if why := b.cannot(m); why != "" {
					r.leftOut(why)
					continue
				}
				fmt.Fprintf(os.Stderr, "round %d: %s, %s\n", round+1, m.name, f.name)
				if err := m.take(ctx, b, f, r); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", m.name, f.name, err)
				}
			}
		}
	}
	r.machine.End()
	return r, nil
}
