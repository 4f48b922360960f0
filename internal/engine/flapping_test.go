// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// What discovery says may change ten times a second: requests lose nothing while the active node says itself that it is active, and
// the log is not filled.
func TestFlapping(t *testing.T) {
	for name, change := range map[string]func(w *watched, i int){
		"mark moves": func(w *watched, i int) { w.say(answerOf(uint64(6+i), []string{"b", "a"}[i%2])) },
		"mark goes":  func(w *watched, i int) { w.say(answerOf(uint64(6+i), []string{"", "a"}[i%2])) },
		"two marks": func(w *watched, i int) {
			w.say(answerOf(uint64(6+i), "a", with("b", func(n *discovery.Node) { n.Tags, n.Index = []string{"active"}, uint64(5+i%2*100) })))
		},
		"health": func(w *watched, i int) {
			w.say(answerOf(uint64(6+i), "a", with("a", withSealedCheck([]string{"critical", "passing"}[i%2]))))
		},
		"failures": func(w *watched, i int) {
			if i%2 == 0 {
				w.fail(errors.New("broken"))
				return
			}
			w.say(answerOf(uint64(6+i), "a"))
		},
		"service": func(w *watched, i int) {
			a := answerOf(uint64(6+i), "a")
			if i%2 == 0 {
				a.Nodes = nil
			}
			w.say(a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := probedCluster(t)
				n.node("b").answers(429)
				settle(10 * time.Second)
				before := w.logs.Len()
				for i := range 400 {
					change(w, i)
					if got := request(t.Context(), w.View, &Queue{Hold: time.Second, Most: 1}); got.active != "a" || got.after > 100*time.Millisecond {
						t.Fatalf("change %d: led to %q after %s", i, got.active, got.after)
					}
					settle(100 * time.Millisecond)
				}
				for lines := w.logs.All()[before:]; len(lines) > 3; lines = lines[1:] {
					if d := lines[3].Time.Sub(lines[0].Time); d < 10*time.Second {
						t.Fatalf("four lines within %s: %v", d, lines[:4])
					}
				}
			})
		})
	}
}

// Of lines that come too often, the last of each message is written once there is room, so that the log ends with what is so.
func TestLinesThatComeTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, NewPool(), newScripted(answerOf(5, "a")), plain(t))
		settle(logPeriod)
		before := w.logs.Len()
		for i := range 40 {
			w.say(answerOf(uint64(6+i), []string{"", "b", "", "a"}[i%4]))
		}
		w.say(answerOf(100, "c"))
		settle(logPeriod / 2)
		if lines := w.logs.Len() - before; lines != linesPerPeriod {
			t.Errorf("%d lines at once, want %d", lines, linesPerPeriod)
		}
		settle(logPeriod)
		lines := w.logs.All()[before+linesPerPeriod:]
		if len(lines) != 2 || lines[0].Message != "no active node" || lines[1].Message != "active node" || lines[1].ContextMap()["node"] != "c" {
			t.Fatalf("at the end of the period: %v", lines)
		}
		for _, l := range lines {
			if n, _ := l.ContextMap()["repeated"].(int64); n == 0 {
				t.Errorf("it is not said that others came before: %v", l)
			}
		}
		settle(logPeriod)
		before = w.logs.Len()
		w.say(answerOf(101, "a"))
		if lines := w.logs.Len() - before; lines != 1 {
			t.Errorf("%d lines of a change once it is quiet again", lines)
		}
	})
}
