// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// standbysNamed is the fit standbys of a state.
func standbysNamed(names ...string) (list []Standby) {
	for _, name := range names {
		n := discovery.Node{Name: name, ID: "vault"}
		list = append(list, Standby{Node: n, hash: maphash.Comparable(standbySeed, n.Identity())})
	}
	return list
}

// The loss of one standby moves the keys that it served, and no others; all of them come back with it.
func TestStandbyForMovesNoOtherKeys(t *testing.T) {
	all := &State{phase: Phase{Situation: Active}, standbys: standbysNamed("a", "b", "c")}
	count := map[string]int{}
	for range 3000 {
		key := rand.Uint64()
		of := all.StandbyFor(key).Node.Name
		count[of]++
		for i, lost := range all.standbys {
			rest := &State{phase: all.phase, standbys: slices.Delete(slices.Clone(all.standbys), i, i+1)}
			if now := rest.StandbyFor(key).Node.Name; now == lost.Node.Name || lost.Node.Name != of && now != of {
				t.Fatalf("the loss of %s moves a key from %s to %s", lost.Node.Name, of, now)
			}
		}
	}
	for name, n := range count {
		if n < 750 || len(count) != 3 {
			t.Errorf("%s serves %d of 3000 keys: %v", name, n, count)
		}
	}
}

// Keys of all forms spread, also those that differ in a few bits only.
func TestStandbyForSpreadsKeys(t *testing.T) {
	s := &State{phase: Phase{Situation: Active}, standbys: standbysNamed("a", "b")}
	for _, shift := range []int{0, 20, 40, 56} {
		count := map[string]int{}
		for i := range uint64(256) {
			count[s.StandbyFor(i<<shift).Node.Name]++
		}
		if count["a"] < 64 || count["b"] < 64 {
			t.Errorf("keys that differ in the bits from %d: %v", shift, count)
		}
	}
}

func TestStandbyForWithoutAny(t *testing.T) {
	past := time.Now().Add(-time.Second)
	for name, s := range map[string]*State{
		"none is fit":    {phase: Phase{Situation: Active}},
		"none is active": {phase: Phase{Situation: None, Time: past}, standbys: standbysNamed("a")},
		"starting":       {standbys: standbysNamed("a")},
		"stale expired":  {phase: Phase{Stale, past}, standbys: standbysNamed("a")},
	} {
		if got := s.StandbyFor(1); got != nil || len(s.Standbys()) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, situation := range []Situation{Active, Silent} {
		s := &State{phase: Phase{Situation: situation}, standbys: standbysNamed("a")}
		if s.StandbyFor(1) == nil || len(s.Standbys()) != 1 {
			t.Errorf("situation %d: none", situation)
		}
	}
}

func TestStandbyForAllocatesNothing(t *testing.T) {
	s := &State{phase: Phase{Situation: Active}, standbys: standbysNamed("a", "b", "c")}
	if n := testing.AllocsPerRun(100, func() { s.StandbyFor(7) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStandbyFor(b *testing.B) {
	for _, n := range []int{2, 4} {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprint("vault-", i)
		}
		s := &State{phase: Phase{Situation: Active}, standbys: standbysNamed(names...)}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			key := uint64(0)
			for b.Loop() {
				key += uint64(len(s.StandbyFor(key).Node.Name))
			}
		})
	}
}
