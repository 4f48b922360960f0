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
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

// The figures.
const (
	p50, p99            = "p50", "p99"
	readsRate, readsCPU = "rate", "CPU"

	milliseconds, microseconds = 1e3, 1e6
)

// key is of what a figure is.
type key struct {
	front  string
	of     setting
	figure string
}

// result is what was measured.
type result struct {
	options
	fronts  []*front
	figures map[key][]float64
	missing []string // programs without which something was left out
	machine *page.Machine
}

func newResult(ctx context.Context, o options) *result {
	return &result{options: o, figures: map[key][]float64{}, machine: page.NewMachine(ctx, "haproxy", "nginx", "wrk")}
}

// note notes the fronts, which are the same in all settings.
func (r *result) note(fronts []*front) {
	if r.fronts == nil {
		r.fronts = fronts
	}
}

func (r *result) add(f *front, s setting, figure string, value float64) {
	k := key{f.name, s, figure}
	r.figures[k] = append(r.figures[k], value)
}

// median is that of a figure, "–" if it was not measured.
func (r *result) median(k key) string {
	of := slices.Sorted(slices.Values(r.figures[k]))
	if len(of) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", of[len(of)/2])
}

// latencies is the table of plain connections, or that of TLS.
func (r *result) latencies(tls bool) string {
	columns, lines := []string{"front"}, [][]string(nil)
	for _, delay := range r.delays {
		columns = append(columns, delayText(delay))
	}
	for _, f := range r.fronts {
		line := []string{f.name}
		for _, delay := range r.delays {
			s := setting{delay, tls}
			line = append(line, fmt.Sprintf("%s (%s)", r.median(key{f.name, s, p50}), r.median(key{f.name, s, p99})))
		}
		lines = append(lines, line)
	}
	return page.Table(columns, lines)
}

func delayText(delay time.Duration) string {
	if delay == 0 {
		return "no delay"
	}
	return "links of " + delay.String()
}

// throughputs is the table of what proxies pass on.
func (r *result) throughputs() string {
	var lines [][]string
	for _, f := range r.fronts {
		if !f.proxies {
			continue
		}
		plain, secure := setting{}, setting{tls: true}
		lines = append(lines, []string{
			f.name,
			page.Median(r.figures[key{f.name, plain, readsRate}], 1000, 1), page.Median(r.figures[key{f.name, plain, readsCPU}], 1, 0),
			page.Median(r.figures[key{f.name, secure, readsRate}], 1000, 1), page.Median(r.figures[key{f.name, secure, readsCPU}], 1, 0),
		})
	}
	return page.Table([]string{"front", "plain, thousand reads a second", "CPU of a read, µs", "TLS, thousand reads a second", "CPU of a read, µs"}, lines)
}

func (r *result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## What a redirect or a proxy costs a client\n\nMade by `benchlatency -rounds %d -lasts %s -connections %d -clients %d -rate %d` on %s. Each front has one core; the load, "+
		"the node and the links have another one. The fronts are measured in turns.\n\n",
		r.rounds, r.lasts, r.connections, r.clients, r.rate, r.machine.Date.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "How long a read takes on kept connections, in milliseconds, as p50 (p99), over plain HTTP:\n\n%s\nThe same over TLS, to the front as to the node:\n\n%s\n",
		r.latencies(false), r.latencies(true))
	fmt.Fprintf(&b, "There are three links, each with the same delay, which is the time there and back: from clients to the front, from clients to the node, and from "+
		"the front to the node. So a read takes one round trip directly, and two through a redirect as through a proxy; a proxy that is near the "+
		"nodes saves most of its second one, a redirector that is near the clients most of its first. A delay is made by relays of the benchmark, "+
		"which add some 0.1 ms themselves. Reads are made by %s on connections of their own, together %d a second, each timed from when it "+
		"was due; the figures are medians of %s. A client follows the redirect on the connection to the node that it has kept.\n\n",
		words.Plural(r.clients, "client"), r.rate, words.Plural(r.rounds, "measurement"))
	fmt.Fprintf(&b, "What a proxy can pass on, without delay, and what that costs it; the median, the least and the most:\n\n%s\nMeasured by wrk with %d connections. "+
		"The load has one core too, on which the node runs as well, and is at its own limit with the fastest fronts: where rates differ by a few "+
		"per cent only, compare the CPU. The node is played: it answers each read with the same %d bytes at once, where Vault needs a few tenths of a "+
		"millisecond. All connections are HTTP/1.1, certificates have a P-256 key, nothing is logged.\n",
		r.throughputs(), r.connections, len(secret))
	if len(r.missing) > 0 {
		fmt.Fprintf(&b, "\nLeft out, since it is not installed: %s.\n", strings.Join(r.missing, ", "))
	}
	b.WriteString("\n" + r.machine.String())
	return b.String()
}
