// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tables, and what is told beside them.

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// columns of the table on which fronts are compared: no more than a code host shows at once.
var columns = []string{"front", "step-down", "kill -9", "stop", "new active to first right answer, median (worst)", "note"}

// cells returns that table.
func (r *result) cells() [][]string {
	var lines [][]string
	for _, row := range r.rows {
		line := []string{row.front.name}
		for _, how := range ways {
			line = append(line, r.fate(row, how))
		}
		right := fmt.Sprintf("%s (%s)", ms(median(row.rights)), ms(largest(row.rights)))
		if row.never > 0 {
			right += fmt.Sprintf("; %d times not within %s", row.never, limit)
		}
		lines = append(lines, append(line, right, row.front.note))
	}
	return lines
}

// fate tells what a front lost in one kind of failover.
func (r *result) fate(row row, how string) string {
	if !slices.ContainsFunc(r.rounds, func(round *round) bool { return round.how == how }) {
		return "not run"
	}
	text := fmt.Sprintf("%d + %d", row.beyond[how], row.inFlight[how])
	if how == stop {
		text += fmt.Sprintf("; late: %d", row.late)
	}
	return text
}

// loadColumns are those of the table on the operations.
var loadColumns = []string{"front", "operations", "failed", "slowest", "dead node still named, median", "worst"}

// loadCells returns that table.
func (r *result) loadCells() [][]string {
	var lines [][]string
	for _, row := range r.rows {
		t := &row.front.tally
		lines = append(lines, []string{
			row.front.name, fmt.Sprint(t.count), fmt.Sprint(row.lost()), ms(t.slowest), ms(median(row.dead)), ms(largest(row.dead)),
		})
	}
	return lines
}

// write shows the tables, and puts them into the file of the Markdown if there is one.
func (r *result) write(w io.Writer, o options) error {
	for _, table := range [][][]string{append([][]string{columns}, r.cells()...), append([][]string{loadColumns}, r.loadCells()...)} {
		tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, line := range table {
			fmt.Fprintln(tab, strings.Join(line, "\t"))
		}
		fmt.Fprintln(tab)
		if err := tab.Flush(); err != nil {
			return err
		}
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
