// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"os"
	"slices"
	"time"
)

// result is what a run found.
type result struct {
	rounds []*round
	losses []loss
	seen   int // losses that a watcher saw
	fronts []*front
	left   []string
	rows   []row
}

// row is a line of the table.
type row struct {
	front    *front
	inFlight map[string]int  // failed operations that were under way at the node that went, by the kind of failover
	beyond   map[string]int  // all others
	late     int             // those beyond that began more than lateAfter after a stopped node's listener closed
	rights   []time.Duration // from the new node's first 200 to the front's first right answer
	never    int             // failovers that the front did not follow
	dead     []time.Duration // from the kill to the front's last use of the dead node
}

// lateAfter is how long after a stopped node's listener closed clients and fronts may still not have noticed it.
const lateAfter = 600 * time.Millisecond

// lost is the number of all failed operations.
func (r row) lost() int { return len(r.front.tally.failures) }

// loss is the end of a node's time as the active one.
type loss struct {
	node string
	at   time.Time // as round.gone
}

// unplanned is the number of losses that the run has not brought about: under load, raft may lose its leader by itself.
func (r *result) unplanned() int { return max(0, r.seen-len(r.rounds)) }

// roundOf returns the failover that was the last to begin before an operation ended, nil if there is none.
func (r *result) roundOf(f *failure) *round {
	for _, round := range slices.Backward(r.rounds) {
		if f.end.After(round.begin) {
			return round
		}
	}
	return nil
}

// slack is how much later than clients this program may see a node go.
const slack = 50 * time.Millisecond

// inFlight reports whether a failed operation had begun before the node that it went to was gone, and ended thereafter.
// What proxies had under way then counts as under way at that node.
func (r *result) inFlight(f *front, o *failure) bool {
	proxy := !f.redirects && !f.direct
	return slices.ContainsFunc(r.losses, func(l loss) bool {
		return (proxy || o.node == l.node) && !o.start.After(l.at) && !o.end.Before(l.at.Add(-slack))
	})
}

// correct puts the moment at which the connections of a killed node broke in place of that at which a probe failed, and
// adds the moment at which a stopped node closed its listener: what it had under way by then may fail, as may what it
// takes on connections that are kept, until it is not active any more.
func (r *result) correct() {
	r.seen = len(r.losses)
	for _, round := range r.rounds {
		for i, l := range r.losses {
			if round.how == kill && l.node == round.old && l.at.After(round.begin) && l.at.Before(round.first200) {
				r.losses[i].at = round.gone
			}
		}
		if round.how == stop {
			r.losses = append(r.losses, loss{round.old, round.gone})
		}
	}
}

// finish makes the rows, and writes the failures to a file if there is a name for it.
func (r *result) finish(name string) error {
	r.correct()
	var failures []map[string]any
	for _, f := range r.fronts {
		row := row{front: f, inFlight: map[string]int{}, beyond: map[string]int{}}
		for _, o := range f.tally.failures {
			round := r.roundOf(&o)
			in := r.inFlight(f, &o)
			row.count(round, &o, in)
			failures = append(failures, r.describe(f, round, &o, in))
		}
		for _, round := range r.rounds {
			if at := round.sights[f].firstRight(round.new); at.IsZero() {
				row.never++
			} else {
				row.rights = append(row.rights, at.Sub(round.first200))
			}
			if round.how == kill {
				row.dead = append(row.dead, max(0, round.sights[f].lastNamed(round.old).Sub(round.begin)))
			}
		}
		r.rows = append(r.rows, row)
	}
	if name == "" {
		return nil
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, f := range failures {
		if err := json.NewEncoder(file).Encode(f); err != nil {
			return err
		}
	}
	return file.Close()
}

// count counts a failure by the failover that was the last to begin; one before all of them counts as of the first kind.
func (r *row) count(round *round, o *failure, inFlight bool) {
	how := ways[0]
	if round != nil {
		how = round.how
	}
	switch {
	case inFlight:
		r.inFlight[how]++
		return
	case how == stop && o.start.After(round.gone.Add(lateAfter)):
		r.late++
	}
	r.beyond[how]++
}

// describe tells all of a failure; times are milliseconds from the begin of the failover.
func (r *result) describe(f *front, round *round, o *failure, in bool) map[string]any {
	d := map[string]any{"front": f.name, "write": o.write, "node": o.node, "text": o.text, "in_flight": in}
	if round == nil {
		return d
	}
	since := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return float64(t.Sub(round.begin).Microseconds()) / 1000
	}
	d["round"], d["how"], d["old"], d["new"] = slices.Index(r.rounds, round)+1, round.how, round.old, round.new
	d["start"], d["sent"], d["end"] = since(o.start), since(o.sent), since(o.end)
	d["gone"], d["first200"], d["right"] = since(round.gone), since(round.first200), since(round.sights[f].firstRight(round.new))
	d["last_old"] = since(round.sights[f].lastNamed(round.old))
	return d
}
