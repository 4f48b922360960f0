// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command latency measures what stands between a client and Vault: how long a read takes directly, through a redirect and through
// proxies, over links with delay, and how much a proxy can pass on. Each front has one core, and the load, with the node and the
// links, another one. It needs Linux and two cores, and is built as benchlatency.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/vault-redirector/caddy-vault-redirect"
	"github.com/vault-redirector/caddy-vault-redirect/bench/load"
	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

type options struct {
	rounds      int
	lasts       time.Duration   // one measurement
	connections int             // that are kept while throughput is measured
	clients     int             // that read while latency is measured
	rate        int             // reads a second of all of them
	delays      []time.Duration // of each link, there and back
	out         string          // file of the Markdown, "" for none
}

func main() {
	if harness.AsCaddy() { // this program is the Caddy that it measures
		caddycmd.Main()
		return
	}
	o := options{delays: []time.Duration{0, time.Millisecond, 10 * time.Millisecond}}
	flag.IntVar(&o.rounds, "rounds", 3, "how often each figure is measured; the median is told")
	flag.DurationVar(&o.lasts, "lasts", 3*time.Second, "how long one measurement lasts")
	flag.IntVar(&o.connections, "connections", 32, "kept connections while throughput is measured")
	flag.IntVar(&o.clients, "clients", 16, "clients while latency is measured")
	flag.IntVar(&o.rate, "rate", 300, "reads a second of all clients while latency is measured")
	flag.Func("delays", "delays of each link, there and back, separated by `commas` (default 0s,1ms,10ms)", func(text string) error {
		o.delays = nil
		for _, part := range strings.Split(text, ",") {
			d, err := time.ParseDuration(part)
			if err != nil || d < 0 {
				return errors.Join(err, errors.New("it is no delay"))
			}
			o.delays = append(o.delays, d)
		}
		return nil
	})
	flag.StringVar(&o.out, "out", "", "`file` in which the Markdown replaces that of the last run")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := load.Pin(ctx)
	var r *result
	if err == nil {
		r, err = run(ctx, o)
	}
	if err == nil {
		fmt.Print(r.markdown())
		if o.out != "" {
			err = page.Replace(o.out, "benchlatency", r.markdown())
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchlatency:", err)
		os.Exit(1)
	}
}

// run measures one setting after another.
func run(ctx context.Context, o options) (r *result, err error) {
	b, err := newBench(o)
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	defer func() { err = errors.Join(err, b.close()) }()
	r = newResult(ctx, o)
	for _, tls := range []bool{false, true} {
		for _, delay := range o.delays {
			if err := b.measure(ctx, r, setting{delay, tls}); err != nil {
				return nil, fmt.Errorf("%s: %w", setting{delay, tls}, err)
			}
		}
	}
	r.missing = b.missing
	r.machine.End()
	return r, nil
}
