// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command failover takes the active node away from a real Vault cluster again and again, under load through this plugin and
// through what else people put in front of Vault, side by side, and tells how each fared. It is built as benchfailover.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/vault-redirector/caddy-vault-redirect"
	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

type options struct {
	failovers int // of each kind, in each run
	runs      int
	out       string // file of the Markdown, "" for none
	log       string // file of the failures, "" for none
	clients   int    // for each front
	every     time.Duration
	only      *regexp.Regexp // names of fronts
	kinds     []string       // of ways, in turn
	tls       bool           // clients, fronts and nodes speak TLS; the plugin does not trust the nodes
	storage   string         // Vault's: one of storages
}

func main() {
	if harness.AsCaddy() { // this program is the Caddy that it measures
		caddycmd.Main()
		return
	}
	var o options
	only := flag.String("only", "", "only the fronts whose name matches this regular `expression`")
	flag.IntVar(&o.failovers, "n", 7, "number of failovers of each kind in a run")
	flag.IntVar(&o.runs, "runs", 3, "number of runs, each with a cluster of its own")
	flag.StringVar(&o.out, "out", "", "`file` in which the Markdown replaces that of the last run")
	flag.StringVar(&o.log, "log", "", "`file` for each failed operation, as JSON lines")
	flag.IntVar(&o.clients, "clients", 4, "clients of each front")
	flag.DurationVar(&o.every, "every", 100*time.Millisecond, "between two operations of a client")
	flag.Func("kind", `only this `+"`kind`"+` of failovers, "step-down", "kill -9" or "stop"; may be given several times`, func(kind string) error {
		if !slices.Contains(ways, kind) {
			return fmt.Errorf("it is none of %q", ways)
		}
		o.kinds = append(o.kinds, kind)
		return nil
	})
	flag.BoolVar(&o.tls, "tls", false, "TLS between clients, fronts and nodes; this plugin does not trust the certificates of the nodes")
	flag.StringVar(&o.storage, "storage", "raft", "storage of Vault: raft (three nodes), consul (two), or dynamodb (two, without Consul; dynalite plays DynamoDB)")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	err := func() (err error) {
		if o.only, err = regexp.Compile(*only); err != nil {
			return err
		}
		if _, known := storages[o.storage]; !known {
			return fmt.Errorf("storage %q: it must be raft, consul or dynamodb", o.storage)
		}
		if o.tls && storages[o.storage].cluster.NoConsul {
			return errors.New("-tls: without Consul, this plugin uses no node that it does not trust")
		}
		if len(o.kinds) == 0 {
			o.kinds = ways
		}
		report, err := runAll(ctx, o)
		if err != nil {
			return err
		}
		return report.write(os.Stdout, o)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchfailover:", err)
		os.Exit(1)
	}
}

// storages are those of Vault that can be chosen.
var storages = map[string]struct {
	cluster         cluster.Options
	title, describe string
}{
	"raft":   {cluster.Options{}, "Failovers", "three Vault nodes with raft storage, one Consul"},
	"consul": {cluster.Options{Storage: cluster.ConsulStorage, Vaults: 2}, "Failovers with Consul as storage", "two Vault nodes with Consul as storage, one Consul"},
	"dynamodb": {
		cluster.Options{Storage: cluster.DynamoStorage, Vaults: 2, NoConsul: true},
		"Failovers with DynamoDB as storage", "two Vault nodes with DynamoDB as storage, which dynalite plays (simulated), no Consul",
	},
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
	trust   *tls.Config           // of clients
}

// runAll makes one run after another.
func runAll(ctx context.Context, o options) (*report, error) {
	programs := []string{"consul", "vault", "haproxy", "nginx"}
	if storages[o.storage].cluster.NoConsul {
		programs = []string{"vault", "haproxy"}
	}
	r := &report{machine: page.NewMachine(ctx, programs...)}
	if o.log != "" {
		if err := os.Remove(o.log); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for i := range o.runs {
		fmt.Printf("run %d of %d\n", i+1, o.runs)
		result, err := run(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("run %d: %w", i+1, err)
		}
		r.runs = append(r.runs, result)
	}
	r.machine.End()
	return r, nil
}

// run makes one run.
func run(ctx context.Context, o options) (r *result, err error) {
	b := &bench{options: o}
	r = new(result)
	defer func() {
		for i := len(b.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, b.closers[i]())
		}
	}()
	if b.dir, err = os.MkdirTemp("", "benchfailover-"); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, func() error { return os.RemoveAll(b.dir) })
	what := storages[o.storage].cluster
	what.TLS, what.LogDir = o.tls, filepath.Join(b.dir, "logs")
	if b.cluster, err = cluster.Start(ctx, what); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.cluster.Close)
	if o.tls {
		if b.trust, err = trusting(b.cluster.VaultCA); err != nil {
			return nil, err
		}
	}
	if err := b.cluster.Do(ctx, nil, http.MethodPost, "/v1/sys/mounts/bench", map[string]any{"type": "kv"}, nil); err != nil {
		return nil, err
	}
	if err := b.startFronts(ctx); err != nil {
		return nil, err
	}
	if err := b.cluster.WaitHealthy(ctx); err != nil {
		return nil, err
	}
	return r, b.measure(ctx, r)
}

// measure runs the load and the failovers side by side.
func (b *bench) measure(ctx context.Context, result *result) error {
	var background sync.WaitGroup
	defer background.Wait()
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, v := range b.cluster.Vaults {
		n := &nodeWatch{vault: v, client: b.newHTTPClient()}
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
	total := b.failovers * len(b.kinds)
	for i := range total {
		how := b.kinds[i%len(b.kinds)]
		r, err := b.failover(ctx, how)
		if err != nil {
			return fmt.Errorf("failover %d (%s): %w", i+1, how, err)
		}
		result.rounds = append(result.rounds, r)
		fmt.Printf("failover %2d of %d: %-9s %s\n", i+1, total, how, r.summary())
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
