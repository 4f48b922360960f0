// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

// faultSites are what the tests of faults run: with the default max_stale, with a short one, and without, which share one
// watcher; and one that asks the last client agent, if there is one. None waits out a fault, and none
// asks the nodes: what is to be seen is what is made of Consul's word.
const faultSites = `
http://{ip}:8001 {
	vault_redirect {
		consul {consul} {
			poll_interval 1s
		}
		scheme http
		probe off
		hold 0
	}
}
http://{ip}:8002 {
	vault_redirect {
		consul {consul} {
			poll_interval 1s
		}
		scheme http
		probe off
		hold 0
		max_stale 2s
	}
}
http://{ip}:8003 {
	vault_redirect {
		consul {consul} {
			poll_interval 1s
		}
		scheme http
		probe off
		hold 0
		max_stale 0
	}
}
http://{ip}:8004 {
	vault_redirect {
		consul {agent} {
			poll_interval 1s
		}
		scheme http
		probe off
		hold 0
	}
}`

// faults runs rows on one cluster and one Caddy that asks its first Consul server.
type faults struct {
	*testing.T // of the row
	c          *cluster.Cluster
	caddy      *server
	site       string
	guard      *guard
	fault      time.Time // when the last fault was made
}

func runFaults(t *testing.T, c *cluster.Cluster) *faults {
	t.Helper()
	agents := append(slices.Clone(c.Consuls[:1]), c.Agents...)
	addresses := strings.NewReplacer("{consul}", c.Consuls[0].HTTPAddr, "{agent}", agents[len(agents)-1].HTTPAddr)
	caddy := runCaddy(t, "", addresses.Replace(faultSites))
	f := &faults{T: t, c: c, caddy: caddy, site: "http://" + caddy.IP + ":8001", fault: time.Now()}
	f.guard = startGuard(t, c.Consuls[0], f.site)
	return f
}

// row runs one row of the table of faults. Rows that follow are left out once one has failed: what it left is unknown.
func (f *faults) row(name string, run func(f *faults)) {
	f.Helper()
	if f.Failed() {
		return
	}
	f.Run(name, func(t *testing.T) {
		row, caddy := *f, *f.caddy
		caddy.t = t
		row.T, row.caddy = t, &caddy
		f.guard.forget()
		run(&row)
		t.Logf("answers: %v", f.guard.answers())
	})
}

// vaultRow is a row on a cluster in which all is well; active is its active node.
func (f *faults) vaultRow(name string, run func(f *faults, active *cluster.Vault)) {
	f.Helper()
	f.row(name, func(f *faults) {
		f.Helper()
		f.must("a healthy cluster", f.c.WaitHealthy(timeout(f.T)))
		active, err := f.c.WaitActive(timeout(f.T))
		f.must("an active node", err)
		f.sees(answer{target: active.URL, reason: "ok"})
		f.guard.forget()
		run(f, active)
	})
}

// must makes a fault, or heals one. The times that sees logs count from the last one.
func (f *faults) must(what string, err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v", what, err)
	}
	f.fault = time.Now()
	f.Logf("%s", what)
}

// next waits until a node other than the excepted ones is active.
func (f *faults) next(except ...*cluster.Vault) *cluster.Vault {
	f.Helper()
	v, err := f.c.WaitActive(timeout(f.T), except...)
	if err != nil {
		f.Fatal(err)
	}
	f.Logf("%8s %s says that it is active", time.Since(f.fault).Round(time.Millisecond), v.Name)
	return v
}

// status waits until Consul's aggregated status of an instance is as wanted.
func (f *faults) status(id, want string) {
	f.Helper()
	f.caddy.await("Consul calls "+id+" "+want, func() bool { return f.guard.status(id) == want })
	f.Logf("%8s Consul calls %s %s", time.Since(f.fault).Round(time.Millisecond), id, want)
}

// sees waits until clients and monitoring see that.
func (f *faults) sees(want answer) { f.Helper(); f.seesAt(f.site, want) }

func (f *faults) seesAt(site string, want answer) {
	f.Helper()
	var got answer
	defer func() {
		if f.Failed() {
			f.Logf("%s: %+v, want %+v", site, got, want)
		}
	}()
	f.caddy.await(fmt.Sprintf("%s answers %+v", site, want), func() bool {
		var whole bool
		got, whole = look(f.T, site)
		return whole && got == want
	})
	f.Logf("%8s %s", time.Since(f.fault).Round(time.Millisecond), want)
}

// turns returns how often Caddy has said so far that no node is active, for a reason. What lasts for a moment only may be
// missed by looking, but is in the log.
func (f *faults) turns(reason string) int {
	return strings.Count(f.caddy.Log(), `"msg":"no active node","reason":"`+reason+`"`)
}

// only checks that no client of this row has got anything but redirects to these targets, or 503 where that is one of them.
func (f *faults) only(targets ...string) {
	f.Helper()
	for _, got := range f.guard.answers() {
		if !slices.Contains(targets, got) {
			f.Errorf("clients got %s as well, want only %v", got, targets)
		}
	}
}

// port returns the site on another port of this Caddy.
func (f *faults) port(port string) string { return "http://" + f.caddy.IP + ":" + port }

// answer is what clients and monitoring see at one moment.
type answer struct {
	target     string // where a 307 leads; "" with 503
	reason     string
	stale      bool
	candidates int // if not 1: 0 stands for 1 where there is a target
}

func (a answer) String() string {
	text := "503 " + a.reason
	if a.target != "" {
		text = "307 " + a.target + " " + a.reason
	}
	if a.stale {
		text += ", stale"
	}
	return text
}

// look asks a site for a redirect and for its health. They are two requests: whole is false where they do not fit
// together, because something changed in between, or where one of them is wrong in itself.
func look(t *testing.T, site string) (a answer, whole bool) {
	const path = "/v1/secret/data/a%2Fb?version=2"
	code, location, _ := get(t, site+path)
	healthCode, _, body := get(t, site+"/vault-redirector-health")
	var h harness.Health
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Errorf("health of %s: %v: %s", site, err, body)
		return a, false
	}
	a = answer{target: strings.TrimSuffix(location, path), reason: h.Reason, stale: h.StaleSince != nil, candidates: h.Candidates}
	if a.candidates == 1 || a.target == "" || a.stale {
		a.candidates = 0
	}
	redirected := code == http.StatusTemporaryRedirect
	whole = (redirected || code == http.StatusServiceUnavailable) && redirected == (location != "") &&
		redirected == h.Healthy && redirected == (healthCode == http.StatusOK) && a.target == h.RedirectTo && redirected == (h.ActiveVault != nil)
	return a, whole
}
