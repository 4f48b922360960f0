// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"testing"
	"time"
)

func TestPhaseAt(t *testing.T) {
	now := time.Now()
	for name, row := range map[string]struct{ is, later Phase }{
		"starting":        {Phase{}, Phase{}},
		"active":          {Phase{Situation: Active}, Phase{Situation: Active}},
		"silent":          {Phase{Silent, now}, Phase{Silent, now}},
		"stale":           {Phase{Stale, now.Add(time.Minute)}, Phase{Stale, now.Add(time.Minute)}},
		"stale no longer": {Phase{Stale, now.Add(time.Second)}, Phase{None, now.Add(time.Second)}},
		"none":            {Phase{None, now}, Phase{None, now}},
		"never":           {Phase{Situation: None}, Phase{Situation: None}},
	} {
		if got := row.is.at(now.Add(time.Second)); got != row.later {
			t.Errorf("%s: %v a second later, want %v", name, got, row.later)
		}
		if has := row.later.HasTarget(); has != (row.later.Situation == Active || row.later.Situation == Silent || row.later.Situation == Stale) {
			t.Errorf("%s: has a target: %v", name, has)
		}
	}
}

func TestHoldUntil(t *testing.T) {
	came := time.Now()
	at := func(seconds int) time.Time { return came.Add(time.Duration(seconds) * time.Second) }
	for name, row := range map[string]struct {
		phase Phase
		hold  time.Duration
		want  int // seconds after it came; -1: it does not wait
	}{
		"starting":           {Phase{}, 0, 1},
		"starting, hold":     {Phase{}, 5 * time.Second, 5},
		"active":             {Phase{Situation: Active}, 5 * time.Second, -1},
		"stale":              {Phase{Stale, at(60)}, 5 * time.Second, -1},
		"silent":             {Phase{Silent, at(-100)}, 5 * time.Second, 5},
		"silent, no hold":    {Phase{Silent, at(0)}, 0, -1},
		"lost a while ago":   {Phase{None, at(-3)}, 5 * time.Second, 2},
		"lost since it came": {Phase{None, at(3)}, 5 * time.Second, 5},
		"lost too long ago":  {Phase{None, at(-9)}, 5 * time.Second, -1},
		"lost, no hold":      {Phase{None, at(0)}, 0, -1},
		"never seen":         {Phase{Situation: None}, 5 * time.Second, -1},
	} {
		end := row.phase.holdUntil(came, came, row.hold)
		if ok := !end.IsZero(); ok != (row.want != -1) || ok && !end.Equal(at(row.want)) {
			t.Errorf("%s: waits %v, until %s, want %d s", name, ok, end.Sub(came), row.want)
		}
	}
}
