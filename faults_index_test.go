// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// header sets a header of all answers.
func header(key, value string) func(*standin.Consul) {
	return func(c *standin.Consul) { c.Header(func(h http.Header) { h.Set(key, value) }) }
}

// edit rewrites the requests before Consul sees them.
func edit(f func(*http.Request)) func(*standin.Consul) {
	return func(c *standin.Consul) {
		c.Handle(func(_ http.ResponseWriter, r *http.Request) bool { f(r); return false })
	}
}

// Whatever the index says, what is answered is seen within poll_interval, is no failure, and costs few queries.
func faultsOfTheIndex(t *testing.T) {
	type row struct {
		begin func(*standin.Consul)
		quiet bool // the content changes, the index does not
	}
	var toAndFro atomic.Uint64
	rows := map[string]row{
		"none":                  {begin: func(c *standin.Consul) { c.Header(func(h http.Header) { h.Del("X-Consul-Index") }) }},
		"none, content changes": {begin: func(c *standin.Consul) { c.Header(func(h http.Header) { h.Del("X-Consul-Index") }) }, quiet: true},
		"0":                     {begin: header("X-Consul-Index", "0")},
		"no number":             {begin: header("X-Consul-Index", "many")},
		"negative":              {begin: header("X-Consul-Index", "-1")},
		"too great":             {begin: header("X-Consul-Index", "18446744073709551616")},
		"far ahead":             {begin: header("X-Consul-Index", "18446744073709551615")},
		"back by one":           {begin: func(c *standin.Consul) { c.SetIndex(c.Index() - 1) }},
		"back to 1":             {begin: func(c *standin.Consul) { c.SetIndex(1) }},
		"back, content changes": {begin: func(c *standin.Consul) { c.SetQuietly("vault", truthAfter()...); c.SetIndex(c.Index() - 1) }, quiet: true},
		"stands still":          {begin: func(*standin.Consul) {}, quiet: true},
		"stands still, at once": {begin: header("X-Consul-Index", "5000")},
		"to and fro": {begin: func(c *standin.Consul) {
			c.Header(func(h http.Header) { h.Set("X-Consul-Index", fmt.Sprint(17+4983*(toAndFro.Add(1)%2))) })
		}},
		"is ignored": {begin: edit(func(r *http.Request) { q := r.URL.Query(); q.Del("index"); r.URL.RawQuery = q.Encode() })},
	}
	together(t, rows, func(t *testing.T, row row) {
		consul := standin.RunConsul(t, truthBefore()...)
		consul.SetIndex(5000)
		s := newSite(t, consul, "")
		s.follows(t, time.Now(), "vault-1", 1)

		began := time.Now()
		row.begin(consul)
		set := consul.Set
		if row.quiet {
			set = consul.SetQuietly
		}
		set("vault", truthAfter()...)
		s.follows(t, began, "vault-2", 2)
		_ = wait.Sleep(t.Context(), 4*time.Second-time.Since(began))
		s.follows(t, began, "vault-2", 2)

		ended := time.Now()
		consul.Header(nil)
		consul.Handle(nil)
		consul.Set("vault", standin.Active("vault-1"), standin.Standby("vault-2"))
		s.follows(t, ended, "vault-1", 3)
		s.bounded(t)
		if lines := s.lines(); len(lines) != 0 {
			t.Errorf("log lines %v", lines)
		}
	})
}

// Consul changes 200 times a second.
func faultChurn(t *testing.T) {
	changes := map[string]func(c *standin.Consul, i int){
		"of another service": func(c *standin.Consul, i int) { c.Set("web", standin.Node("web-1", standin.Port(i+1))) },
		"of the active node": func(c *standin.Consul, i int) {
			c.Set("vault", critical(fmt.Sprint("vault-", 1+i%3)), standin.Active(fmt.Sprint("vault-", 1+(i+1)%3)))
		},
		// Each answer lacks an instance that the last one had, which Query asks about again.
		"of the nodes": func(c *standin.Consul, i int) {
			c.Set("vault", critical(fmt.Sprint("vault-", 100+i)), standin.Active("vault-1"))
		},
	}
	together(t, changes, func(t *testing.T, change func(*standin.Consul, int)) {
		consul := standin.RunConsul(t, truthBefore()...)
		s := newSite(t, consul, "")
		s.follows(t, time.Now(), "vault-1", 1)

		tick := time.NewTicker(time.Second / 200)
		defer tick.Stop()
		for i := range 200 * 4 {
			change(consul, i)
			if st := s.h.redirector.View.State(); !st.Active() || slices.ContainsFunc(st.Node.Checks, func(c discovery.Check) bool { return c.Status == api.HealthCritical }) {
				t.Fatalf("reason %s, node %+v", st.ReasonAt(time.Now()), st.Node)
			}
			<-tick.C
		}
		ended := time.Now()
		consul.Set("vault", standin.Standby("vault-1"), standin.Active("vault-2"))
		until(t, s.h, "the last change", func(st *engine.State) bool {
			return st.Nodes() == 2 && st.Active() && st.Node.Name == "vault-2" && len(st.Node.Checks) == 2
		})
		if took := s.h.redirector.View.State().Made.Sub(ended); took > back {
			t.Errorf("the last change took %s", took)
		}
		s.bounded(t)
		if lines := s.lines(); len(lines) != 0 {
			t.Errorf("log lines %v", lines)
		}
	})
}

// critical is a node that still has the tag, as kill -9 leaves it.
func critical(name string) *api.ServiceEntry {
	return standin.Active(name, standin.Check(standin.SealedCheckID("127.10.0.1", 8200), api.HealthCritical))
}

// incomplete sets a header of the answers that do not come from a stream.
func incomplete(key, value string) func(*standin.Consul) {
	return func(c *standin.Consul) {
		c.Header(func(h http.Header) {
			if h.Get("X-Consul-Query-Backend") != "streaming" {
				h.Set(key, value)
			}
		})
	}
}

// An answer that may lack what is there proves nothing. That it is over shows in no index: Consul is asked more often than
// every poll_interval until then.
func faultsThatHide(t *testing.T) {
	filtered := incomplete("X-Consul-Results-Filtered-By-ACLs", "true")
	leaderless := incomplete("X-Consul-KnownLeader", "false")
	rows := map[string]fault{
		"all filtered":         {begin: filtered, visible: []*api.ServiceEntry{}, reason: discovery.ReasonACLFiltered, detail: "service:read"},
		"some filtered":        {begin: filtered, visible: []*api.ServiceEntry{standin.Standby("vault-2")}, reason: discovery.ReasonACLFiltered, detail: "node:read"},
		"all without a leader": {begin: leaderless, visible: []*api.ServiceEntry{}, reason: discovery.ReasonConsulError, detail: "no leader"},
		"old without a leader": {begin: leaderless, visible: []*api.ServiceEntry{standin.Standby("vault-2")}, reason: discovery.ReasonConsulError, detail: "no leader"},
	}
	together(t, rows, func(t *testing.T, f fault) {
		newSite(t, standin.RunConsul(t, truthBefore()...), `, "poll_interval": "30s"`).suffer(t, f)
	})
	// A server that is cut off from its leader goes on showing what it last knew: it is no better than an outage (C10).
	t.Run("nothing, without a leader", func(t *testing.T) {
		newSite(t, standin.RunConsul(t, truthBefore()...), "").suffer(t, fault{
			begin: leaderless, visible: truthBefore(), reason: discovery.ReasonConsulError, detail: "no leader",
		})
	})
}

// What is hidden from the first query on stays known as hidden, though streams do not say it.
func faultHidesFromTheStart(t *testing.T) {
	consul := standin.RunConsul(t, standin.Standby("vault-2"))
	incomplete("X-Consul-Results-Filtered-By-ACLs", "true")(consul)
	s := newSite(t, consul, `, "poll_interval": "1s"`)
	ctx, cancel := context.WithTimeout(t.Context(), back)
	defer cancel()
	for n := 2; n < 8; n += 2 {
		consul.Set("vault", standin.Standby("vault-2", standin.Index(uint64(n))))
		if err := consul.Await(ctx, func() bool { return consul.Queries() >= n+1 && consul.Open() == 1 }); err != nil {
			t.Fatal(err)
		}
		if st := s.h.redirector.View.State(); st.ReasonAt(time.Now()) != discovery.ReasonACLFiltered && st.ReasonAt(time.Now()) != discovery.ReasonStarting {
			t.Errorf("reason %s, want %s", st.ReasonAt(time.Now()), discovery.ReasonACLFiltered)
		}
	}
}
