// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command failover takes the active node away from a real Vault cluster again and again, under load through this plugin and
// through what else people put in front of Vault, side by side, and tells how each fared. It is built as benchfailover.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
	failovers int // of each kind, in each run, for each kind of client
	runs      int
	out       string // file of the Markdown, "" for none
	log       string // file of the failures, "" for none
	keep      string // file of finished runs, "" for none
	clients   int    // for each front
	every     time.Duration
	only      *regexp.Regexp // names of fronts
	kinds     []string       // of ways, in turn
	users     []*clientKind  // of clientKinds, in turn
	busy      bool           // fronts in turn, clients without a pause
	redirects int            // a second that each redirector is asked for, beside its clients
	tls       bool           // clients, fronts and nodes speak TLS; the redirects of the plugin do not trust the nodes
	storage   string         // Vault's: one of storages
}

// busyEvery is how often a busy client begins an operation, if it is not late: a client whose operations fail at once must not
// fail as often as it can.
const busyEvery = 10 * time.Millisecond

func main() {
	if harness.AsCaddy() { // this program is the Caddy that it measures
		caddycmd.Main()
		return
	}
	var o options
	only := flag.String("only", "", "only the fronts whose name matches this regular `expression`")
	flag.IntVar(&o.failovers, "n", 7, "number of failovers of each kind in a run, for each kind of client")
	flag.IntVar(&o.runs, "runs", 3, "number of runs, each with a cluster of its own")
	flag.StringVar(&o.out, "out", "", "`file` in which the Markdown replaces that of the last run")
	flag.StringVar(&o.log, "log", "", "`file` for each failed operation, as JSON lines")
	flag.StringVar(&o.keep, "keep", "", "`file` of finished runs: each run is added to it, and the tables tell of all that it has; so a long benchmark can be split")
	flag.IntVar(&o.clients, "clients", 6, "clients of each front")
	flag.DurationVar(&o.every, "every", 250*time.Millisecond, "between two operations of a client")
	flag.BoolVar(&o.busy, "busy", false, fmt.Sprintf("one front at a time, whose clients do one operation after another, at most one every %s", busyEvery))
	flag.IntVar(&o.redirects, "redirects", 0, "redirects a `second` that each redirector is asked for beside its clients, to see for how long it names a node that has stopped")
	flag.Func("kind", `only this `+"`kind`"+` of failovers, "step-down", "kill -9" or "stop"; may be given several times`, func(kind string) error {
		if !slices.Contains(ways, kind) {
			return fmt.Errorf("it is none of %q", ways)
		}
		o.kinds = append(o.kinds, kind)
		return nil
	})
	flag.Func("client", `only this kind of `+"`client`"+`, "vault" (Vault's own) or "plain" (without retries); may be given several times`, func(key string) error {
		i := slices.IndexFunc(clientKinds, func(k *clientKind) bool { return k.key == key })
		if i < 0 {
			return errors.New("it is neither vault nor plain")
		}
		o.users = append(o.users, clientKinds[i])
		return nil
	})
	flag.BoolVar(&o.tls, "tls", false, "TLS between clients, fronts and nodes; the redirects of this plugin do not trust the certificates of the nodes")
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
		if len(o.users) == 0 {
			o.users = clientKinds
		}
		if o.busy {
			o.every = busyEvery
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

// phase is a part of a run: failovers under the load of one kind of client.
type phase struct {
	user   *clientKind
	fronts []*front
	rounds []*round
	tasks  map[*front][]*operation // what the clients did
}

// phases returns the parts of a run, one after another.
func (b *bench) phases() (phases []*phase) {
	for _, user := range b.users {
		if !b.busy {
			phases = append(phases, &phase{user: user, fronts: b.fronts})
			continue
		}
		for _, f := range b.fronts {
			phases = append(phases, &phase{user: user, fronts: []*front{f}})
		}
	}
	return phases
}

// runAll makes one run after another.
func runAll(ctx context.Context, o options) (*report, error) {
	forgetVault()
	programs := []string{"consul", "vault", "haproxy", "nginx", "consul-template"}
	if storages[o.storage].cluster.NoConsul {
		programs = []string{"vault", "haproxy"}
	}
	r := &report{machine: page.NewMachine(ctx, programs...)}
	var err error
	if r.runs, err = kept(o); err != nil {
		return nil, err
	}
	if o.log != "" && len(r.runs) == 0 {
		if err := os.Remove(o.log); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for i := range o.runs {
		fmt.Printf("run %d of %d\n", i+1, o.runs)
		sum, err := run(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("run %d: %w", i+1, err)
		}
		if r.runs = append(r.runs, sum); o.keep != "" {
			if err := appendLines(o.keep, []keptRun{{o.name(), o.failovers, sum}}); err != nil {
				return nil, err
			}
		}
	}
	r.machine.End()
	return r, nil
}

// keptRun is a run in the file of finished ones.
type keptRun struct {
	Setting   string
	Failovers int
	Run       *summary
}

// kept returns the runs that are finished already.
func kept(o options) (runs []*summary, err error) {
	if o.keep == "" {
		return nil, nil
	}
	file, err := os.Open(o.keep)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := json.NewDecoder(file)
	for {
		var line keptRun
		switch err := lines.Decode(&line); {
		case errors.Is(err, io.EOF):
			return runs, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", o.keep, err)
		case line.Setting != o.name() || line.Failovers != o.failovers:
			return nil, fmt.Errorf("%s has runs of %s with -n %d: remove it, or name another file", o.keep, line.Setting, line.Failovers)
		}
		runs = append(runs, line.Run)
		if line.Run.names() != runs[0].names() {
			return nil, fmt.Errorf("%s has runs with different fronts: remove it, or name another file", o.keep)
		}
	}
}

// forgetVault removes what the environment says of the user's own Vault: its client reads that.
func forgetVault() {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "VAULT_") && !strings.HasPrefix(name, "VAULT_REDIRECT_") {
			_ = os.Unsetenv(name)
		}
	}
}

// run makes one run.
func run(ctx context.Context, o options) (sum *summary, err error) {
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
	if err := b.mount(ctx); err != nil {
		return nil, err
	}
	if err := b.startFronts(ctx); err != nil {
		return nil, err
	}
	if err := b.cluster.WaitHealthy(ctx); err != nil {
		return nil, err
	}
	return b.measure(ctx)
}

// mount makes the place of the secrets: each write of one makes a new version, so that versions tell how often it was carried out.
func (b *bench) mount(ctx context.Context) error {
	mount := map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}
	if err := b.cluster.Do(ctx, nil, http.MethodPost, "/v1/sys/mounts/"+mountPath, mount, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return wait.Poll(ctx, 50*time.Millisecond, "wait for the place of the secrets", func(ctx context.Context) error { // it is made ready in the background
		return b.cluster.Do(ctx, nil, http.MethodPost, "/v1/"+mountPath+"/config", map[string]any{"max_versions": maxVersions}, nil)
	})
}

// measure makes the failovers, one phase after another.
func (b *bench) measure(ctx context.Context) (*summary, error) {
	var background sync.WaitGroup
	defer background.Wait()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, v := range b.cluster.Vaults {
		n := &nodeWatch{vault: v, client: b.newHTTPClient()}
		b.nodes = append(b.nodes, n)
		background.Go(func() { n.run(watching) })
	}
	phases := b.phases()
	done, total := 0, b.failovers*len(b.kinds)*len(phases)
	for _, p := range phases {
		if err := b.runPhase(ctx, p, &done, total); err != nil {
			return nil, err
		}
	}
	cancel()
	background.Wait()
	result := &result{phases: phases, fronts: b.fronts, left: b.left}
	for _, n := range b.nodes {
		_, times := n.seen()
		for _, at := range times {
			result.losses = append(result.losses, loss{n.vault.Addr, at})
		}
	}
	return result.finish(b.log)
}

// runPhase runs the load and the failovers side by side, and looks then what became of the writes. done counts the failovers.
func (b *bench) runPhase(ctx context.Context, p *phase, done *int, total int) error {
	fmt.Printf("%s: %s\n", p.user.name, list(p.fronts))
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	working, stopWorking := context.WithCancel(ctx)
	defer stopWorking()
	var watchers, workers sync.WaitGroup
	defer watchers.Wait()
	defer workers.Wait()
	var all []*worker
	for _, f := range p.fronts {
		watchers.Go(func() { b.watch(watching, f) })
		for i := range b.clients {
			w, err := b.newWorker(p, f, i)
			if err != nil {
				return err
			}
			all = append(all, w)
			workers.Go(func() { w.run(ctx, working, b.every, time.Duration(i)*b.every/time.Duration(b.clients)) })
		}
	}
	if err := wait.Sleep(ctx, time.Second); err != nil {
		return err
	}
	for i := range b.failovers * len(b.kinds) {
		how := b.kinds[i%len(b.kinds)]
		*done++
		r, err := b.failover(ctx, p, how)
		if err != nil {
			return fmt.Errorf("failover %d (%s): %w", *done, how, err)
		}
		p.rounds = append(p.rounds, r)
		fmt.Printf("failover %2d of %d: %-9s %s\n", *done, total, how, r.summary())
	}
	if err := wait.Sleep(ctx, time.Second); err != nil {
		return err
	}
	stopWorking()
	workers.Wait() // what is under way comes to its end
	stopWatching()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.tasks = map[*front][]*operation{}
	for _, w := range all {
		p.tasks[w.front] = append(p.tasks[w.front], w.done...)
	}
	return b.countWrites(ctx, p)
}

// list names fronts.
func list(fronts []*front) string {
	var names []string
	for _, f := range fronts {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}
