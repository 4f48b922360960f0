// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
)

// report is what several runs, one after another, have in common: the same fronts in the same order.
type report struct {
	machine *page.Machine
	runs    []*result
}

// rows returns the row of a front in each run.
func (r *report) rows(front int) []row {
	rows := make([]row, len(r.runs))
	for i, run := range r.runs {
		rows[i] = run.rows[front]
	}
	return rows
}

// fronts is how many there are.
func (r *report) fronts() int {
	if len(r.runs) == 0 {
		return 0
	}
	return len(r.runs[0].rows)
}

// rounds returns the failovers of all runs.
func (r *report) rounds() (rounds []*round) {
	for _, run := range r.runs {
		rounds = append(rounds, run.rounds...)
	}
	return rounds
}

// columns of the table of failures.
var columns = []string{"front", "step-down", "kill -9", "stop", "new active to first right answer, median (worst)", "note"}

func (r *report) cells() [][]string {
	var lines [][]string
	for i := range r.fronts() {
		rows := r.rows(i)
		line := []string{rows[0].front.name}
		for _, how := range ways {
			line = append(line, r.fate(rows, how))
		}
		var rights []time.Duration
		never := 0
		for _, row := range rows {
			rights, never = append(rights, row.rights...), never+row.never
		}
		right := fmt.Sprintf("%s (%s)", ms(median(rights)), ms(largest(rights)))
		if never > 0 {
			right += fmt.Sprintf("; %d times not within %s", never, limit)
		}
		lines = append(lines, append(line, right, rows[0].front.note))
	}
	return lines
}

// fate tells what failed in one kind of failovers: the spread over the runs.
func (r *report) fate(rows []row, how string) string {
	if !slices.ContainsFunc(r.rounds(), func(round *round) bool { return round.how == how }) {
		return "not run"
	}
	text := spread(rows, func(row row) int { return row.beyond[how] }) + " + " + spread(rows, func(row row) int { return row.inFlight[how] })
	if how == stop {
		text += "; late: " + spread(rows, func(row row) int { return row.late })
	}
	return text
}

// spread tells the least and the most of a number in several runs.
func spread(rows []row, of func(row) int) string {
	least, most := of(rows[0]), of(rows[0])
	for _, row := range rows[1:] {
		least, most = min(least, of(row)), max(most, of(row))
	}
	if least == most {
		return fmt.Sprint(most)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// loadColumns of the table of the load.
var loadColumns = []string{"front", "operations", "failed", "slowest", "dead node still named, median", "worst"}

func (r *report) loadCells() [][]string {
	var lines [][]string
	for i := range r.fronts() {
		var (
			count   int
			slowest time.Duration
			dead    []time.Duration
			rows    = r.rows(i)
		)
		for _, row := range rows {
			count, slowest, dead = count+row.front.tally.count, max(slowest, row.front.tally.slowest), append(dead, row.dead...)
		}
		lines = append(lines, []string{
			rows[0].front.name, fmt.Sprint(count), spread(rows, row.lost), ms(slowest), ms(median(dead)), ms(largest(dead)),
		})
	}
	return lines
}

// write writes the tables to a terminal and, if that is wanted, to a file.
func (r *report) write(w io.Writer, o options) error {
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
	return page.Replace(o.out, o.name(), r.markdown(o))
}

// outages tells how long the cluster itself was without an active node.
func (r *report) outages() []string {
	var lines []string
	for _, how := range ways {
		var out, gone []time.Duration
		for _, round := range r.rounds() {
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
	unplanned := 0
	for _, run := range r.runs {
		unplanned += run.unplanned()
	}
	if unplanned > 0 {
		lines = append(lines, fmt.Sprintf("besides, the active node lost its role by itself, or did not answer for a second, %d times: the machine was busy", unplanned))
	}
	if len(r.runs) > 0 && len(r.runs[0].left) > 0 {
		lines = append(lines, "left out, since not installed: "+strings.Join(r.runs[0].left, ", "))
	}
	return lines
}

// reasons tells the commonest failures of each front beyond those in flight.
func (r *report) reasons() []string {
	var lines []string
	for i := range r.fronts() {
		counts := map[string]int{}
		for _, run := range r.runs {
			for _, o := range run.rows[i].front.tally.failures {
				if run.inFlight(run.rows[i].front, &o) {
					continue
				}
				how := "before"
				if round := run.roundOf(&o); round != nil {
					how = round.how
				}
				text, _, _ := strings.Cut(o.text, "\n")
				counts[how+": "+text]++
			}
		}
		texts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
		for _, text := range texts[:min(4, len(texts))] {
			lines = append(lines, fmt.Sprintf("  %s: %d x %s", r.runs[0].rows[i].front.name, counts[text], text))
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
