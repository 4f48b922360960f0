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
	for _, h := range slices.Backward(c.History) {
		last := len(spans) - 1
		if h.URL != "" && h.GapSeconds > 0 && (last < 0 || !spans[last].Gap()) { // a gap that no loss announced
			spans = append(spans, Span{From: h.At.Add(-time.Duration(h.GapSeconds * float64(time.Second)))})
		}
		spans = append(spans, Span{From: h.At, Node: h.Node, URL: h.URL})
	}
	// The present state may not be in the history: the expiry of a stale node is no event.
	if c.Since != nil {
		present := Span{From: *c.Since}
		if c.Active != nil {
			present.Node, present.URL = c.Active.Node, c.Active.URL
		}
		if last := len(spans) - 1; last < 0 || spans[last].URL != present.URL && present.From.After(spans[last].From) {
			spans = append(spans, present)
		}
	}
	for i := range spans {
		spans[i].To = now
		if i > 0 {
			spans[i-1].To = spans[i].From
		}
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
