// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"time"
)

// result is what a run found.
type result struct {
	phases []*phase
	losses []loss
	seen   int // losses that a watcher saw
	fronts []*front
	left   []string
}

// summary is what there is to tell of a run, also to a later process.
type summary struct {
	Fronts    []*frontSummary
	Rows      []*row
	Outages   map[string][]outage // by the kind of failover
	Unplanned int                 // losses that the run has not brought about: under load, raft may lose its leader by itself
	Left      []string            // programs that are not installed
}

// names are those of the fronts.
func (s *summary) names() string {
	var names []string
	for _, f := range s.Fronts {
		names = append(names, f.Name)
	}
	return strings.Join(names, "; ")
}

// frontSummary is how a front followed the active node.
type frontSummary struct {
	Name, Note string
	Rights     []time.Duration // from the new node's first 200 to the front's first right answer
	Never      int             // failovers that the front did not follow
	Stopped    []time.Duration // for how long it named a node that had stopped
	Killed     []time.Duration // for how long it named a node that was killed
}

// outage is how long the cluster was without an active node, from when the fault began.
type outage struct{ Gone, Next time.Duration }

// row is what became of the operations of one kind of client of one front. The maps are by the kind of failover.
type row struct {
	Front, Client string         // the client's key
	Count         int            // all operations
	Failed        map[string]int // all that failed
	InFlight      map[string]int // those of them that were under way at the node that went
	Reads         map[string]int // those of them that were reads
	Repeated      map[string]int // writes that the front had carried out more than once
	Resent        map[string]int // those that were carried out more than once because the client sent them again
	Slowest       map[string]time.Duration
	Vanished      int // writes that were acknowledged and are not there
	Texts         map[string]int
}

func newRow(front, client string) *row {
	return &row{
		Front: front, Client: client, Failed: map[string]int{}, InFlight: map[string]int{}, Reads: map[string]int{}, Repeated: map[string]int{},
		Resent: map[string]int{}, Slowest: map[string]time.Duration{}, Texts: map[string]int{},
	}
}

// loss is the end of a node's time as the active one.
type loss struct {
	node string
	at   time.Time // as round.gone
}

// rounds are the failovers of all phases.
func (r *result) rounds() (rounds []*round) {
	for _, p := range r.phases {
		rounds = append(rounds, p.rounds...)
	}
	return rounds
}

// stuck is how long an operation has been under way when something is wrong with it already.
const stuck = 3 * time.Second

// roundOf returns the failover to which an operation belongs: the one that began while it was under way, unless it was stuck by then;
// else the last one that began before it; nil if there is none.
func roundOf(rounds []*round, o *operation) *round {
	var last *round
	for _, r := range rounds {
		switch {
		case !r.begin.After(o.start):
			last = r
		case r.begin.After(o.end):
			return last
		case last == nil || r.begin.Sub(o.start) < stuck:
			return r
		}
	}
	return last
}

// slack is how much later than clients this program may see a node go.
const slack = 50 * time.Millisecond

// inFlight reports whether a failed operation had begun before a node to which it went was gone, and ended thereafter. What proxies
// had under way then counts as under way at that node.
func (r *result) inFlight(f *front, o *operation) bool {
	return slices.ContainsFunc(r.losses, func(l loss) bool {
		return (f.proxies || o.went(l.node)) && !o.start.After(l.at) && !o.end.Before(l.at.Add(-slack))
	})
}

// correct puts the moment at which the connections of a killed node broke in place of that at which a probe failed, and
// adds the moment at which a stopped node closed its listener: what it had under way by then may fail, as may what it
// takes on connections that are kept, until it is not active any more.
func (r *result) correct() {
	r.seen = len(r.losses)
	for _, round := range r.rounds() {
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

// finish sums up the run, and writes its failures to a file if there is a name for it.
func (r *result) finish(name string) (*summary, error) {
	r.correct()
	sum := &summary{Outages: map[string][]outage{}, Unplanned: max(0, r.seen-len(r.rounds())), Left: r.left}
	for _, round := range r.rounds() {
		sum.Outages[round.how] = append(sum.Outages[round.how], outage{round.gone.Sub(round.begin), round.first200.Sub(round.begin)})
	}
	for _, f := range r.fronts {
		sum.Fronts = append(sum.Fronts, f.follow(r.rounds()))
	}
	var failures []map[string]any
	for _, p := range r.phases {
		for _, f := range p.fronts {
			row := newRow(f.name, p.user.key)
			for _, o := range p.tasks[f] {
				round, in := roundOf(p.rounds, o), r.inFlight(f, o)
				row.add(f, round, o, in)
				if o.failed() || o.write && o.times != 1 {
					failures = append(failures, p.describe(f, round, o, in))
				}
			}
			sum.Rows = append(sum.Rows, row)
		}
	}
	if name == "" {
		return sum, nil
	}
	return sum, appendLines(name, failures)
}

// appendLines adds JSON lines to a file.
func appendLines[T any](name string, lines []T) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, line := range lines {
		if err := json.NewEncoder(file).Encode(line); err != nil {
			return err
		}
	}
	return file.Close()
}

// follow sums up how a front followed in those failovers in which it was looked at.
func (f *front) follow(rounds []*round) *frontSummary {
	sum := &frontSummary{Name: f.name, Note: f.note}
	for _, r := range rounds {
		s := r.sights[f]
		if s == nil {
			continue
		}
		if at := s.firstRight(r.new); at.IsZero() {
			sum.Never++
		} else {
			sum.Rights = append(sum.Rights, at.Sub(r.first200))
		}
		named := max(0, s.lastNamed(r.old).Sub(r.gone))
		switch r.how {
		case stop:
			sum.Stopped = append(sum.Stopped, named)
		case kill:
			sum.Killed = append(sum.Killed, named)
		}
	}
	return sum
}

// beforeAll is the kind of failover of what happened before the first one.
const beforeAll = "before"

// add counts an operation by the failover to which it belongs.
func (r *row) add(f *front, round *round, o *operation, inFlight bool) {
	how := beforeAll
	if round != nil {
		how = round.how
	}
	r.Count++
	r.Slowest[how] = max(r.Slowest[how], o.end.Sub(o.start))
	switch {
	case !o.write || o.times < 2:
	case o.times > f.arrivals(o):
		r.Repeated[how]++
	default:
		r.Resent[how]++
	}
	if !o.failed() {
		if o.write && o.times == 0 {
			r.Vanished++
		}
		return
	}
	r.Failed[how]++
	text := how + ", "
	if inFlight {
		r.InFlight[how]++
		text += "in flight, "
	}
	if o.write {
		text += "write: "
	} else {
		r.Reads[how]++
		text += "read: "
	}
	r.Texts[text+o.text]++
}

// arrivals is how often the client itself sent an operation to where it may be carried out: to a proxy, or to a node.
func (f *front) arrivals(o *operation) (n int) {
	for _, t := range o.tries {
		if f.proxies || t.address != f.address() {
			n++
		}
	}
	return n
}

// describe tells all of an operation; times are milliseconds from the begin of the failover.
func (p *phase) describe(f *front, round *round, o *operation, in bool) map[string]any {
	d := map[string]any{"front": f.name, "client": p.user.key, "write": o.write, "text": o.text, "in_flight": in}
	if o.write {
		d["key"], d["value"], d["times"] = o.key, o.value, o.times
	}
	if round == nil {
		return d
	}
	since := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return float64(t.Sub(round.begin).Microseconds()) / 1000
	}
	var tries []map[string]any
	for _, t := range o.tries {
		tries = append(tries, map[string]any{"address": t.address, "begin": since(t.begin), "sent": since(t.sent)})
	}
	d["round"], d["how"], d["old"], d["new"] = slices.Index(p.rounds, round)+1, round.how, round.old, round.new
	d["start"], d["end"], d["tries"] = since(o.start), since(o.end), tries
	d["gone"], d["first200"], d["right"] = since(round.gone), since(round.first200), since(round.sights[f].firstRight(round.new))
	d["last_old"] = since(round.sights[f].lastNamed(round.old))
	return d
}
