// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command twelve-factor runs two copies of a service that leases the credentials of its database from Vault, which it knows
// by the one address of a redirector, and takes the active Vault node away from it. README.md says more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
)

// demo is one run.
type demo struct {
	caddyProgram string
	todoProgram  string
	out          io.Writer
	begin        time.Time
	dir          string // removed at the end

	cluster *cluster.Cluster
	mariadb *process.Process
	caddy   *harness.Caddy
	todos   []*todo
	roleID  string
	secret  string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	d := &demo{out: os.Stdout}
	flag.StringVar(&d.caddyProgram, "caddy", "./caddy", "the Caddy to run, built from ./cmd/caddy")
	flag.StringVar(&d.todoProgram, "todo", "dist/todo", "the service to run, built from examples/twelve-factor/todo")
	flag.Parse()
	if err := d.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "twelve-factor: %v\n", err)
		os.Exit(1)
	}
}

// run is the whole demo. It is an error if a copy of the service has left a request unanswered.
func (d *demo) run(ctx context.Context) (err error) {
	d.begin = time.Now()
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.start(ctx); err != nil {
		return err
	}
	w := d.watch(ctx)
	err = d.story(ctx, w)
	asked, failed := w.end()
	if err != nil {
		return err
	}
	d.say("the copies were asked %d times, and failed %d times", asked, len(failed))
	if asked == 0 || len(failed) > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", len(failed), asked, errors.Join(failed[:min(1, len(failed))]...))
	}
	return nil
}

// story is what happens to Vault while the service is watched.
func (d *demo) story(ctx context.Context, w *watch) error {
	if err := w.more(ctx, 20); err != nil {
		return err
	}
	old, err := d.cluster.WaitActive(ctx)
	if err != nil {
		return err
	}
	if err := old.Kill(); err != nil {
		return err
	}
	killed := time.Now()
	d.say("%s, the active node, is killed (kill -9). Consul, its storage, holds its lock for some time", old.Name)

	d.say("a third copy is started, which needs Vault at once")
	third, err := d.startTodo(ctx, 2)
	if err != nil {
		return err
	}
	d.say("it serves %s after the kill: its login waited at the redirector for the next active node", round(time.Since(killed)))
	w.add(third)
	next, err := d.cluster.WaitActive(ctx, old)
	if err != nil {
		return err
	}
	d.say("%s is active", next.Name)
	if err := w.more(ctx, 20); err != nil {
		return err
	}

	if err := old.Start(); err != nil {
		return err
	}
	if err := old.WaitHealth(ctx, http.StatusServiceUnavailable); err != nil {
		return err
	}
	d.say("%s is back, sealed", old.Name)
	if err := w.more(ctx, 20); err != nil {
		return err
	}
	if err := old.Unseal(ctx); err != nil {
		return err
	}
	d.say("%s is unsealed, and stands by", old.Name)
	if err := w.more(ctx, 20); err != nil {
		return err
	}
	users, err := d.leases(ctx)
	if err != nil {
		return err
	}
	d.say("Vault has leased credentials to %d copies", users)
	if users < 3 {
		return fmt.Errorf("%d leases of credentials, want one for each of the 3 copies", users)
	}
	return nil
}

// say writes a line, with the time since the begin.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%6.1fs  "+format+"\n", append([]any{time.Since(d.begin).Seconds()}, args...)...)
}

func round(t time.Duration) time.Duration { return t.Round(100 * time.Millisecond) }
