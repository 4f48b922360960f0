// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package status

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

// statusText is what the command status prints of a document.
func statusText(d Document, now time.Time) []byte {
	return table(func(w io.Writer) {
		for i := range d.Clusters {
			c := &d.Clusters[i]
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintln(w, oneLine(c.Cluster+": "+c.activeText(now)))
			fmt.Fprintln(w, oneLine("discovery: "+c.DiscoveryText(now)))
			printRow(w, "  NODE", "STATE", "SINCE", "PROBE", "WHY NOT")
			for _, n := range c.Nodes {
				printRow(w, "  "+n.Node, string(n.State), Age(n.Since, now), n.Probe.Text(), n.WhyText())
			}
			fmt.Fprintln(w, c.dayText(now))
		}
	})
}

var spacesAtEnd = regexp.MustCompile(`(?m) +$`)

// table returns what is printed in columns, without spaces at the end of lines.
func table(print func(w io.Writer)) []byte {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	print(w)
	_ = w.Flush() // memory takes all
	return spacesAtEnd.ReplaceAll(text.Bytes(), nil)
}

func printRow(w io.Writer, cells ...string) {
	for i := range cells {
		cells[i] = oneLine(cells[i])
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// oneLine cleans text for a line of a terminal: names come from Consul, and may contain control characters.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// activeText says which node is active, or why none is.
func (c *Cluster) activeText(now time.Time) string {
	if c.Active == nil {
		return fmt.Sprintf("NO ACTIVE NODE for %s: %s", Age(c.Since, now), redirect.Explain(c.Reason))
	}
	text := fmt.Sprintf("redirecting to %s (%s), active for %s, %s", c.Active.URL, c.Active.Node, Age(&c.Active.Since, now), words.Plural(c.Active.Changes, "change"))
	if c.Silent {
		text += "; it has not answered a probe yet: requests wait"
	}
	if c.StaleUntil != nil {
		text += fmt.Sprintf("; the last known node, used for another %s", words.Brief(c.StaleUntil.Sub(now)))
	}
	return text
}

// DiscoveryText describes the discovery, and says whether it answers.
func (c *Cluster) DiscoveryText(now time.Time) string {
	d := c.Discovery
	text := d.Source + " " + d.Endpoint
	switch {
	case d.FailingSince != nil:
		return text + fmt.Sprintf(", failing for %s (%s)", Age(d.FailingSince, now), c.Reason)
	case d.LastSuccess == nil:
		return text + ", has not answered yet"
	}
	return text + fmt.Sprintf(", answered %s ago", Age(d.LastSuccess, now))
}

// Text says how the probe was answered.
func (p *Probe) Text() string {
	switch {
	case p == nil:
		return "-"
	case p.Code != 0:
		return fmt.Sprintf("%d in %s", p.Code, words.Seconds(p.Seconds))
	}
	return string(p.Result)
}

// WhyText says why the node is not elected, and whether it gets reads.
func (n *Node) WhyText() string {
	text := n.Why
	if len(n.FailingChecks) > 0 && !strings.Contains(text, "critical") {
		text = strings.TrimPrefix(text+"; not passing: "+strings.Join(n.FailingChecks, ", "), "; ")
	}
	switch {
	case n.Reads:
		text += "; reads are redirected to it"
	case n.WhyNoReads != "" && n.WhyNoReads != n.Why:
		text += "; no reads: " + n.WhyNoReads
	}
	return text
}

// dayText sums up the last day.
func (c *Cluster) dayText(now time.Time) string {
	spans, begin, what := c.Spans(now), now.Add(-24*time.Hour), "last 24h"
	if len(c.History) >= engine.HistoryLength && spans[0].From.After(begin) {
		what = "since " + Clock(spans[0].From) + " (older changes are not kept)"
	}
	failovers, without := Failovers(spans, begin)
	return fmt.Sprintf("%s: %s, %s without an active node; since the start: %s waited, %d rejected",
		what, words.Plural(failovers, "failover"), words.Brief(without), words.Plural(c.Hold["released"], "request"), c.Requests["unavailable"])
}

// historyText is what the command history prints.
func historyText(list []Change) []byte {
	return table(func(w io.Writer) {
		printRow(w, "TIME", "CLUSTER", "EVENT", "FROM", "TO", "GAP", "REASON")
		for _, h := range list {
			gap := "-"
			if h.GapSeconds > 0 {
				gap = words.Seconds(h.GapSeconds)
			}
			printRow(w, h.At.Local().Format("2006-01-02 15:04:05.000"), h.Cluster, h.Event,
				cmp.Or(h.PreviousNode, "-"), cmp.Or(h.Node, "-"), gap, string(h.Reason))
		}
	})
}

// Age formats the time since a time.
func Age(since *time.Time, now time.Time) string {
	if since == nil {
		return "-"
	}
	return words.Brief(now.Sub(*since))
}
