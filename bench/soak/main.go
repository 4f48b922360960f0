// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command soak runs a real cluster of Consul and Vault with a Caddy that redirects to it, makes random faults one after another
// while clients send requests, and ends with a table of what the clients got. A redirect is judged by what the Vault nodes
// say of themselves at that moment, see oracle.go. It is not part of `go test`; `make soak` runs it.
//
// The seed decides which faults are made, in which order, and how long each lasts. Which node is then the active one, and
// when the servers notice, is up to them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the flags.
type options struct {
	duration time.Duration
	seed     uint64
	caddy    string
	rate     int
	clients  int
	faults   []fault
}

func parse(args []string, errs io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.DurationVar(&o.duration, "duration", 10*time.Minute, "how long to make faults; the last one is healed after that")
	flags.Uint64Var(&o.seed, "seed", 0, "of the faults; 0: a random one, which is printed")
	flags.StringVar(&o.caddy, "caddy", "./caddy", "a Caddy with this plugin: make build")
	flags.IntVar(&o.rate, "rate", 200, "requests a second, of all clients together")
	flags.IntVar(&o.clients, "clients", 8, "number of clients")
	only := flags.String("faults", "", "names of the faults to choose from, separated by commas; default all of them: "+strings.Join(names(allFaults), ", "))
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1e9) + 1
	}
	var err error
	o.faults, err = choose(*only)
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rate < 1 || o.clients < 1 || o.duration <= 0:
		err = errors.New("rate, clients and duration must be above 0")
	}
	if err != nil {
		fmt.Fprintln(errs, "soak:", err)
	}
	return o, err
}

// run returns the exit code: 1 if a redirect was wrong, a request was lost, or the run could not be brought to its end.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	o, err := parse(args, errs)
	if err != nil {
		return 2
	}
	s := &soak{options: o, out: out}
	if err := s.run(ctx); err != nil {
		fmt.Fprintln(errs, "soak:", err)
		return 1
	}
	return 0
}

// soak is one run.
type soak struct {
	options
	out     io.Writer
	cluster *cluster.Cluster
	caddy   *caddy
	oracle  *oracle
	score   *score
}

func (s *soak) run(ctx context.Context) (err error) {
	fmt.Fprintf(s.out, "seed %d, %s, %d requests a second from %d clients\n", s.seed, s.duration, s.rate, s.clients)
	// A server and an agent for each Vault: with one server, the state of Consul would not survive its faults.
	s.cluster, err = cluster.Start(ctx, cluster.Options{Consuls: 3, AgentPerNode: true, ReconcileTimeout: 3 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.cluster.Close()) }()
	if s.caddy, err = startCaddy(ctx, s.options.caddy, s.cluster); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.caddy.Close()) }()

	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	stop := func() { cancel(); group.Wait() }
	defer stop()
	s.oracle, s.score = newOracle(s.cluster), newScore()
	group.Go(func() { s.oracle.run(background) })
	group.Go(func() { s.score.run(background, s.oracle) })
	s.oracle.await(ctx)
	s.startClients(background, &group)
	_ = wait.Sleep(ctx, settle) // all connections are there
	before, err := s.caddy.usage(background)
	if err != nil {
		return err
	}
	faults := s.makeFaults(ctx)
	if errors.Is(faults, context.Canceled) {
		fmt.Fprintln(s.out, "stopped: the table so far")
		faults = nil
	}
	_ = wait.Sleep(ctx, settle)
	after, err := s.caddy.usage(background)
	stop()
	s.score.settle(s.oracle)
	s.score.print(s.out)
	fmt.Fprintf(s.out, "\nCaddy       start       end\nmemory   %5d MiB %5d MiB\ngoroutines %7d %9d\n", before.memory>>20, after.memory>>20, before.goroutines, after.goroutines)
	fmt.Fprintf(s.out, "\nseed %d\n", s.seed)
	err = errors.Join(faults, err, s.score.verdict())
	if err != nil {
		err = fmt.Errorf("%w\nthe end of Caddy's log:\n%s", err, s.caddy.Tail(20))
	}
	return err
}

// settle is how long things are left alone before memory and goroutines are looked at.
const settle = 2 * time.Second
