// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the run found: whose fault each failure was, and the table.

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is what a run found.
type result struct {
	machine machine
	rounds  []*round
	losses  []loss
	fronts  []*front
	left    []string
	rows    []row
}

// row is a line of the table.
type row struct {
	front                      *front
	inFlight                   int
	beyondStepDown, beyondKill int
	rights                     []time.Duration // from the new node's first 200 to the front's first right answer
	never                      int             // failovers that the front did not follow
	dead                       []time.Duration // from the kill to the front's last use of the dead node
}

// loss is the end of a node's time as the active one.
type loss struct {
	node string
	at   time.Time // as round.gone
}

// unplanned is the number of losses that the run has not brought about: under load, raft may lose its leader by itself.
func (r *result) unplanned() int { return len(r.losses) - len(r.rounds) }

// roundOf returns the failover that was the last to begin before an operation ended, nil if there is none.
func (r *result) roundOf(f *failure) *round {
	for _, round := range slices.Backward(r.rounds) {
		if f.end.After(round.begin) {
			return round
		}
	}
	return nil
}

// slack is how much later than clients this program may see a node go.
const slack = 50 * time.Millisecond

// inFlight reports whether a failed operation had begun before the node that it went to was gone, and ended thereafter.
// What proxies had under way then counts as under way at that node.
func (r *result) inFlight(f *front, o *failure) bool {
	proxy := !f.redirects && !f.direct
	return slices.ContainsFunc(r.losses, func(l loss) bool {
		return (proxy || o.node == l.node) && !o.start.After(l.at) && !o.end.Before(l.at.Add(-slack))
	})
}

// correct puts the moment at which the connections of a killed node broke in place of that at which a probe failed.
func (r *result) correct() {
	for _, round := range r.rounds {
		for i, l := range r.losses {
			if round.how == kill && l.node == round.old && l.at.After(round.begin) && l.at.Before(round.first200) {
				r.losses[i].at = round.gone
			}
		}
	}
}

// finish makes the rows, and writes the failures to a file if there is a name for it.
func (r *result) finish(name string) error {
	r.machine.end()
	r.correct()
	var failures []map[string]any
	for _, f := range r.fronts {
		row := row{front: f}
		for _, o := range f.tally.failures {
			round := r.roundOf(&o)
			in := r.inFlight(f, &o)
			switch {
			case in:
				row.inFlight++
			case round != nil && round.how == kill:
				row.beyondKill++
			default:
				row.beyondStepDown++
			}
			failures = append(failures, r.describe(f, round, &o, in))
		}
		for _, round := range r.rounds {
			if at := round.sights[f].firstRight(round.new); at.IsZero() {
				row.never++
			} else {
				row.rights = append(row.rights, at.Sub(round.first200))
			}
			if round.how == kill {
				row.dead = append(row.dead, max(0, round.sights[f].lastNamed(round.old).Sub(round.begin)))
			}
		}
		r.rows = append(r.rows, row)
	}
	if name == "" {
		return nil
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, f := range failures {
		if err := json.NewEncoder(file).Encode(f); err != nil {
			return err
		}
	}
	return file.Close()
}

// describe tells all of a failure; times are milliseconds from the begin of the failover.
func (r *result) describe(f *front, round *round, o *failure, in bool) map[string]any {
	d := map[string]any{"front": f.name, "write": o.write, "node": o.node, "text": o.text, "in_flight": in}
	if round == nil {
		return d
	}
	since := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return float64(t.Sub(round.begin).Microseconds()) / 1000
	}
	d["round"], d["how"], d["old"], d["new"] = slices.Index(r.rounds, round)+1, round.how, round.old, round.new
	d["start"], d["sent"], d["end"] = since(o.start), since(o.sent), since(o.end)
	d["gone"], d["first200"], d["right"] = since(round.gone), since(round.first200), since(round.sights[f].firstRight(round.new))
	d["last_old"] = since(round.sights[f].lastNamed(round.old))
	return d
}

var columns = []string{
	"front", "operations", "failed", "in flight", "beyond, step-down", "beyond, kill -9", "slowest",
	"first right, median", "first right, worst", "dead node still used, median", "worst",
}

// cells returns the table.
func (r *result) cells() [][]string {
	var lines [][]string
	for _, row := range r.rows {
		t := &row.front.tally
		worst := ms(largest(row.rights))
		if row.never > 0 {
			worst = fmt.Sprintf("%d times not within %s", row.never, limit)
		}
		lines = append(lines, []string{
			row.front.name, fmt.Sprint(t.count), fmt.Sprint(len(t.failures)), fmt.Sprint(row.inFlight),
			fmt.Sprint(row.beyondStepDown), fmt.Sprint(row.beyondKill), ms(t.slowest),
			ms(median(row.rights)), worst, ms(median(row.dead)), ms(largest(row.dead)),
		})
	}
	return lines
}

// write shows the table, and puts it into the file of the Markdown if there is one.
func (r *result) write(w io.Writer, o options) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range append([][]string{columns}, r.cells()...) {
		fmt.Fprintln(tab, strings.Join(line, "\t"))
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, line := range append(r.outages(), r.reasons()...) {
		fmt.Fprintln(w, line)
	}
	if o.out == "" {
		return nil
	}
	return r.writeMarkdown(o)
}

// outages tells how long the cluster itself was without an active node.
func (r *result) outages() []string {
	var lines []string
	for _, how := range ways {
		var out, gone []time.Duration
		for _, round := range r.rounds {
			if round.how == how {
				out = append(out, round.first200.Sub(round.begin))
				gone = append(gone, round.gone.Sub(round.begin))
			}
		}
		if len(out) > 0 {
			lines = append(lines, fmt.Sprintf("%s, %d times: until the old node was gone %s (worst %s), until the next was active %s (worst %s)",
				how, len(out), ms(median(gone)), ms(largest(gone)), ms(median(out)), ms(largest(out))))
		}
	}
	if n := r.unplanned(); n > 0 {
		lines = append(lines, fmt.Sprintf("besides, the active node lost its role by itself, or did not answer for a second, %d times: the machine was busy", n))
	}
	if len(r.left) > 0 {
		lines = append(lines, "left out, since not installed: "+strings.Join(r.left, ", "))
	}
	return lines
}

// reasons tells the commonest failures beyond those in flight, for who wants to know why.
func (r *result) reasons() []string {
	var lines []string
	for _, f := range r.fronts {
		counts := map[string]int{}
		for _, o := range f.tally.failures {
			if !r.inFlight(f, &o) {
				how := "before"
				if round := r.roundOf(&o); round != nil {
					how = round.how
				}
				text, _, _ := strings.Cut(o.text, "\n")
				counts[how+": "+text]++
			}
		}
		var texts []string
		for text := range counts {
			texts = append(texts, text)
		}
		slices.SortFunc(texts, func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
		for _, text := range texts[:min(4, len(texts))] {
			lines = append(lines, fmt.Sprintf("  %s: %d x %s", f.name, counts[text], text))
		}
	}
	return lines
}

func ms(d time.Duration) string {
	switch abs := d.Abs(); {
	case abs >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case abs >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	default:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
}

func median(of []time.Duration) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func largest(of []time.Duration) time.Duration {
	if len(of) == 0 {
		return 0
	}
	return slices.Max(of)
}

func newResult(ctx context.Context, o options) *result { return &result{machine: newMachine(ctx, o)} }
