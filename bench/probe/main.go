// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command probe measures what many redirectors cost: the CPU that their probes take at real Vault nodes, and how soon all of
// them follow when Consul marks another node. It is built as benchprobe.
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
	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

type options struct {
	redirectors []int         // whose cost is measured
	span        time.Duration // of each measurement
	rate        [2]int        // reads a second by clients, over http and over TLS
	watchers    int           // that follow a change
	changes     int           // of the active node
	out         string        // file of the Markdown, "" for none
}

func main() {
	if harness.AsCaddy() { // this program is the Caddy that it measures
		caddycmd.Main()
		return
	}
	o := options{redirectors: []int{1, 10, 100}}
	flag.DurationVar(&o.span, "span", 30*time.Second, "of each measurement of CPU time")
	flag.IntVar(&o.rate[0], "rate", 500, "reads a second by clients over http, all redirectors together")
	flag.IntVar(&o.rate[1], "rate-tls", 200, "the same over TLS")
	flag.IntVar(&o.watchers, "watchers", 1000, "number of redirectors that follow a change in Consul")
	flag.IntVar(&o.changes, "changes", 5, "number of changes that they follow")
	flag.StringVar(&o.out, "out", "", "`file` in which the Markdown replaces that of the last run")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	text, err := run(ctx, o)
	if err == nil {
		fmt.Print(text)
		if o.out != "" {
			err = page.Replace(o.out, "benchprobe", text)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchprobe:", err)
		os.Exit(1)
	}
}

// run returns the Markdown.
func run(ctx context.Context, o options) (string, error) {
	machine := page.NewMachine(ctx, "consul", "vault")
	var (
		costs [2][]cost
		loads [2][]load
		err   error
	)
	for i, secure := range []bool{false, true} {
		if costs[i], err = measureCost(ctx, o, secure); err != nil {
			return "", fmt.Errorf("cost of probes: %w", err)
		}
		if loads[i], err = measureLoad(ctx, o, o.rate[i], secure); err != nil {
			return "", fmt.Errorf("cost of probes under load: %w", err)
		}
	}
	spans, err := measureFollowing(ctx, o)
	if err != nil {
		return "", fmt.Errorf("following a change: %w", err)
	}
	machine.End()
	return markdown(o, machine, costs, loads, spans), nil
}

// closing closes what a measurement has started, the last first.
type closing []func() error

func (c *closing) add(f func() error) { *c = append(*c, f) }

func (c *closing) close(err *error) {
	for i := len(*c) - 1; i >= 0; i-- {
		*err = errors.Join(*err, (*c)[i]())
	}
}
