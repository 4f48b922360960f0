// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package statuspage

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

// timeline is one picture. Horizontal lengths are in percent of its width, vertical ones in pixels.
type timeline struct {
	Window  time.Duration // the time that it shows: a day, or less if less is known
	Height  int
	Lanes   []lane // the nodes that were active in it, by name
	Ticks   []tick
	Keys    []bar // the legend
	Summary string
}

// lane is the row of one node.
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

// percent is a length for SVG. Its last digit is about a millisecond of a day.
type percent float64

func (p percent) String() string { return strconv.FormatFloat(float64(p), 'f', 6, 64) + "%" }

// Sizes in pixels.
const (
	lanePitch = 36 // of one lane to the next
	laneLabel = 12 // baseline of a lane's name
	laneBars  = 18 // top of its bars; their height is in the template
	axis      = 20 // of the ticks' texts
)

// windows are the lengths of time that a timeline may show. It shows the shortest one that covers all that is known.
var windows = []time.Duration{20 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour}

func timelineOf(c *status.Cluster, now time.Time) *timeline {
	spans := c.Spans(now)
	if len(spans) == 0 {
		return nil
	}
	t := &timeline{Window: windows[len(windows)-1]}
	for _, w := range windows {
		if now.Sub(spans[0].From) <= w {
			t.Window = w
			break
		}
	}
	begin := now.Add(-t.Window)
	var shared []bar // in each lane
	if spans[0].From.After(begin) {
		shared = append(shared, t.bar(status.Span{From: begin, To: spans[0].From}, now, "unknown", unknownBefore(c, spans[0].From)))
	}
	for _, s := range spans {
		if !s.To.After(begin) {
			continue
		}
		if s.Gap() {
			shared = append(shared, t.bar(s, now, "gap", fmt.Sprintf("no active node from %s for %s", status.Clock(s.From), words.Brief(s.To.Sub(s.From)))))
			continue
		}
		l := t.lane(s.Node, s.URL)
		l.Bars = append(l.Bars, t.bar(s, now, "active", fmt.Sprintf("%s active from %s for %s", s.Node, status.Clock(s.From), words.Brief(s.To.Sub(s.From)))))
	}
	if last := spans[len(spans)-1]; c.StaleSince != nil && !last.Gap() {
		l := t.lane(last.Node, last.URL)
		l.Bars = append(l.Bars, t.bar(last.After(*c.StaleSince), now, "stale", "the last known node: discovery has failed since "+status.Clock(*c.StaleSince)))
	}
	t.arrange(shared)
	t.explain()
	failovers, without := status.Failovers(spans, begin)
	t.Summary = fmt.Sprintf("last %s: %s, %s without an active node", hours(t.Window), words.Plural(failovers, "failover"), words.Brief(without))
	return t
}

// unknownBefore says why the active node before a time is not known.
func unknownBefore(c *status.Cluster, first time.Time) string {
	if len(c.History) >= engine.HistoryLength {
		return "older than what is remembered: before " + status.Clock(first)
	}
	return "not watched before " + status.Clock(first)
}

// Axis returns the bottom of the lanes, which is the top of the texts of the ticks.
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

// arrange places the lanes one below the other, and adds the bars that all have.
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

// explain adds the legend.
func (t *timeline) explain() {
	for _, k := range []bar{{Class: "active", Title: "active"}, {Class: "gap", Title: "no active node"}, {Class: "stale", Title: "last known node"}, {Class: "unknown", Title: "not watched"}} {
		if slices.ContainsFunc(t.Lanes, func(l lane) bool { return slices.ContainsFunc(l.Bars, func(b bar) bool { return b.Class == k.Class }) }) {
			t.Keys = append(t.Keys, k)
		}
	}
}

// bar returns the bar of the part of a span that is in the window.
func (t *timeline) bar(s status.Span, now time.Time, class, title string) bar {
	begin := now.Add(-t.Window)
	across := func(at time.Time) percent {
		return percent(100 * float64(min(max(0, at.Sub(begin)), t.Window)) / float64(t.Window))
	}
	return bar{X: across(s.From), Width: across(s.To) - across(s.From), Class: class, Title: title}
}

// hours formats a duration of whole hours or minutes.
func hours(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d min", d/time.Minute)
}
