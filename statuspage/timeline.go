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
	Axis    int    // bottom of the lanes, and top of the ticks' texts
	Lanes   []lane // the nodes that were active in it, by name
	Ticks   []tick
	Keys    []bar // the legend
	Summary string

	begin time.Time
	shown map[string]bool // the classes of bars
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
	first, last := spans[0], spans[len(spans)-1]
	i, _ := slices.BinarySearch(windows, now.Sub(first.From))
	t := &timeline{Window: windows[min(i, len(windows)-1)], shown: map[string]bool{}}
	t.begin = now.Add(-t.Window)
	var shared []bar // in each lane
	if first.From.After(t.begin) {
		shared = append(shared, t.bar(status.Span{From: t.begin, To: first.From}, "unknown", unknownBefore(c, first.From)))
	}
	for _, s := range spans {
		when := fmt.Sprintf("from %s for %s", status.Clock(s.From), words.Brief(s.To.Sub(s.From)))
		switch {
		case !s.To.After(t.begin):
		case s.Gap():
			shared = append(shared, t.bar(s, "gap", "no active node "+when))
		default:
			l := t.lane(s.Node, s.URL)
			l.Bars = append(l.Bars, t.bar(s, "active", s.Node+" active "+when))
		}
	}
	if c.StaleSince != nil && !last.Gap() {
		l := t.lane(last.Node, last.URL)
		l.Bars = append(l.Bars, t.bar(last.After(*c.StaleSince), "stale", "the last known node: discovery has failed since "+status.Clock(*c.StaleSince)))
	}
	t.arrange(shared)
	t.Keys = slices.DeleteFunc(slices.Clone(legend), func(k bar) bool { return !t.shown[k.Class] })
	failovers, without := status.Failovers(spans, t.begin)
	t.Summary = fmt.Sprintf("last %s: %s, %s without an active node", hours(t.Window), words.Plural(failovers, "failover"), words.Brief(without))
	return t
}

// legend has the classes of bars.
var legend = []bar{
	{Class: "active", Title: "active"}, {Class: "gap", Title: "no active node"}, {Class: "stale", Title: "last known node"}, {Class: "unknown", Title: "not watched"},
}

// unknownBefore says why the active node before a time is not known.
func unknownBefore(c *status.Cluster, first time.Time) string {
	if len(c.History) >= engine.HistoryLength {
		return "older than what is remembered: before " + status.Clock(first)
	}
	return "not watched before " + status.Clock(first)
}

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
	t.Axis = len(t.Lanes) * lanePitch
	t.Height = t.Axis + axis
	for i, anchor := range []string{"start", "middle", "middle", "middle", "end"} {
		text := "now"
		if ago := t.Window * time.Duration(4-i) / 4; ago > 0 {
			text = "−" + hours(ago)
		}
		t.Ticks = append(t.Ticks, tick{percent(25 * i), anchor, text})
	}
}

// bar returns the bar of the part of a span that is in the window.
func (t *timeline) bar(s status.Span, class, title string) bar {
	t.shown[class] = true
	across := func(at time.Time) percent {
		return percent(100 * float64(min(max(0, at.Sub(t.begin)), t.Window)) / float64(t.Window))
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
