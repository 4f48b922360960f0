// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how status and history are put into words for a terminal.

package vaultredirect

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

// printStatus prints the status for people.
func printStatus(to io.Writer, d statusDocument, now time.Time) error {
	return printTable(to, func(w io.Writer) {
		for i, c := range d.Clusters {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintln(w, oneLine(c.Cluster+": "+sayActive(c, now)))
			fmt.Fprintln(w, oneLine("discovery: "+sayDiscovery(c, now)))
			printRow(w, "  NODE", "STATE", "SINCE", "PROBE", "WHY NOT")
			for _, n := range c.Nodes {
				printRow(w, "  "+n.Node, string(n.State), sayAge(n.Since, now), sayProbe(n.Probe), sayWhy(n))
			}
			fmt.Fprintln(w, sayDay(c, now))
		}
	})
}

// printTable prints what has columns, without the space at the end of lines.
func printTable(to io.Writer, print func(w io.Writer)) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	print(w)
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(to, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func printRow(w io.Writer, cells ...string) {
	for i := range cells {
		cells[i] = oneLine(cells[i])
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// oneLine makes text fit for a line of a terminal: names come from Consul, and may have anything in them.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func sayActive(c clusterStatus, now time.Time) string {
	if c.Active == nil {
		return fmt.Sprintf("NO ACTIVE NODE for %s: %s", sayAge(c.Since, now), redirect.Explain(c.Reason))
	}
	text := fmt.Sprintf("redirecting to %s (%s), active for %s, %s", c.Active.URL, c.Active.Node, sayAge(&c.Active.Since, now), plural(int(c.Active.Changes), "change"))
	if c.Silent {
		text += "; it leaves a probe unanswered: requests wait"
	}
	if c.StaleUntil != nil {
		text += fmt.Sprintf("; the last known node, used for another %s", brief(c.StaleUntil.Sub(now)))
	}
	return text
}

func sayDiscovery(c clusterStatus, now time.Time) string {
	d := c.Discovery
	text := d.Source + " " + d.Endpoint
	switch {
	case d.FailingSince != nil:
		return text + fmt.Sprintf(", failing for %s (%s)", sayAge(d.FailingSince, now), c.Reason)
	case d.LastSuccess == nil:
		return text + ", has not answered yet"
	}
	return text + fmt.Sprintf(", answered %s ago", sayAge(d.LastSuccess, now))
}

func sayProbe(p *probeStatus) string {
	switch {
	case p == nil:
		return "-"
	case p.Code != 0:
		return fmt.Sprintf("%d in %s", p.Code, brief(time.Duration(p.Seconds*float64(time.Second))))
	}
	return string(p.Result)
}

func sayWhy(n nodeStatus) string {
	text := n.Why
	if len(n.FailingChecks) > 0 && !strings.Contains(text, "critical") {
		text = strings.TrimPrefix(text+"; not passing: "+strings.Join(n.FailingChecks, ", "), "; ")
	}
	return text
}

// sayDay sums up the last day.
func sayDay(c clusterStatus, now time.Time) string {
	spans, begin, what := spansOf(&c, now), now.Add(-24*time.Hour), "last 24h"
	if len(c.History) >= engine.HistoryLength && spans[0].from.After(begin) {
		what = "since " + clock(spans[0].from) + " (what was before is forgotten)"
	}
	failovers, without := sum(spans, begin)
	return fmt.Sprintf("%s: %s, %s without an active node; since the start: %s waited, %d turned away",
		what, plural(failovers, "failover"), brief(without), plural(int(c.Hold["released"]), "request"), c.Requests["unavailable"])
}

// printHistory prints the history for people.
func printHistory(to io.Writer, list []historyEntry) error {
	return printTable(to, func(w io.Writer) {
		printRow(w, "TIME", "CLUSTER", "EVENT", "FROM", "TO", "GAP", "REASON")
		for _, h := range list {
			gap := "-"
			if h.GapSeconds > 0 {
				gap = brief(time.Duration(h.GapSeconds * float64(time.Second)))
			}
			printRow(w, h.At.Local().Format("2006-01-02 15:04:05.000"), h.Cluster, h.Event,
				orDash(h.PreviousNode), orDash(h.Node), gap, string(h.Reason))
		}
	})
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sayAge(since *time.Time, now time.Time) string {
	if since == nil {
		return "-"
	}
	return brief(now.Sub(*since))
}

// brief writes a duration in its two greatest units.
func brief(d time.Duration) string {
	switch d = max(0, d); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
