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
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
)

// options say what to run.
type options struct {
	fetch bool   // clients may be downloaded and built
	short bool   // only the short part
	only  string // clients whose name contains this
	line  string // an option of vault_redirect for all sites
	tell  func(format string, args ...any)
}

// outcome is how an op went.
type outcome string

const (
	redirected outcome = "redirect"
	proxied    outcome = "proxied"
	no         outcome = "**no**"
	lacking    outcome = "–"
)

// cell is what came of an op, before and after the failover.
type cell struct {
	outcome outcome
	said    string // what the user saw where it is no
}

// add takes what came of it the second time. Both must be the same; else the cell is a no.
func (c *cell) add(o cell) {
	switch {
	case c.outcome == "":
		*c = o
	case o.outcome != c.outcome:
		*c = cell{no, "before the failover: " + string(c.outcome) + " " + c.said + "; after: " + string(o.outcome) + " " + o.said}
	}
}

// row is a client in the matrix.
type row struct {
	*client
	of        string // version
	why       string // it is left out
	plain     *site  // that redirects everything
	mended    *site  // that has the client's option, nil without one
	driver    map[*site]driver
	cells     map[op]*cell
	mendCells map[op]*cell // of the site that has the option
}

// matrix is the whole.
type matrix struct {
	options
	stage   *stage
	rows    []*row
	machine *page.Machine

	operatorSite, snapshotSite *site
	tools                      [][]string // lines of their table
}

func run(ctx context.Context, o options) (_ *matrix, err error) {
	m := &matrix{options: o, machine: page.NewMachine(ctx, "consul", "vault")}
	m.operatorSite = &site{id: "operator"}
	m.snapshotSite = &site{id: "snapshots", line: snapshotLine}
	sites := []*site{m.operatorSite, m.snapshotSite}
	for i := range clients {
		c := &clients[i]
		if !strings.Contains(c.name, o.only) {
			continue
		}
		r := &row{
			client: c, plain: &site{id: fmt.Sprintf("client-%d", i)},
			driver: map[*site]driver{}, cells: map[op]*cell{}, mendCells: map[op]*cell{},
		}
		sites = append(sites, r.plain)
		if c.mend != "" {
			r.mended = &site{id: r.plain.id + "-mended", line: c.mend}
			sites = append(sites, r.mended)
		}
		m.rows = append(m.rows, r)
	}
	if m.stage, err = newStage(ctx, sites, m.line); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	m.stage.fetch = o.fetch
	for _, r := range m.rows {
		if err := m.open(ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	for i, what := range []string{"before", "after"} {
		if i > 0 {
			if err := m.stage.failover(ctx); err != nil {
				return nil, err
			}
		}
		for _, r := range m.rows {
			if err := m.ask(ctx, r, what); err != nil {
				return nil, fmt.Errorf("%s, %s the failover: %w", r.name, what, err)
			}
		}
	}
	if err := m.operate(ctx); err != nil {
		return nil, err
	}
	m.machine.End()
	return m, nil
}

func (m *matrix) close() error {
	var errs []error
	for _, r := range m.rows {
		for _, d := range r.driver {
			errs = append(errs, d.close())
		}
	}
	return errors.Join(append(errs, m.stage.close())...)
}

// open starts a client at its sites, or leaves it out.
func (m *matrix) open(ctx context.Context, r *row) error {
	for _, at := range []*site{r.plain, r.mended} {
		if at == nil || r.why != "" {
			continue
		}
		d, err := r.client.open(ctx, m.stage, at)
		if left := (missingError{}); errors.As(err, &left) {
			r.why = left.why
			m.tell("%s: left out: %s", r.name, r.why)
			continue
		}
		if err != nil {
			return err
		}
		r.driver[at], r.of = d, d.version()
	}
	return nil
}

// ask makes a client do everything once; what it could not do at the site that redirects, at the other one as well.
func (m *matrix) ask(ctx context.Context, r *row, when string) error {
	if r.why != "" {
		return nil
	}
	begin := time.Now()
	for _, o := range r.asked(m.short) {
		c, err := m.try(ctx, r, r.plain, o)
		if err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
		add(r.cells, o, c)
		if c.outcome != no {
			continue
		}
		m.tell("%s, %s the failover: %s: %s", r.name, when, o, c.said)
		if r.mended == nil {
			continue
		}
		if c, err = m.try(ctx, r, r.mended, o); err != nil {
			return fmt.Errorf("%s with %s: %w", o, r.mend, err)
		}
		add(r.mendCells, o, c)
		if c.outcome == no {
			m.tell("%s, %s the failover, with %s: %s: %s", r.name, when, r.mend, o, c.said)
		}
	}
	m.tell("%s %s, %s the failover: asked in %s", r.name, r.of, when, time.Since(begin).Round(time.Millisecond))
	return nil
}

func add(cells map[op]*cell, o op, c cell) {
	if cells[o] == nil {
		cells[o] = &cell{}
	}
	cells[o].add(c)
}

// try makes a client do something at a site. An error is one of the matrix; that of the client is in the cell. On a busy
// machine raft may elect another node at any time: what fails meanwhile is tried again.
func (m *matrix) try(ctx context.Context, r *row, at *site, o op) (c cell, err error) {
	for range 3 {
		before, err := m.stage.WaitActive(ctx)
		if err != nil {
			return c, err
		}
		if c, err = m.tryOnce(ctx, r, at, o); err != nil || c.outcome != no {
			return c, err
		}
		if after, err := m.stage.Active(ctx); err == nil && after == before {
			return c, nil
		}
		m.tell("%s: %s: another node has become active meanwhile: once more", r.name, o)
		if err := m.stage.awaitRedirects(ctx); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (m *matrix) tryOnce(ctx context.Context, r *row, at *site, o op) (cell, error) {
	q, err := m.stage.request(ctx, o, at.id)
	if err != nil {
		return cell{}, err
	}
	if err := at.skip(); err != nil {
		return cell{}, err
	}
	got, err := r.driver[at].do(ctx, q)
	switch {
	case errors.Is(err, errLacks):
		return cell{outcome: lacking}, nil
	case err != nil:
		return cell{no, m.stage.said(err)}, ctx.Err()
	}
	if err := m.stage.check(ctx, q, got); err != nil {
		return cell{no, m.stage.said(err)}, ctx.Err()
	}
	results, err := at.results(ctx)
	switch {
	case err != nil:
		return cell{}, err
	case results["proxied"] > 0:
		return cell{outcome: proxied}, nil
	case results["redirected"] > 0:
		return cell{outcome: redirected}, nil
	}
	return cell{}, fmt.Errorf("it works, but the redirector answered %v", results)
}

// surprises is an error if something is not as the list of clients says.
func (m *matrix) surprises() error {
	var errs []error
	for _, r := range m.rows {
		for o, c := range r.cells {
			if err := r.surprise(o, c); err != nil {
				errs = append(errs, fmt.Errorf("%s %s: %w", r.name, r.of, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (r *row) surprise(o op, c *cell) error {
	expected := slices.Contains(r.fails, o)
	with := r.mendCells[o]
	switch {
	case c.outcome == no && !expected:
		return fmt.Errorf("%s does not work: %s", o, c.said)
	case c.outcome != no && expected:
		return fmt.Errorf("%s works now: %s", o, c.outcome)
	case c.outcome != no:
		return nil
	case with == nil:
		return fmt.Errorf("%s: there is no option that mends it", o)
	case (with.outcome == proxied) == slices.Contains(r.never, o):
		return fmt.Errorf("%s with %s: %s %s", o, r.mend, with.outcome, with.said)
	}
	return nil
}
