// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the query, against a scripted Consul.

package vaultredirect

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// sourceOf returns the connection to a stand-in.
func sourceOf(t *testing.T, consul *standin.Consul) *consulSource {
	t.Helper()
	c := &Consul{Address: consul.Addr()}
	settings, err := c.resolve(caddy.NewReplacer(), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	s, err := newConsulSource(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Consul's streaming backend, which answers queries that wait, says nothing of what a token hides.
func TestQueryConfirmsWhatAStreamLacks(t *testing.T) {
	consul := newConsul(t, standin.Active("vault-1"), standin.Standby("vault-2"))
	s := sourceOf(t, consul)
	query := func(index uint64, wait time.Duration) Answer {
		t.Helper()
		a, err := s.Query(t.Context(), index, wait)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := query(0, 0)
	before := consul.Queries()
	consul.Set("vault", standin.Standby("vault-1"), standin.Active("vault-2"))
	if a = query(a.Index, time.Minute); a.Doubt != "" || consul.Queries() != before+1 {
		t.Errorf("a failover: doubt %q, %d queries, want none and 1", a.Doubt, consul.Queries()-before)
	}

	// Hidden: only the query that does not wait says so.
	consul.Header(func(h http.Header) {
		if h.Get("X-Consul-Query-Backend") != "streaming" {
			h.Set("X-Consul-Results-Filtered-By-ACLs", "true")
		}
	})
	consul.Set("vault")
	if a = query(a.Index, time.Minute); a.Doubt != ReasonACLFiltered || len(a.Nodes) != 0 {
		t.Errorf("hidden: doubt %q, %d nodes", a.Doubt, len(a.Nodes))
	}
	if a = query(a.Index, time.Millisecond); a.Doubt != ReasonACLFiltered {
		t.Errorf("still hidden: doubt %q", a.Doubt)
	}
	// Gone.
	consul.Header(nil)
	consul.Set("vault", standin.Standby("vault-1"))
	if a = query(a.Index, time.Minute); a.Doubt != "" || len(a.Nodes) != 1 {
		t.Errorf("gone: doubt %q, %d nodes", a.Doubt, len(a.Nodes))
	}
}

// An agent that has lost all of its servers goes on answering queries that wait, with what it last heard.
func TestQueryConfirmsThatAStreamIsAlive(t *testing.T) {
	consul := newConsul(t, standin.Active("vault-1"))
	s := sourceOf(t, consul)
	a, err := s.Query(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Query(t.Context(), a.Index, time.Millisecond); err != nil || again.Index != a.Index || len(again.Nodes) != 1 {
		t.Errorf("nothing new: %+v, %v", again, err)
	}
	consul.Handle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("index") {
			return false
		}
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
		return true
	})
	_, err = s.Query(t.Context(), a.Index, time.Millisecond)
	if qe, ok := errors.AsType[*QueryError](err); !ok || qe.Reason != ReasonConsulError {
		t.Errorf("no leader: %v, want a consul_error", err)
	}
}

func TestQueryDoubtsStaleAnswersWithoutALeader(t *testing.T) {
	consul := newConsul(t, standin.Standby("vault-1"))
	consul.Header(func(h http.Header) { h.Set("X-Consul-KnownLeader", "false") })
	if a, err := sourceOf(t, consul).Query(t.Context(), 0, 0); err != nil || a.Doubt != ReasonConsulError {
		t.Errorf("doubt %q, %v", a.Doubt, err)
	}
}
