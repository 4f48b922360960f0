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
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

// report is what several runs, one after another, have in common: the same fronts in the same order.
type report struct {
	machine *page.Machine
	runs    []*summary
}

// table is one of the report.
type table struct {
	columns []string
	lines   [][]string
}

// fronts are those of the first run, which have the names of all.
func (r *report) fronts() []*frontSummary { return r.runs[0].Fronts }

// rows returns the row of a front and a kind of client in each run that has one.
func (r *report) rows(front string, user *clientKind) (rows []*row) {
	for _, run := range r.runs {
		for _, row := range run.Rows {
			if row.Front == front && row.Client == user.key {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// outages are those of all runs, by the kind of failover.
func (r *report) outages() map[string][]outage {
	all := map[string][]outage{}
	for _, run := range r.runs {
		for how, of := range run.Outages {
			all[how] = append(all[how], of...)
		}
	}
	return all
}

// users are the kinds of clients that have run.
func (r *report) users() []*clientKind {
	return slices.DeleteFunc(slices.Clone(clientKinds), func(k *clientKind) bool { return len(r.rows(r.fronts()[0].Name, k)) == 0 })
}

// failures is the table of all failures.
func (r *report) failures() table {
	t := table{columns: []string{"front"}}
	for _, user := range r.users() {
		t.columns = append(t.columns, title(user))
	}
	t.columns = append(t.columns, "what it is")
	for _, f := range r.fronts() {
		line := []string{f.Name}
		for _, user := range r.users() {
			rows := r.rows(f.Name, user)
			line = append(line, r.ofEach(func(how string) string { return spread(rows, func(r *row) int { return r.Failed[how] }) }))
		}
		t.lines = append(t.lines, append(line, f.Note))
	}
	return t
}

// title is the column of a kind of client.
func title(user *clientKind) string {
	if user.key == "vault" {
		return "Vault's own client"
	}
	return "clients " + user.name
}

// details is the table of what else there is to say of the operations.
func (r *report) details() table {
	t := table{columns: []string{"front", "client", "in flight", "reads", "carried out twice", "slowest"}}
	for _, f := range r.fronts() {
		for _, user := range r.users() {
			rows := r.rows(f.Name, user)
			t.lines = append(t.lines, []string{
				f.Name, user.name,
				r.ofEach(func(how string) string { return spread(rows, func(r *row) int { return r.InFlight[how] }) }),
				r.ofEach(func(how string) string { return spread(rows, func(r *row) int { return r.Reads[how] }) }),
				r.ofEach(func(how string) string { return twice(rows, how) }),
				r.ofEach(func(how string) string { return slowest(rows, how) }),
			})
		}
	}
	return t
}

// twice tells how many writes were carried out twice by the front, and how many because the client sent them again.
func twice(rows []*row, how string) string {
	text := spread(rows, func(r *row) int { return r.Repeated[how] })
	if resent := spread(rows, func(r *row) int { return r.Resent[how] }); resent != "0" {
		text += " + " + resent
	}
	return text
}

func slowest(rows []*row, how string) string {
	most := time.Duration(0)
	for _, row := range rows {
		most = max(most, row.Slowest[how])
	}
	return ms(most)
}

// ofEach tells something of each kind of failover, in the order of ways.
func (r *report) ofEach(of func(how string) string) string {
	var parts []string
	for _, how := range ways {
		if len(r.outages()[how]) > 0 {
			parts = append(parts, of(how))
		} else {
			parts = append(parts, "–")
		}
	}
	return strings.Join(parts, " · ")
}

// spread tells the least and the most of a number in several runs.
func spread(rows []*row, of func(*row) int) string {
	if len(rows) == 0 {
		return "–"
	}
	least, most := of(rows[0]), of(rows[0])
	for _, row := range rows[1:] {
		least, most = min(least, of(row)), max(most, of(row))
	}
	if least == most {
		return fmt.Sprint(most)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// following is the table of how the fronts follow.
func (r *report) following() table {
	t := table{columns: []string{"front", "new active to first right answer", "stopped node still named", "killed node still named", "operations"}}
	for i, f := range r.fronts() {
		var all frontSummary
		count := 0
		for _, run := range r.runs {
			of := run.Fronts[i]
			all.Rights, all.Never = append(all.Rights, of.Rights...), all.Never+of.Never
			all.Stopped, all.Killed = append(all.Stopped, of.Stopped...), append(all.Killed, of.Killed...)
			for _, row := range run.Rows {
				if row.Front == f.Name {
					count += row.Count
				}
			}
		}
		right := usual(all.Rights)
		if all.Never > 0 {
			right += fmt.Sprintf("; %s not within %s", words.Plural(all.Never, "time"), limit)
		}
		t.lines = append(t.lines, []string{f.Name, right, usual(all.Stopped), usual(all.Killed), fmt.Sprint(count)})
	}
	return t
}

// usual tells the median and, in brackets, the 99th percentile.
func usual(of []time.Duration) string {
	if len(of) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s)", ms(median(of)), ms(percentile(of, 99)))
}

// write writes the tables to a terminal and, if that is wanted, to a file.
func (r *report) write(w io.Writer, o options) error {
	for _, t := range []table{r.failures(), r.details(), r.following()} {
		tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, line := range append([][]string{t.columns}, t.lines...) {
			fmt.Fprintln(tab, strings.Join(line, "\t"))
		}
		fmt.Fprintln(tab)
		if err := tab.Flush(); err != nil {
			return err
		}
	}
	for _, line := range append(r.remarks(), r.reasons()...) {
		fmt.Fprintln(w, line)
	}
	if o.out == "" {
		return nil
	}
	return page.Replace(o.out, o.name(), r.markdown(o))
}

// remarks tells how long the cluster itself was without an active node, and what else the reader must know of the runs.
func (r *report) remarks() []string {
	var lines []string
	for _, how := range ways {
		var gone, next []time.Duration
		for _, o := range r.outages()[how] {
			gone, next = append(gone, o.Gone), append(next, o.Next)
		}
		if len(next) > 0 {
			lines = append(lines, fmt.Sprintf("%s, %s: until the old node was gone %s (worst %s), until the next was active %s (worst %s)",
				how, words.Plural(len(next), "time"), ms(median(gone)), ms(percentile(gone, 100)), ms(median(next)), ms(percentile(next, 100))))
		}
	}
	unplanned := 0
	for _, run := range r.runs {
		unplanned += run.Unplanned
		for _, row := range run.Rows {
			if n := row.Failed[beforeAll]; n > 0 {
				lines = append(lines, fmt.Sprintf("%s, client %s: %s failed before the first failover", row.Front, row.Client, words.Plural(n, "operation")))
			}
			if row.Vanished > 0 {
				lines = append(lines, fmt.Sprintf("%s, client %s: of the writes that were acknowledged, %d are not there", row.Front, row.Client, row.Vanished))
			}
		}
	}
	if unplanned > 0 {
		lines = append(lines, fmt.Sprintf("besides, the active node lost its role by itself, or did not answer for a second, %s: the machine was busy",
			words.Plural(unplanned, "time")))
	}
	if left := r.runs[0].Left; len(left) > 0 {
		lines = append(lines, "left out, since not installed: "+strings.Join(left, ", "))
	}
	return lines
}

// reasons tells the commonest failures of each front.
func (r *report) reasons() []string {
	var lines []string
	for _, f := range r.fronts() {
		for _, user := range r.users() {
			counts := map[string]int{}
			for _, row := range r.rows(f.Name, user) {
				for text, n := range row.Texts {
					counts[text] += n
				}
			}
			texts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
			for _, text := range texts[:min(6, len(texts))] {
				lines = append(lines, fmt.Sprintf("  %s, %s: %d x %s", f.Name, user.name, counts[text], text))
			}
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

// percentile is the least that so many per cent do not exceed: of fewer than a hundred, 99 is the worst.
func percentile(of []time.Duration, percent int) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[(len(sorted)*percent+99)/100-1]
}
