// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package status

import (
	"slices"
	"time"
)

// Span is a period in which one node was active, or none was.
type Span struct {
	From, To  time.Time
	Node, URL string // both empty: none was active
}

// Gap reports whether no node was active.
func (s *Span) Gap() bool { return s.URL == "" }

// After returns the part of the span after a time.
func (s *Span) After(begin time.Time) Span {
	after := *s
	if begin.After(s.From) {
		after.From = begin
	}
	return after
}

// Spans returns the spans of a cluster without gaps between them, the oldest first. Before the first one, the active node is not
// known.
func (c *Cluster) Spans(now time.Time) (spans []Span) {
	turn := func(at time.Time, gap time.Duration, node, url string) {
		last := len(spans) - 1
		switch begin := at.Add(-gap); {
		case url == "": // the gap is what follows
		case last >= 0 && spans[last].Gap():
		case gap > 0:
			if last >= 0 {
				spans[last].To = begin
			}
			spans = append(spans, Span{From: begin})
		}
		if n := len(spans); n > 0 {
			spans[n-1].To = at
		}
		spans = append(spans, Span{From: at, Node: node, URL: url})
	}
	for _, h := range slices.Backward(c.History) {
		turn(h.At, time.Duration(h.GapSeconds*float64(time.Second)), h.Node, h.URL)
	}
	url, node := "", ""
	if c.Active != nil {
		url, node = c.Active.URL, c.Active.Node
	}
	// The present state may not be in the history: the expiry of a stale node is no event.
	last := len(spans) - 1
	switch {
	case c.Since == nil:
	case last < 0:
		spans = append(spans, Span{From: *c.Since, Node: node, URL: url})
	case spans[last].URL != url && c.Since.After(spans[last].From):
		turn(*c.Since, 0, node, url)
	}
	if last = len(spans) - 1; last >= 0 {
		spans[last].To = now
	}
	return spans
}

// Failovers returns how many failovers there were since a time, and for how long no node was active.
func Failovers(spans []Span, begin time.Time) (failovers int, without time.Duration) {
	for i, s := range spans {
		switch {
		case !s.To.After(begin):
		case s.Gap():
			s = s.After(begin)
			without += s.To.Sub(s.From)
		case i > 0 && s.From.After(begin) && slices.ContainsFunc(spans[:i], func(s Span) bool { return !s.Gap() }):
			failovers++
		}
	}
	return failovers, without
}

// Clock formats a time in UTC.
func Clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
