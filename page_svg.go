// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the geometry of the timeline: which node was active when, and when none was.

package vaultredirect

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// timeline is one picture. Lengths across are in percent of its width, heights in pixels.
type timeline struct {
	Window  time.Duration // how much time it shows: a day, or less if less is known
	Height  int
	Lanes   []lane // by name: the nodes that were active in it
	Ticks   []tick
	Keys    []bar // what the colours mean that are in it
	Summary string
}

// lane is the line of one node.
type lane struct {
	Name  string
	URL   string
	Label int // baseline of the name
	Y     int // of the bars
	Bars  []bar
}

// bar is a rectangle.
type bar struct {
	X, Width percent
	Class    string // active, gap, stale or unknown
	Title    string
}

type tick struct {
	X      percent
	Anchor string
	Text   string
}

// percent is a length as SVG has it. Its last digit stands for a millisecond of a day.
type percent float64

func (p percent) String() string { return strconv.FormatFloat(float64(p), 'f', 6, 64) + "%" }

// Sizes in pixels.
const (
	lanePitch = 36 // of one lane to the next
	laneLabel = 12 // baseline of a lane's name
	laneBars  = 18 // top of its bars; their height is in the template
	axis      = 20 // of the ticks' texts
)

// windows are how much time a timeline may show. The smallest one that has all that is known is taken: before that there
// is nothing to be seen.
var windows = []time.Duration{20 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour}

// span is a time in which one node was active, or none was.
type span struct {
	from, to  time.Time
	node, url string // both empty: none was active
}

func (s *span) gap() bool { return s.url == "" }

// spansOf returns the spans that a cluster went through, the oldest first and without anything between them. Before the
// first one it is not known who was active.
func spansOf(c *clusterStatus, now time.Time) (spans []span) {
	turn := func(at time.Time, gap time.Duration, node, url string) {
		last := len(spans) - 1
		switch begin := at.Add(-gap); {
		case url == "": // the gap is what follows
		case last >= 0 && spans[last].gap():
		case gap > 0:
			if last >= 0 {
				spans[last].to = begin
			}
			spans = append(spans, span{from: begin})
		}
		if n := len(spans); n > 0 {
			spans[n-1].to = at
		}
		spans = append(spans, span{from: at, node: node, url: url})
	}
	for _, h := range slices.Backward(c.History) {
		turn(h.At, time.Duration(h.GapSeconds*float64(time.Second)), h.Node, h.URL)
	}
	url, node := "", ""
	if c.Active != nil {
		url, node = c.Active.URL, c.Active.Node
	}
	// What is now may be newer than the history, or be told by nothing in it: a stale node's end has no event.
	last := len(spans) - 1
	switch {
	case c.Since == nil:
	case last < 0:
		spans = append(spans, span{from: *c.Since, node: node, url: url})
	case spans[last].url != url && c.Since.After(spans[last].from):
		turn(*c.Since, 0, node, url)
	}
	if last = len(spans) - 1; last >= 0 {
		spans[last].to = now
	}
	return spans
}

// timelineOf draws the timeline of a cluster.
func timelineOf(c *clusterStatus, now time.Time) *timeline {
	spans := spansOf(c, now)
	if len(spans) == 0 {
		return nil
	}
	t := &timeline{Window: windows[len(windows)-1]}
	for _, w := range windows {
		if now.Sub(spans[0].from) <= w {
			t.Window = w
			break
		}
	}
	begin := now.Add(-t.Window)
	var shared []bar // in each lane
	if spans[0].from.After(begin) {
		shared = append(shared, t.bar(span{from: begin, to: spans[0].from}, now, "unknown", unknownBefore(c, spans[0].from)))
	}
	for _, s := range spans {
		if !s.to.After(begin) {
			continue
		}
		if s.gap() {
			shared = append(shared, t.bar(s, now, "gap", fmt.Sprintf("no active node from %s for %s", clock(s.from), brief(s.to.Sub(s.from)))))
			continue
		}
		l := t.lane(s.node, s.url)
		l.Bars = append(l.Bars, t.bar(s, now, "active", fmt.Sprintf("%s active from %s for %s", s.node, clock(s.from), brief(s.to.Sub(s.from)))))
	}
	if last := spans[len(spans)-1]; c.StaleSince != nil && !last.gap() {
		l := t.lane(last.node, last.url)
		l.Bars = append(l.Bars, t.bar(span{from: later(*c.StaleSince, last.from), to: now}, now, "stale", "the last known node: discovery cannot be asked since "+clock(*c.StaleSince)))
	}
	t.arrange(shared)
	t.explain()
	failovers, without := sum(spans, begin)
	t.Summary = fmt.Sprintf("last %s: %s, %s without an active node", hours(t.Window), plural(failovers, "failover"), brief(without))
	return t
}

// unknownBefore says why it is not known who was active before a moment.
func unknownBefore(c *clusterStatus, first time.Time) string {
	if len(c.History) >= engine.HistoryLength {
		return "older than what is remembered: before " + clock(first)
	}
	return "not watched before " + clock(first)
}

// sum counts the failovers, and for how long no node was active, from a moment on.
func sum(spans []span, begin time.Time) (failovers int, without time.Duration) {
	for i, s := range spans {
		switch {
		case !s.to.After(begin):
		case s.gap():
			without += s.to.Sub(later(s.from, begin))
		case i > 0 && s.from.After(begin) && formerly(spans[:i]):
			failovers++
		}
	}
	return failovers, without
}

// formerly reports whether a node was active in any of the spans.
func formerly(spans []span) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return !s.gap() })
}

// Axis is where the lanes end and the texts of the ticks begin.
func (t *timeline) Axis() int { return t.Height - axis }

// lane returns the lane of a node.
func (t *timeline) lane(name, url string) *lane {
	i := slices.IndexFunc(t.Lanes, func(l lane) bool { return l.URL == url })
	if i < 0 {
		i = len(t.Lanes)
		t.Lanes = append(t.Lanes, lane{Name: cmp.Or(name, url), URL: url})
	}
	return &t.Lanes[i]
}

// arrange puts the lanes one below the other, and into each what all have.
func (t *timeline) arrange(shared []bar) {
	if len(t.Lanes) == 0 {
		t.Lanes = []lane{{Name: "no active node"}}
	}
	slices.SortStableFunc(t.Lanes, func(a, b lane) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.URL, b.URL)) })
	for i := range t.Lanes {
		l := &t.Lanes[i]
		l.Label, l.Y = i*lanePitch+laneLabel, i*lanePitch+laneBars
		l.Bars = append(l.Bars, shared...)
	}
	t.Height = len(t.Lanes)*lanePitch + axis
	const parts = 4
	for i := range parts + 1 {
		k := tick{X: percent(100 * i / parts), Anchor: "middle", Text: "−" + hours(t.Window*time.Duration(parts-i)/parts)}
		switch i {
		case 0:
			k.Anchor = "start"
		case parts:
			k.Anchor, k.Text = "end", "now"
		}
		t.Ticks = append(t.Ticks, k)
	}
}

// explain explains the colours.
func (t *timeline) explain() {
	for _, k := range []bar{{Class: "active", Title: "active"}, {Class: "gap", Title: "no active node"}, {Class: "stale", Title: "last known node"}, {Class: "unknown", Title: "not watched"}} {
		if slices.ContainsFunc(t.Lanes, func(l lane) bool { return slices.ContainsFunc(l.Bars, func(b bar) bool { return b.Class == k.Class }) }) {
			t.Keys = append(t.Keys, k)
		}
	}
}

// bar draws a span as far as it is in the window.
func (t *timeline) bar(s span, now time.Time, class, title string) bar {
	begin := now.Add(-t.Window)
	across := func(at time.Time) percent {
		return percent(100 * float64(min(max(0, at.Sub(begin)), t.Window)) / float64(t.Window))
	}
	return bar{X: across(s.from), Width: across(s.to) - across(s.from), Class: class, Title: title}
}

// hours writes a duration of whole hours or minutes.
func hours(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d min", d/time.Minute)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// clock writes a time for people.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
