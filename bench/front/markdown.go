// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
)

// result is what was measured.
type result struct {
	b       *bench
	figures map[string][]float64 // by front and figure
	left    []string             // programs without which something was left out
	machine *page.Machine
}

func newResult(ctx context.Context, b *bench) *result {
	return &result{
		b: b, figures: map[string][]float64{}, left: slices.Clone(b.missing), machine: page.NewMachine(ctx, "nginx", "haproxy", "wrk", "h2load"),
	}
}

func (r *result) add(f *front, figure string, value float64) {
	r.figures[f.name+"\x00"+figure] = append(r.figures[f.name+"\x00"+figure], value)
}

func (r *result) leftOut(program string) {
	if !slices.Contains(r.left, program) {
		r.left = append(r.left, program)
	}
}

// cell is the median of a figure with the least and the most.
func (r *result) cell(f *front, figure string, scale float64, digits int) string {
	return page.Median(r.figures[f.name+"\x00"+figure], scale, digits)
}

// tables are the columns of each table.
var tables = []struct {
	title   string
	columns []struct {
		name, figure string
		scale        float64
		digits       int
	}
}{
	{"Redirects a second on kept connections, in thousands", []struct {
		name, figure string
		scale        float64
		digits       int
	}{{"plain", plainRate, 1000, 1}, {"TLS, HTTP/1.1", tlsRate, 1000, 1}, {"prefers HTTP/2", http2Rate, 1000, 1}}},
	{"CPU of the front for one redirect, in microseconds; the last two columns are for a client that connects by TLS, asks once and leaves", []struct {
		name, figure string
		scale        float64
		digits       int
	}{{"plain", plainCPU, 1, 1}, {"TLS, HTTP/1.1", tlsCPU, 1, 1}, {"prefers HTTP/2", http2CPU, 1, 1}, {"a TLS connection each", visitCPU, 1, 0}, {"the same, X25519MLKEM768", hybridCPU, 1, 0}}},
	{"Latency at a fixed rate in microseconds, and memory of an idle connection in KiB", []struct {
		name, figure string
		scale        float64
		digits       int
	}{{"p50", p50, 1, 0}, {"p99", p99, 1, 0}, {"idle, plain", plainMemory, 1, 1}, {"idle, TLS", tlsMemory, 1, 1}}},
}

func (r *result) markdown() string {
	var b strings.Builder
	o := r.b.options
	fmt.Fprintf(&b, "## Redirects\n\nMade by `benchfront -rounds %d -lasts %s -connections %d -idle %d -rate %d` on %s. Each front has one core and the load "+
		"another one; the fronts are measured in turns. Each cell is the median of %d measurements of %s, with the least and the most.\n",
		o.rounds, o.lasts, o.connections, o.idle, o.rate, r.machine.Date.UTC().Format(time.DateOnly), o.rounds, o.lasts)
	for _, t := range tables {
		columns, lines := []string{"front"}, [][]string(nil)
		for _, c := range t.columns {
			columns = append(columns, c.name)
		}
		for _, f := range r.b.fronts {
			line := []string{f.name}
			for _, c := range t.columns {
				line = append(line, r.cell(f, c.figure, c.scale, c.digits))
			}
			lines = append(lines, line)
		}
		fmt.Fprintf(&b, "\n%s:\n\n%s", t.title, page.Table(columns, lines))
	}
	if len(r.left) > 0 {
		fmt.Fprintf(&b, "\nLeft out, since it is not installed: %s.\n", strings.Join(r.left, ", "))
	}
	fmt.Fprintf(&b, "\nThe load has one core too, and is at its own limit with the fastest fronts: where rates differ by a few per cent only, compare the CPU for "+
		"one redirect. Plain and TLS are measured by wrk with %d connections; a client that prefers HTTP/2 by h2load with as many and 10 streams in each, "+
		"or one request at a time with `protocols h1`. Latency is measured on 16 plain connections at %d requests a second, each timed from when it was "+
		"due; memory once, by the growth of the process with %d connections that have asked once. Nothing is logged. All fronts have the same certificate "+
		"with a P-256 key, and agree on keys by X25519, except in the last column of the second table: X25519MLKEM768 is what Go's clients and browsers "+
		"prefer, where the front supports it.\n",
		o.connections, o.rate, o.idle)
	b.WriteString("\n" + r.machine.String())
	return b.String()
}

// writeMarkdown puts the outcome where the last one was.
func (r *result) writeMarkdown() error { return page.Replace(r.b.out, "benchfront", r.markdown()) }
