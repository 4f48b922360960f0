// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the outcome, and its tables.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// result is what was measured.
type result struct {
	b       *bench
	figures map[string][]float64 // by front and figure
	left    []string             // programs without which something was left out
	before  string               // the load average
	after   string
	date    time.Time
}

func newResult(b *bench) *result {
	return &result{b: b, figures: map[string][]float64{}, left: slices.Clone(b.missing), before: load(), date: time.Now()}
}

func (r *result) end() { r.after = load() }

func (r *result) add(f *front, figure string, value float64) {
	r.figures[f.name+"\x00"+figure] = append(r.figures[f.name+"\x00"+figure], value)
}

func (r *result) leftOut(program string) {
	if !slices.Contains(r.left, program) {
		r.left = append(r.left, program)
	}
}

// cell is the median of a figure with the least and the most; "" where it was not measured.
func (r *result) cell(f *front, figure string, scale float64, digits int) string {
	all := slices.Sorted(slices.Values(r.figures[f.name+"\x00"+figure]))
	if len(all) == 0 {
		return "–"
	}
	text := func(v float64) string { return fmt.Sprintf("%.*f", digits, math.Max(0, v/scale)) }
	return fmt.Sprintf("%s (%s–%s)", text(all[len(all)/2]), text(all[0]), text(all[len(all)-1]))
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
	}{{"plain", plainRate, 1000, 1}, {"TLS, HTTP/1.1", tlsRate, 1000, 1}, {"HTTP/2", http2Rate, 1000, 1}}},
	{"CPU of the front for one redirect, in microseconds; the last column is for a client that connects by TLS, asks once and leaves", []struct {
		name, figure string
		scale        float64
		digits       int
	}{{"plain", plainCPU, 1, 1}, {"TLS, HTTP/1.1", tlsCPU, 1, 1}, {"HTTP/2", http2CPU, 1, 1}, {"a TLS connection each", visitCPU, 1, 0}}},
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
		o.rounds, o.lasts, o.connections, o.idle, o.rate, r.date.UTC().Format(time.DateOnly), o.rounds, o.lasts)
	for _, t := range tables {
		fmt.Fprintf(&b, "\n%s:\n\n| front |", t.title)
		for _, c := range t.columns {
			fmt.Fprintf(&b, " %s |", c.name)
		}
		fmt.Fprintf(&b, "\n| --- |%s\n", strings.Repeat(" --- |", len(t.columns)))
		for _, f := range r.b.fronts {
			fmt.Fprintf(&b, "| %s |", f.name)
			for _, c := range t.columns {
				fmt.Fprintf(&b, " %s |", r.cell(f, c.figure, c.scale, c.digits))
			}
			b.WriteString("\n")
		}
	}
	if len(r.left) > 0 {
		fmt.Fprintf(&b, "\nLeft out, since it is not installed: %s.\n", strings.Join(r.left, ", "))
	}
	fmt.Fprintf(&b, "\nPlain and TLS are measured by wrk with %d connections, HTTP/2 by h2load with as many and 10 streams in each; the rest by the "+
		"benchmark itself: latency on 16 plain connections at %d requests a second, each counted from when it was due; memory, once, by the growth of the "+
		"process with %d connections that have asked once. Nothing is logged, and the certificate has a key of P-256 for all.\n",
		o.connections, o.rate, o.idle)
	fmt.Fprintf(&b, "\nThe machine: %s, on loopback. Load average (1, 5, 15 minutes) before the run %s, at its end %s.\n\nVersions: %s.\n",
		machine(), r.before, r.after, strings.Join(versions(), "; "))
	return b.String()
}

// The lines around what a run writes.
const begin, end = "<!-- begin: benchfront -->\n", "<!-- end: benchfront -->\n"

// writeMarkdown puts the outcome where the last one was, or at the end of the file.
func (r *result) writeMarkdown() error {
	old, err := os.ReadFile(r.b.out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	after := ""
	if found {
		_, after, _ = strings.Cut(rest, end)
	}
	return os.WriteFile(r.b.out, []byte(before+begin+r.markdown()+end+after), 0o644)
}

// load is the load average of the last 1, 5 and 15 minutes.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func machine() string {
	name := fmt.Sprintf("%d cores", runtime.NumCPU())
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return name + ", " + strings.TrimSpace(value)
		}
	}
	return name
}

func versions() []string {
	list := []string{runtime.Version()}
	if commit, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		list = append(list, "this plugin at "+strings.TrimSpace(string(commit)))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/caddyserver/caddy/v2" {
				list = append(list, "Caddy "+d.Version)
			}
		}
	}
	for _, p := range [...][2]string{{"nginx", "-v"}, {"haproxy", "-v"}, {"wrk", "-v"}, {"h2load", "--version"}} {
		if text, _ := exec.Command(p[0], p[1]).CombinedOutput(); len(text) > 0 {
			line, _, _ := strings.Cut(string(text), "\n")
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}
