// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// slowAtFirst delays Consul's answers to queries that do not wait, as over a long distance.
func slowAtFirst(consul *standin.Consul) {
	consul.Handle(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("index") == "" {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		return false
	})
}

// underLoad is a Caddy that is reloaded while it has traffic. Three of its handlers ask one Consul, the fourth another, now
// this one and now that.
type underLoad struct {
	*lifecycle
	steady  *standin.Consul
	others  []*standin.Consul
	answers []string // to requests for the fourth handler, by the index in others
	current int      // of others
	traffic *traffic
	kinds   map[string]int // how many reloads there have been of each
}

func runUnderLoad(t *testing.T) *underLoad {
	t.Helper()
	u := &underLoad{
		steady: standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1"))),
		others: []*standin.Consul{
			standin.RunConsul(t, standin.Active("vault-2", standin.Address("127.10.0.2"))),
			standin.RunConsul(t, standin.Active("vault-3", standin.Address("127.10.0.3"))),
		},
		answers: []string{"307 https://127.10.0.2:8200/v1/d/x", "307 https://127.10.0.3:8200/v1/d/x"},
		kinds:   map[string]int{},
	}
	for _, consul := range u.others {
		slowAtFirst(consul)
	}
	u.lifecycle = runLifecycle(t, u.routes(0, u.others[u.current], "")...)
	u.traffic = &traffic{site: u.site, wanted: map[string][]string{
		"/v1/a/x": {"307 https://127.10.0.1:8200/v1/a/x"},
		"/v1/b/x": {"307 https://vault-1:8200/v1/b/x"},
		"/v1/c/x": {"307 http://127.10.0.1:8200/v1/c/x"},
		"/v1/d/x": u.answers,
	}}
	return u
}

// routes returns the routes of the i-th config, which is another than the one before. options are those of the fourth
// handler.
func (u *underLoad) routes(i int, other *standin.Consul, options string) []string {
	retry := fmt.Sprintf(`, "retry_after": "%ds"`, 1+i%100)
	return []string{
		route("/v1/a/*", lifecycleHandler(u.steady, retry)),
		route("/v1/b/*", lifecycleHandler(u.steady, `, "redirect_to": "node_name"`+retry)),
		route("/v1/c/*", lifecycleHandler(u.steady, `, "scheme": "http"`+retry)),
		route("/v1/d/*", lifecycleHandler(other, options)),
	}
}

// quiet waits until what the traffic leaves behind is gone, and checks what Consul sees. It returns how many goroutines
// there are, and how many of them are ours.
func (u *underLoad) quiet() (total, ours int) {
	u.t.Helper()
	for consul, want := range map[*standin.Consul]int{u.steady: 1, u.others[u.current]: 1, u.others[1-u.current]: 0} {
		if err := consul.Await(timeout(u.t), func() bool { return consul.Open() == want && consul.Connections() == want }); err != nil {
			u.t.Fatalf("%d queries open and %d connections at a Consul, want %d: %v", consul.Open(), consul.Connections(), want, err)
		}
	}
	g := u.goroutines()
	return g.Total, g.Ours()
}

// good is the i-th reload, which does not fail.
func (u *underLoad) good(i int, kind string) {
	u.t.Helper()
	u.kinds[kind]++
	if err := u.Load(u.t.Context(), lifecycleConfig("", u.routes(i, u.others[u.current], "")...)); err != nil {
		u.t.Fatalf("reload %d, %s: %v", i, kind, err)
	}
}

// bad is the i-th reload, with another app or an option of the fourth handler that makes it fail.
func (u *underLoad) bad(i int, kind, want, apps, options string) {
	u.t.Helper()
	u.kinds[kind]++
	all := u.routes(i, u.others[1-u.current], options)
	if apps != "" {
		all = append([]string{route("/none", `{"handler": "test_gate", "app": "test_failing"}`)}, all...)
	}
	err := u.Load(u.t.Context(), lifecycleConfig(apps, all...))
	if err == nil || !strings.Contains(err.Error(), want) {
		u.t.Fatalf("reload %d, %s: error %v, want %q", i, kind, err, want)
	}
}

// reload is the i-th reload: with the same discovery or another, or one that fails.
func (u *underLoad) reload(i int) {
	u.t.Helper()
	switch i % 10 {
	case 0, 2, 4, 6:
		u.good(i, "same discovery")
	case 1, 5:
		u.current = 1 - u.current
		u.good(i, "other discovery")
	case 3:
		u.bad(i, "fails in Provision", "nobody", "", `, "redirect_to": "{nobody}.example.com"`)
	case 7:
		u.bad(i, "fails in Validate", "health_path", "", `, "health_path": "up"`)
	case 8:
		step := []string{"provision", "validate"}[i/10%2]
		u.bad(i, "fails in another app", "as told, in "+step, `"test_failing": {"in": "`+step+`"},`, "")
	case 9:
		u.bad(i, "fails when another app starts", "as told, in start", `"test_failing": {"in": "start", "ask": `+quote(u.site+ownPath)+`},`, "")
	}
}

// TestReloadsUnderLoad goes through 200 reloads: with the same discovery and another, and failing ones.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	u := runUnderLoad(t)
	if err := u.Load(t.Context(), lifecycleConfig("", u.routes(1, u.others[u.current], "")...)); err != nil {
		t.Fatal(err)
	}
	total, ours := u.quiet()
	if ours < 2 {
		t.Errorf("%d goroutines are ours, want a watcher for each of two discoveries at least", ours)
	}

	stop := u.traffic.start(t, 4)
	fresh := &http.Transport{DisableKeepAlives: true}
	began := time.Now()
	for i := range 200 {
		u.reload(i)
		if got, err := u.traffic.ask(fresh, "/v1/d/x"); err != nil || got != u.answers[u.current] {
			t.Fatalf("after reload %d: %s, %v, want %s", i, got, err, u.answers[u.current])
		}
	}
	took := time.Since(began)
	stop()
	u.traffic.settle(t, u.lifecycle)
	t.Logf("200 reloads in %s: %v", took.Round(time.Millisecond), u.kinds)

	if n := u.steady.Queries(); n != 2 {
		t.Errorf("%d queries at the Consul that was used all along, want 2: the first and the one that waits", n)
	}
	if _, now := u.quiet(); now > ours {
		t.Errorf("%d goroutines are ours, after the first reload it was %d", now, ours)
	}
	const slack = 3 // of Caddy's own, which come and go
	now := 0
	u.await("goroutines are as after the first reload", func() bool { now, _ = u.quiet(); return now <= total+slack })
	t.Logf("%d goroutines, %d after the first reload", now, total)
}
