// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const standbyReads = "standby method GET LIST"

// readers are the clients that TestReads makes read and write all the time.
var readers = []string{"`vault`", "Go: `vault/api`", "`curl -L`, `X-Vault-Token`", "Python: hvac", "Node: node-vault"}

// reader is one client: it writes a secret, reads it a few times, and begins anew.
type reader struct {
	name    string
	driver  driver
	secret  string
	written []string // what the secret may be: the last value that was written, and later ones whose writing failed
}

// use is one op of a reader.
type use struct {
	client string
	op     op
	began  time.Time
	err    error
}

// use does the n-th op.
func (r *reader) use(ctx context.Context, n int) use {
	u := use{client: r.name, op: opRead, began: time.Now()}
	q := request{Name: r.secret}
	if n%4 == 0 {
		u.op, q.Value = opWrite, fmt.Sprint("value-", n)
		r.written = append(r.written, q.Value)
	}
	q.Op = u.op
	got, err := r.driver.do(ctx, q)
	switch {
	case err != nil:
		u.err = err
	case u.op == opWrite:
		r.written = []string{q.Value}
	case !slices.Contains(r.written, got):
		u.err = fmt.Errorf("read %q, written were %q", got, r.written)
	}
	return u
}

// readLoad is readers at work.
type readLoad struct {
	clients []string // that are installed

	mu   sync.Mutex
	uses []use
}

// startReaders starts those of the readers that are installed, the n-th on the n-th stage. They end with the test.
func startReaders(t *testing.T, on func(n int) *stage, at *site) *readLoad {
	t.Helper()
	l := &readLoad{}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	for i, name := range readers {
		c := clients[slices.IndexFunc(clients, func(c client) bool { return c.name == name })]
		d, err := c.open(ctx, on(i), at)
		if left := (missingError{}); errors.As(err, &left) {
			t.Logf("%s: left out: %s", name, left.why)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		l.clients = append(l.clients, name)
		r := &reader{name: name, driver: d, secret: fmt.Sprint("reader-", i)}
		group.Go(func() {
			defer d.close()
			for n := 0; ctx.Err() == nil; n++ {
				u := r.use(ctx, n)
				if ctx.Err() != nil { // it was interrupted
					return
				}
				l.mu.Lock()
				l.uses = append(l.uses, u)
				l.mu.Unlock()
			}
		})
	}
	if len(l.clients) == 0 {
		t.Fatal("no client is installed")
	}
	return l
}

// more waits until every client has done n ops that began from now on, and returns all that have ended since then.
func (l *readLoad) more(t *testing.T, n int) []use {
	t.Helper()
	l.mu.Lock()
	from, now := len(l.uses), time.Now()
	l.mu.Unlock()
	var uses []use
	wait.Until(t, "every client has done more", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		uses = slices.Clone(l.uses[from:])
		return !slices.ContainsFunc(l.clients, func(client string) bool {
			done := 0
			for _, u := range uses {
				if u.client == client && u.began.After(now) {
					done++
				}
			}
			return done < n
		})
	})
	return uses
}

// fault is something that happens to a cluster under load.
type fault struct {
	name string
	do   func() error
	mend func() error
}

// tryFaults makes the faults happen. What began more than a second after a fault must succeed: of what begins before, the node that
// ends may have been asked, and not all of the clients ask twice.
func (l *readLoad) tryFaults(t *testing.T, steady func(), faults []fault) {
	for _, f := range faults {
		for _, u := range l.more(t, 4) {
			if u.err != nil {
				t.Errorf("before %s: %s: %s: %v", f.name, u.client, u.op, u.err)
			}
		}
		steady()
		at := time.Now()
		if err := f.do(); err != nil {
			t.Fatal(err)
		}
		uses := l.more(t, 8)
		failed := 0
		for _, u := range uses {
			if u.err == nil {
				continue
			}
			failed++
			if after := u.began.Sub(at); after > time.Second {
				t.Errorf("%s: %s: %s, begun %s after it: %v", f.name, u.client, u.op, after, u.err)
			}
		}
		t.Logf("%s: of %d reads and writes, %d failed", f.name, len(uses), failed)
		if err := f.mend(); err != nil {
			t.Fatal(err)
		}
	}
}

func nothing() error { return nil }

// awaitReading waits until n nodes get reads.
func awaitReading(ctx context.Context, caddy *harness.Caddy, n int) error {
	return wait.Poll(ctx, pollEvery, fmt.Sprint("wait until so many nodes get reads: ", n), func(ctx context.Context) error {
		_, text, err := caddy.Ask(ctx, "GET", "/vault_redirect/status", "", "")
		if got := strings.Count(text, `"reads": true`); err == nil && got != n {
			err = fmt.Errorf("%d do: %s", got, text)
		}
		return err
	})
}

// TestReadsOnStandIns has real clients read and write while scripted standbys, which serve reads, end and become active.
func TestReadsOnStandIns(t *testing.T) {
	t.Parallel()
	cluster.Needed(t)
	c := standin.RunCluster(t, 3)
	for _, v := range c.Vaults {
		v.SetServesReads(true)
	}
	caddy := harness.Run(t, harness.Options{Caddyfile: `
http://{ip}:8080 {
	vault_redirect ` + c.Consul.Addr() + ` {
		scheme http
		` + standbyReads + `
	}
}`})
	dir := t.TempDir()
	cert, key, err := certs.New("client").Write(dir, "client")
	if err != nil {
		t.Fatal(err)
	}
	reading := func(n int) func() error {
		return func() error { return awaitReading(t.Context(), caddy, n) }
	}
	if err := reading(2)(); err != nil {
		t.Fatal(err)
	}
	load := startReaders(t, func(n int) *stage { // each client has a token, and so a standby, of its own
		return &stage{
			Cluster: &cluster.Cluster{RootToken: fmt.Sprint("token-", n), VaultCA: cert}, caddy: caddy, dir: dir, clientCert: cert, clientKey: key,
			fetch: !testing.Short(),
		}
	}, &site{addr: "http://" + caddy.IP + ":8080"})
	var died, busiest *standin.Vault // of the standbys
	var looked time.Time
	steady := func() {
		busiest = nil
		counts, active := map[string]int{}, c.Active()
		for _, v := range c.Vaults {
			for _, r := range v.Requests() {
				if r.Time.Before(looked) || !strings.HasPrefix(r.Path, "/v1/secret/") {
					continue
				}
				if (r.Method == "GET") == (v == active) {
					t.Errorf("%s of %s at %s, which is active: %v", r.Method, r.Path, v.Name(), v == active)
				}
				counts[v.Name()]++
			}
			if v != active && (busiest == nil || counts[v.Name()] > counts[busiest.Name()]) {
				busiest = v
			}
		}
		t.Logf("requests by node: %v, of the active one: %d", counts, counts[active.Name()])
		if counts[active.Name()] == 0 || counts[busiest.Name()] == 0 {
			t.Error("no writes, or no reads")
		}
	}
	restart := func() error {
		if died != nil {
			if err := c.Restart(died); err != nil {
				return err
			}
		}
		err := reading(2)()
		load.more(t, 1) // what has begun before may have gone elsewhere
		looked = time.Now()
		return err
	}
	load.tryFaults(t, steady, []fault{
		{"a standby ends", func() error { died = busiest; died.Kill(); return nil }, restart},
		{"step-down", func() error { died = nil; c.StepDown(); return nil }, restart},
		{"the active node ends", func() error { died, _ = c.Kill(); return nil }, restart},
	})
}

// TestReadsOnVault is the same on real Vault, whose standbys forward: no request goes to a standby.
func TestReadsOnVault(t *testing.T) {
	if testing.Short() {
		t.Skip("several failovers of Vault")
	}
	cluster.Needed(t)
	at := &site{id: "reads"}
	s, err := newStage(t.Context(), []*site{at}, standbyReads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	load := startReaders(t, func(int) *stage { return s }, at)
	var victim *cluster.Vault
	of := func(do func(active *cluster.Vault) error) func() error {
		return func() error {
			active, err := s.WaitActive(t.Context())
			if err != nil {
				return err
			}
			return do(active)
		}
	}
	kill := func(v *cluster.Vault) error { victim = v; return v.Kill() }
	restart := func() error {
		if err := victim.Restart(t.Context()); err != nil {
			return err
		}
		return errors.Join(s.WaitHealthy(t.Context()), s.awaitRedirects(t.Context()))
	}
	steady := func() {
		results, err := at.results(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("results: %v", results)
		if results["standby"] > 0 || results["redirected"] == 0 {
			t.Errorf("results: %v", results)
		}
	}
	load.tryFaults(t, steady, []fault{
		{"kill -9 of a standby", of(func(active *cluster.Vault) error {
			return kill(s.Vaults[slices.IndexFunc(s.Vaults, func(v *cluster.Vault) bool { return v != active })])
		}), restart},
		{"step-down", of(func(active *cluster.Vault) error { return active.StepDown(t.Context()) }), nothing},
		{"kill -9 of the active node", of(kill), restart},
	})
	steady()
}
