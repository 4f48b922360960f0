// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		began := time.Now()
		settle(time.Second)
		w.say(answerOf(6, "b"))
		settle(time.Second)
		w.say(answerOf(7, ""))
		settle(3 * time.Second)
		w.say(answerOf(8, "a"))
		at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
		const a, b = "http://a:8200", "http://b:8200"
		want := []Event{
			{Kind: ActiveChanged, At: at(5), Changes: 3, Node: "a", URL: a, Previous: "b", PreviousURL: b, Reason: discovery.ReasonOK, Gap: 3 * time.Second, By: BySource},
			{Kind: ActiveLost, At: at(2), Active: time.Second, Changes: 2, Previous: "b", PreviousURL: b, Reason: discovery.ReasonNoActive},
			{Kind: ActiveChanged, At: at(1), Changes: 2, Node: "b", URL: b, Previous: "a", PreviousURL: a, Reason: discovery.ReasonOK, By: BySource},
			{Kind: ActiveChanged, At: at(0), Changes: 1, Node: "a", URL: a, Reason: discovery.ReasonOK, By: BySource},
		}
		got := w.History()
		if len(got) != len(want) {
			t.Fatalf("%d transitions, want %d: %+v", len(got), len(want), got)
		}
		for i := range want {
			if !got[i].At.Equal(want[i].At) {
				t.Errorf("%d: at %s, want %s", i, got[i].At, want[i].At)
			}
			if got[i].At = want[i].At; got[i] != want[i] {
				t.Errorf("%d: %+v\nwant %+v", i, got[i], want[i])
			}
		}
		for i := range uint64(200) {
			w.say(answerOf(9+i, []string{"b", "c"}[i%2]))
			settle(time.Second)
		}
		if n := len(w.History()); n != HistoryLength {
			t.Errorf("%d transitions, want %d", n, HistoryLength)
		}
	})
}

// Several nodes that are active are warned about once for each set of them.
func TestSeveralActiveNodes(t *testing.T) {
	const marked, clusters = "several nodes are marked as active", "nodes of different Vault clusters are active under one service name"
	synctest.Test(t, func(t *testing.T) {
		n, p := newNetwork(t)
		for _, name := range []string{"a", "b"} {
			n.node(name).set(func(v *vault) { v.code, v.cluster = 200, name })
		}
		both := answerOf(5, "a", with("b", func(n *discovery.Node) { n.Tags = []string{"active"} }))
		w := watch(t, p, newScripted(both), plain(t))
		other := watch(t, p, newScripted(both), plain(t, probing(ProbeAuto)))
		settle(time.Minute)
		if n, m := w.lines(marked), other.lines(clusters); n != 1 || m != 1 {
			t.Errorf("%d and %d lines, want one each", n, m)
		}
		if s := w.State(); s.Candidates != 2 || s.Node.Name != "a" {
			t.Errorf("%d candidates, %s active", s.Candidates, s.Node.Name)
		}
		w.say(answerOf(6, "a"))
		both.Index = 7
		w.say(both)
		if n := w.lines(marked); n != 2 {
			t.Errorf("%d lines, want another one", n)
		}
	})
}

// A loss is warned about once, and again if it has another reason.
func TestLossesAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		for i := range uint64(5) {
			w.say(answerOf(6+i, ""))
		}
		if n := w.lines("no active node"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
		w.say(discovery.Answer{Index: 20})
		entries := w.logs.FilterMessage("no active node").FilterLevelExact(zap.WarnLevel).All()
		if len(entries) != 2 || entries[1].ContextMap()["reason"] != "no_service" || entries[0].ContextMap()["previous"] != "http://a:8200" {
			t.Errorf("%+v", entries)
		}
		if n := len(w.History()); n != 2 {
			t.Errorf("%d transitions, want 2", n)
		}
	})
}

// A counter that falls, if for a moment only, is taken for a new one, and all of it for what happened since. There is such
// a moment between the state with the next active node and the count of the outage before it.
func TestTimeWithoutActiveNeverFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		active := w.current.Load()
		w.lose()
		for _, want := range []time.Duration{time.Minute, 2 * time.Minute} {
			time.Sleep(time.Minute)
			if got := w.WithoutActive(time.Now()); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		none := w.current.Swap(active)
		if got := w.WithoutActive(time.Now()); got != 2*time.Minute {
			t.Errorf("%s in the moment before the outage is counted", got)
		}
		w.current.Store(none)
		w.say(answerOf(20, "a"))
		time.Sleep(time.Minute)
		if got := w.WithoutActive(time.Now()); got != 2*time.Minute {
			t.Errorf("%s after the outage", got)
		}
	})
}
