// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package consul

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// sourceOf returns the connection to a stand-in; change, if there is one, has the last word on the settings.
func sourceOf(t *testing.T, consul *standin.Consul, change func(*Settings)) *Source {
	t.Helper()
	endpoint, err := ParseEndpoint(consul.Addr(), false)
	if err != nil {
		t.Fatal(err)
	}
	settings := Settings{Endpoint: endpoint, Service: "vault", Consistency: ConsistencyDefault}
	if change != nil {
		change(&settings)
	}
	s := New(settings)
	t.Cleanup(s.Close)
	return s
}

// query asks, and wants an answer.
func query(t *testing.T, s *Source, index uint64, wait time.Duration) discovery.Answer {
	t.Helper()
	a, err := s.Query(t.Context(), index, wait)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestQuery(t *testing.T) {
	consul := standin.RunConsul(t, standin.Standby("vault-2"), standin.Active("vault-1", standin.Index(7), standin.Tagged("wan", "wan.test", 443), standin.Meta("zone", "a")))
	s := sourceOf(t, consul, func(s *Settings) {
		s.Datacenter, s.Namespace, s.Partition, s.Peer, s.Consistency, s.Token = "dc2", "ns", "p", "east", ConsistencyStale, "secret"
	})
	a := query(t, s, 0, time.Minute)
	if len(a.Nodes) != 2 || a.Nodes[0].Name != "vault-1" || a.Nodes[1].Name != "vault-2" || a.Incomplete != "" || a.Index != consul.Index() {
		t.Fatalf("answer %+v", a)
	}
	want := discovery.Node{
		Name: "vault-1", ID: "vault:127.10.0.1:8200", Address: "127.10.0.1", ServiceAddress: "127.10.0.1", Port: 8200, Datacenter: "dc1",
		Tags: []string{"active", "initialized"}, Meta: map[string]string{"external-source": "vault", "zone": "a"},
		Tagged: map[string]discovery.TaggedAddress{"wan": {Host: "wan.test", Port: 443}},
		Checks: []discovery.Check{
			{ID: "serfHealth", Status: "passing"},
			{ID: "vault:127.10.0.1:8200:vault-sealed-check", Status: "passing", Service: true, Index: 7},
		},
		Index: 7,
	}
	if !reflect.DeepEqual(a.Nodes[0], want) {
		t.Errorf("node %+v\nwant %+v", a.Nodes[0], want)
	}
	query(t, s, a.Index-1, 3*time.Second)
	asked := consul.Requests()
	for i, want := range []struct {
		index uint64
		wait  time.Duration
	}{{0, 0}, {a.Index - 1, 3 * time.Second}} {
		r := asked[i]
		if r.Path != "/v1/health/service/vault" || r.Index != want.index || r.Wait != want.wait || r.Token != "secret" {
			t.Errorf("request %+v", r)
		}
		for _, part := range []string{"dc=dc2", "ns=ns", "partition=p", "peer=east", "stale="} {
			if !strings.Contains(r.RawQuery, part) {
				t.Errorf("%s is not in the query %s", part, r.RawQuery)
			}
		}
		for _, part := range []string{"tag=", "passing", "filter="} {
			if strings.Contains(r.RawQuery, part) {
				t.Errorf("%s is in the query %s: deciding here tells why", part, r.RawQuery)
			}
		}
	}
}

func TestQueryByPrefixAndSocket(t *testing.T) {
	prefixed := standin.RunConsul(t)
	prefixed.Handle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/consul/v1/health/service/vault" {
			_, _ = w.Write([]byte("[]"))
		} else {
			http.NotFound(w, r)
		}
		return true
	})
	query(t, sourceOf(t, prefixed, func(s *Settings) { s.Endpoint.Prefix = "/consul" }), 0, 0)

	_, err := sourceOf(t, prefixed, func(s *Settings) {
		s.Endpoint = Endpoint{Scheme: "http", Socket: filepath.Join(t.TempDir(), "none.sock"), Host: "localhost"}
	}).Query(t.Context(), 0, 0)
	var known *discovery.Error
	if !errors.As(err, &known) || known.Reason != discovery.ReasonConsulUnreachable || !strings.Contains(err.Error(), "none.sock") {
		t.Errorf("a socket that is not there: %v", err)
	}
}

// Consul's streaming backend, which answers queries that wait, says nothing of what a token hides.
func TestQueryConfirmsWhatAStreamLacks(t *testing.T) {
	consul := standin.RunConsul(t, standin.Active("vault-1"), standin.Standby("vault-2"))
	s := sourceOf(t, consul, nil)
	a := query(t, s, 0, 0)
	before := consul.Queries()
	consul.Set("vault", standin.Standby("vault-1"), standin.Active("vault-2"))
	if a = query(t, s, a.Index, time.Minute); a.Incomplete != "" || consul.Queries() != before+1 {
		t.Errorf("a failover: incomplete %q, %d queries, want none and 1", a.Incomplete, consul.Queries()-before)
	}

	// Hidden: only the query that does not wait says so.
	consul.Header(func(h http.Header) {
		if h.Get("X-Consul-Query-Backend") != "streaming" {
			h.Set("X-Consul-Results-Filtered-By-ACLs", "true")
		}
	})
	consul.Set("vault")
	if a = query(t, s, a.Index, time.Minute); a.Incomplete != discovery.ReasonACLFiltered || len(a.Nodes) != 0 || a.ExtraQueries != 1 {
		t.Errorf("hidden: incomplete %q, %d nodes, %d more queries", a.Incomplete, len(a.Nodes), a.ExtraQueries)
	}
	if a = query(t, s, a.Index, time.Millisecond); a.Incomplete != discovery.ReasonACLFiltered {
		t.Errorf("still hidden: incomplete %q", a.Incomplete)
	}
	// Gone.
	consul.Header(nil)
	consul.Set("vault", standin.Standby("vault-1"))
	if a = query(t, s, a.Index, time.Minute); a.Incomplete != "" || len(a.Nodes) != 1 {
		t.Errorf("gone: incomplete %q, %d nodes", a.Incomplete, len(a.Nodes))
	}
}

// An instance is told from others by its node's name and its ID together, whatever characters are in them (C26).
func TestQueryTellsIdentitiesWithSlashesApart(t *testing.T) {
	entry := func(node, id string) *api.ServiceEntry {
		e := standin.Standby(node)
		e.Service.ID = id
		return e
	}
	consul := standin.RunConsul(t, entry("vault-1", "x/y"))
	s := sourceOf(t, consul, nil)
	a := query(t, s, 0, 0)
	// One goes, the other, whose name and ID make the same text, comes: the stream lacks the first one.
	consul.Set("vault", entry("vault-1/x", "y"))
	before := consul.Queries()
	if a = query(t, s, a.Index, time.Minute); consul.Queries() != before+2 || len(a.Nodes) != 1 {
		t.Errorf("%d queries, want 2: that an instance is gone is confirmed", consul.Queries()-before)
	}
	consul.Set("vault", entry("vault-1", "x/y"), entry("vault-1/x", "y"))
	if a = query(t, s, a.Index, time.Minute); len(discovery.Identities(a.Nodes)) != 2 {
		t.Errorf("identities %v, want 2", discovery.Identities(a.Nodes))
	}
}

// An agent that has lost all of its servers goes on answering queries that wait, with what it last heard.
func TestQueryConfirmsThatAStreamIsAlive(t *testing.T) {
	consul := standin.RunConsul(t, standin.Active("vault-1"))
	s := sourceOf(t, consul, nil)
	a := query(t, s, 0, 0)
	if again := query(t, s, a.Index, time.Millisecond); again.Index != a.Index || len(again.Nodes) != 1 {
		t.Errorf("nothing new: %+v", again)
	}
	consul.Handle(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("index") {
			return false
		}
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
		return true
	})
	_, err := s.Query(t.Context(), a.Index, time.Millisecond)
	if known, ok := errors.AsType[*discovery.Error](err); !ok || known.Reason != discovery.ReasonConsulError {
		t.Errorf("no leader: %v, want a consul_error", err)
	}
}

// Whatever an answer of a server without a leader shows, it may be of long ago (C10).
func TestAnswersWithoutALeaderAreIncomplete(t *testing.T) {
	for name, entry := range map[string]*api.ServiceEntry{"none active": standin.Standby("vault-1"), "one active": standin.Active("vault-1")} {
		t.Run(name, func(t *testing.T) {
			consul := standin.RunConsul(t, entry)
			s := sourceOf(t, consul, func(s *Settings) { s.Consistency = ConsistencyStale })
			consul.Header(func(h http.Header) { h.Set("X-Consul-KnownLeader", "false") })
			if a := query(t, s, 0, 0); a.Incomplete != discovery.ReasonConsulError || a.Detail == "" || len(a.Nodes) != 1 {
				t.Errorf("answer %+v", a)
			}
			consul.Header(nil)
			if a := query(t, s, 0, 0); a.Incomplete != "" {
				t.Errorf("incomplete %q with a leader", a.Incomplete)
			}
		})
	}
}

func TestQueryErrors(t *testing.T) {
	for _, row := range []struct {
		name   string
		code   int
		body   string
		reason discovery.Reason
		part   string
	}{
		{"denied", 403, "Permission denied", discovery.ReasonACLDenied, "answered 403: Permission denied"},
		{"unknown token", 401, "", discovery.ReasonACLDenied, "answered 401: no text"},
		{"redirect", 307, "", discovery.ReasonConsulError, "redirects are not followed"},
		{"not found", 404, "404 page not found", discovery.ReasonConsulError, "answered 404"},
		{"error", 500, "No cluster leader", discovery.ReasonConsulError, "No cluster leader"},
		{"no JSON", 200, "<html>", discovery.ReasonConsulError, "unusable answer"},
		{"null", 200, "null", discovery.ReasonConsulError, "null instead of a list"},
		{"null in it", 200, "[null]", discovery.ReasonConsulError, "entry 0"},
		{"no node", 200, `[{"Service":{}}]`, discovery.ReasonConsulError, "entry 0"},
		{"null for a check", 200, `[{"Node":{"Node":"a"},"Service":{},"Checks":[null]}]`, discovery.ReasonConsulError, "check"},
		{"too large", 200, strings.Repeat(" ", maxAnswer+1), discovery.ReasonConsulError, "too large"},
		{"error too large", 500, strings.Repeat("x", maxErrorAnswer+1), discovery.ReasonConsulError, "answered 500"},
	} {
		t.Run(row.name, func(t *testing.T) {
			consul := standin.RunConsul(t)
			consul.Handle(func(w http.ResponseWriter, r *http.Request) bool {
				w.WriteHeader(row.code)
				fmt.Fprint(w, row.body)
				return true
			})
			_, err := sourceOf(t, consul, nil).Query(t.Context(), 0, 0)
			known, ok := errors.AsType[*discovery.Error](err)
			if !ok || known.Reason != row.reason || !strings.Contains(err.Error(), row.part) || !strings.Contains(err.Error(), consul.Addr()) {
				t.Errorf("%v, want %s with %q", err, row.reason, row.part)
			}
			if len(err.Error()) > 500 {
				t.Errorf("%d bytes of error", len(err.Error()))
			}
		})
	}
}
