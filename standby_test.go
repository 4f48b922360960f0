// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

func TestStandbyCaddyfile(t *testing.T) {
	got, err := adaptDirective("vault_redirect {\n\tstandby method GET LIST\n\tstandby path /v1/transit/encrypt/* /v1/transit/decrypt/*\n}")
	want := `{"discovery":{"source":"consul"},"handler":"vault_redirect","standby":{"match":[{"method":["GET","LIST"]},` +
		`{"path":["/v1/transit/encrypt/*","/v1/transit/decrypt/*"]}]}}`
	if err != nil || got != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
	for text, want := range map[string][]string{
		"standby":                                       {"Caddyfile:3", "a request matcher is missing", "method GET LIST"},
		"standby nonsense":                              {"Caddyfile:3", `"nonsense" is not one of Caddy's request matchers`},
		"standby method":                                {"Caddyfile:3", "standby: method: arguments are missing: it would match nothing"},
		"standby method GET\nstandby path":              {"Caddyfile:4", "standby: path: arguments are missing: it would match nothing"},
		"standby method GET\nstandby method GET":        {"Caddyfile:4", "standby: this matcher method is given twice"},
		"standby path /x {\nmethod GET\n}":              {"Caddyfile:4", "blocks are not supported"},
		"probe off\nstandby method GET":                 {"standby needs probes", "remove probe off"},
		"standby method GET\nproxy all":                 {"proxy all proxies every request", "remove standby"},
		"proxy path /v1/kv/*\nstandby path /v1/kv/*":    {"standby and proxy have the same matcher", "remove it from one"},
		"proxy method PUT\nproxy method PUT\nname rest": {"Caddyfile:4", "proxy: this matcher method is given twice"},
	} {
		_, err := adaptDirective("vault_redirect {\n" + text + "\n}")
		wantError(t, err, append(want, "Caddyfile:")...)
	}
}

func TestStandbyMistakesInJSON(t *testing.T) {
	for config, want := range map[string]string{
		`"standby": {}`:                                             "match: a request matcher is missing",
		`"standby": {"match": []}`:                                  "match: a request matcher is missing",
		`"standby": {"match": [{"nonsense": {}}]}`:                  "http.matchers.nonsense",
		`"standby": {"match": [{"method": []}]}`:                    "match: method in set 1 is empty: it would match nothing",
		`"standby": {"match": [{"method": ["GET"]}, {"path": []}]}`: "in set 2 is empty: it would match nothing",
		`"standby": {"match": [{"method": ["GET"], "path": ["/a"]}, {"path": ["/b"]}, {"path": ["/a"], "method":["GET"]}]}`: "match: sets 1 and 3 are the same",
		`"standby": {"match": [{"path": ["/v1/sys/health"]}]}`:                                                              "set 1 would match nothing: the active node gets all requests for /v1/sys/health",
		`"standby": {"match": [{"path": ["/ui/*", "/v1/team/SYS/x*"]}]}`:                                                    "set 1 would match nothing",
		`"standby": {"match": [{"method": ["GET"]}]}, "probe": {"mode": "off"}`:                                             "standby needs probes",
		`"standby": {"match": [{"method": ["GET"]}]}, "proxy": {"all": true}`:                                               "proxy all proxies every request",
		`"standby": {"match": [{"method": ["GET"]}]}, "proxy": {"match": [{"method": ["GET"]}]}`:                            "standby and proxy have the same matcher",
	} {
		ctx, cancel := newContext(t)
		_, err := ctx.LoadModuleByID(handlerID, fmt.Appendf(nil, `{%s}`, config))
		cancel()
		wantError(t, err, want, "standby")
	}
	for _, config := range []string{
		`{"match": [{"method": ["GET", "LIST"]}, {"path": ["/v1/*", "/v1/sys/x"]}]}`,
		`{"match": [{"path": ["*"]}, {"path": ["/v*"]}, {"path": ["/v1/sys*"]}, {"path": ["/{env.X}/sys/a"]}]}`,
		`{"match": [{}]}`,
	} {
		ctx, cancel := newContext(t)
		if _, err := ctx.LoadModuleByID(handlerID, fmt.Appendf(nil, `{"standby": %s}`, config)); err != nil {
			t.Errorf("%s: %v", strings.TrimSpace(config), err)
		}
		cancel()
	}
}

// readers are clients that read and write with tokens of their own, of a scripted cluster whose standbys serve reads.
type readers struct {
	t *testing.T
	*standin.Cluster
	h      *Handler
	tokens []string
}

// newReaders returns 60 of them, once both standbys are fit. One of these is a performance standby. more begins with a comma.
func newReaders(t *testing.T, more string) *readers {
	t.Helper()
	c := standin.RunCluster(t, 3)
	for _, v := range c.Vaults {
		v.SetServesReads(true)
	}
	c.Vaults[2].SetHealth(473)
	r := &readers{t: t, Cluster: c}
	for i := range 60 {
		r.tokens = append(r.tokens, fmt.Sprint("hvs.", i))
	}
	r.h = provision(t, c.Consul, `, "scheme": "http", "probe": {"interval": "100ms"}, "standby": {"match": [{"method": ["GET", "LIST"]}, {"path": ["/v1/transit/encrypt/*"]}]}`+more)
	r.until(2)
	return r
}

// until waits until so many standbys are fit.
func (r *readers) until(n int) {
	r.t.Helper()
	until(r.t, r.h, fmt.Sprintf("%d standbys are fit", n), func(s *engine.State) bool { return len(s.Standbys()) == n })
}

// ask sends a request with a token, and returns the node to which it is redirected.
func (r *readers) ask(method, target, token string) *standin.Vault {
	r.t.Helper()
	location := r.askFrom(local, method, target, token).Header.Get("Location")
	for _, v := range r.Vaults {
		if location == v.URL()+target {
			return v
		}
	}
	r.t.Fatalf("%s %s leads to %q", method, target, location)
	return nil
}

// askFrom sends a request of a client, as Caddy's server gives it to the handler.
func (r *readers) askFrom(client, method, target, token string) *http.Response {
	r.t.Helper()
	req := httptest.NewRequest(method, target, nil)
	req.RemoteAddr = client
	req.Header.Set("X-Vault-Token", token)
	return serve(r.t, r.h, caddyhttp.PrepareRequest(req, caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server)))
}

// nodes returns the node of each token, in order.
func (r *readers) nodes() (list []*standin.Vault) {
	r.t.Helper()
	for _, token := range r.tokens {
		list = append(list, r.ask("GET", "/v1/secret/data/x", token))
	}
	return list
}

// TestStandbySpreadsReads: reads go to both standbys, each client's to one of them, and all else goes to the active node.
func TestStandbySpreadsReads(t *testing.T) {
	r := newReaders(t, `, "proxy": {"match": [{"path": ["/v1/secret/proxied"]}]}`)
	nodes := r.nodes()
	count := map[*standin.Vault]int{}
	for _, v := range nodes {
		count[v]++
	}
	t.Logf("of 60 tokens, %d and %d", count[r.Vaults[1]], count[r.Vaults[2]])
	if count[r.Vaults[0]] > 0 || count[r.Vaults[1]] < 15 || count[r.Vaults[2]] < 15 {
		t.Errorf("the active node gets %d, the standbys get %d and %d", count[r.Vaults[0]], count[r.Vaults[1]], count[r.Vaults[2]])
	}
	before := r.h.redirector.View.Stats().Answers.Count(engine.SentToStandby)
	for i, token := range r.tokens {
		for method, target := range map[string]string{"LIST": "/v1/secret/metadata?x=%2F", "GET": "/v1/ns/secret/data/sys.old", "POST": "/v1/transit/encrypt/key"} {
			if got := r.ask(method, target, token); got != nodes[i] {
				t.Errorf("%s %s leads to %s, another node than before, %s", method, target, got.Name(), nodes[i].Name())
			}
		}
		for _, line := range []string{
			"POST /v1/secret/data/x", "PUT /v1/secret/data/x", "DELETE /v1/secret/data/x", "PATCH /v1/secret/data/x",
			"GET /v1/sys/internal/ui/mounts", "GET /v1/ns/sys/mounts", "LIST /v1/SYS/x", "GET /v1/%73ys/x", "GET /v1//sys/x", "GET /v1/sys%2Fx", "POST /v1/transit/encrypt/sys",
			"GET /ui", "GET /ui/vault/secrets", "GET /", "GET //v1/secret",
		} {
			method, target, _ := strings.Cut(line, " ")
			if got := r.ask(method, target, token); got != r.Vaults[0] {
				t.Errorf("%s leads to %s", line, got.Name())
			}
		}
	}
	if got := r.h.redirector.View.Stats().Answers.Count(engine.SentToStandby) - before; got != 180 {
		t.Errorf("%d requests count as sent to standbys, want 180", got)
	}
	if resp := r.askFrom(local, "GET", defaultHealthPath, "t"); resp.StatusCode != 200 {
		t.Errorf("health: status %d", resp.StatusCode)
	}
	// The addresses are of loopback, which mean another machine to a client on another one; the active node's is no better.
	if resp := r.askFrom(remote, "GET", "/v1/secret/data/x", "t"); resp.StatusCode != 503 {
		t.Errorf("a client on another machine: status %d, Location %q", resp.StatusCode, resp.Header.Get("Location"))
	}
}

// TestStandbyIsNamed: placeholders and the access log name the standby that was chosen, and no token.
func TestStandbyIsNamed(t *testing.T) {
	c := newTestCaddy(t)
	cluster := standin.RunCluster(t, 2)
	cluster.Vaults[1].SetServesReads(true)
	log, options := newAccessLog(c)
	c.mustLoadCaddyfile(options, `
	log
	header >X-Node "{http.vault_redirect.node}|{http.vault_redirect.url}|{http.vault_redirect.result}"
	vault_redirect `+cluster.Consul.Addr()+` {
		scheme http
		standby method GET
	}`)
	c.await("a standby gets reads", func() bool {
		return slices.ContainsFunc(c.status().Clusters[0].Nodes, func(n status.Node) bool { return n.Reads })
	})
	read, write := cluster.Vaults[1], cluster.Vaults[0]
	for method, want := range map[string][3]string{"GET": {"vault-1", read.URL(), "standby"}, "PUT": {"vault-0", write.URL(), "redirected"}} {
		resp, _ := c.do(method, "http://"+c.site+"/v1/"+method, "Authorization", "Bearer planted")
		if got := resp.Header.Get("X-Node"); got != strings.Join(want[:], "|") {
			t.Errorf("%s: %q, want %q", method, got, want)
		}
		if entry := log.await("/v1/" + method); entry["vault_node"] != want[0] || entry["vault_result"] != want[2] {
			t.Errorf("%s: fields %v, %v", method, entry["vault_node"], entry["vault_result"])
		}
	}
	_, text := c.do("GET", "http://admin/vault_redirect/status")
	_, metrics := c.do("GET", "http://admin/metrics")
	if strings.Contains(text+metrics, "planted") || !strings.Contains(metrics, `requests_total{cluster="vault",result="standby"} 1`) {
		t.Errorf("status %s", text)
	}
}

// TestStandbyFaults: a standby that is not fit gets nothing, only its own clients move, and they come back with it.
func TestStandbyFaults(t *testing.T) {
	r := newReaders(t, "")
	registered := func(checks ...standin.Opt) (list []*api.ServiceEntry) {
		for i, v := range r.Vaults {
			host, port := hostPortOf(t, v.Addr())
			opts := []standin.Opt{standin.Address(host), standin.Port(port)}
			switch {
			case i == 0:
				list = append(list, standin.Active(v.Name(), opts...))
			case i == 1:
				list = append(list, standin.Standby(v.Name(), append(opts, checks...)...))
			default:
				list = append(list, standin.Standby(v.Name(), opts...))
			}
		}
		return list
	}
	r.Consul.Set("vault", registered()...)
	before := r.nodes()
	ill := r.Vaults[1]
	for _, row := range []struct {
		name       string
		begin, end func()
	}{
		{"sealed", func() { ill.SetSealed(true) }, func() { ill.SetSealed(false) }},
		{"dead", ill.Kill, func() {
			if err := ill.Start(); err != nil {
				t.Fatal(err)
			}
		}},
		{"silent", func() { ill.Hang(true) }, func() { ill.Hang(false) }},
		{"in maintenance", func() { r.Consul.Set("vault", registered(standin.Check("_service_maintenance:vault", "critical"))...) }, func() { r.Consul.Set("vault", registered()...) }},
		{"critical", func() { r.Consul.Set("vault", registered(standin.Check("service:vault", "critical"))...) }, func() { r.Consul.Set("vault", registered()...) }},
		{"of another cluster", func() { ill.SetClusterID("other") }, func() { ill.SetClusterID("stand-in") }},
		{"a disaster recovery secondary", func() { ill.SetHealth(472) }, func() { ill.SetHealth(0) }},
		{"without the active node", func() { ill.SetHealth(474) }, func() { ill.SetHealth(0) }},
	} {
		began := time.Now()
		row.begin()
		r.until(1)
		t.Logf("%s: noticed after %s", row.name, time.Since(began).Round(time.Millisecond))
		for i, now := range r.nodes() {
			if now != r.Vaults[2] || before[i] != ill && now != before[i] {
				t.Errorf("%s: %s leads to %s, before to %s", row.name, r.tokens[i], now.Name(), before[i].Name())
			}
		}
		row.end()
		r.until(2)
		if !slices.Equal(r.nodes(), before) {
			t.Errorf("%s: the clients have not come back", row.name)
		}
	}
	// With none that is fit, the active node gets all reads.
	ill.SetSealed(true)
	r.Vaults[2].SetSealed(true)
	r.Vaults[2].SetHealth(0)
	r.until(0)
	for i, now := range r.nodes() {
		if now != r.Vaults[0] {
			t.Errorf("without a standby, %s leads to %s", r.tokens[i], now.Name())
		}
	}
}

// TestStandbyWaits: while no node is active, reads wait as all requests do, though standbys could answer them.
func TestStandbyWaits(t *testing.T) {
	r := newReaders(t, `, "hold": "1m"`)
	r.Vaults[0].SetSealed(true)
	until(t, r.h, "no node is active", waits)
	got := make(chan *standin.Vault)
	go func() { got <- r.ask("GET", "/v1/secret/data/x", "t") }()
	wait.Until(t, "the read waits", func() bool { return r.h.redirector.Queue.Waiting() == 1 })
	r.Vaults[0].SetSealed(false)
	if v := <-got; v == nil {
		t.Error("the read got no node")
	}
}

// TestStandbysThatForward: on a cluster of Vault, whose standbys forward reads, all requests go to the active node.
func TestStandbysThatForward(t *testing.T) {
	r := &readers{t: t, Cluster: standin.RunCluster(t, 3), tokens: []string{"a", "b", "c", "d", "e", "f"}}
	r.h = provision(t, r.Consul, `, "scheme": "http", "probe": {"interval": "100ms"}, "standby": {"match": [{"method": ["GET"]}]}`)
	until(t, r.h, "the standbys have been asked", func(s *engine.State) bool {
		return s.Active() && !slices.ContainsFunc(s.NodeStatuses(), func(n engine.NodeStatus) bool {
			return !n.Elected && n.WhyNoReads != "forwards reads to the active node"
		})
	})
	for _, v := range r.nodes() {
		if v != r.Vaults[0] {
			t.Errorf("a read leads to %s", v.Name())
		}
	}
}

// TestStandbyOnTheFastLane: the lane sends each client to the same standby as Caddy's server does, with the same bytes.
func TestStandbyOnTheFastLane(t *testing.T) {
	c := standin.RunCluster(t, 3)
	for _, v := range c.Vaults {
		v.SetServesReads(true)
	}
	lane := kind{name: "standby", more: `, "scheme": "http", "probe": {"interval": "10s"}, "standby": {"match": [{"method": ["GET", "LIST"]}, {"path": ["/v1/transit/encrypt/*"]}]}`}
	p := newPairsOf(t, c.Consul, []kind{lane})
	wait.Until(t, "two standbys", func() bool { return len(registry.Clusters()[0].View.State().Standbys()) == 2 })
	stats := registry.Clusters()[0].View.Stats()
	count := map[string]int{}
	for i := range 40 {
		for _, header := range []string{
			fmt.Sprintf("X-Vault-Token: t%d\r\n", i), fmt.Sprintf("Authorization: Bearer b%d\r\n", i), fmt.Sprintf("x-vault-token: t%d\r\nAuthorization: Bearer t%d\r\n", i, i+1),
			fmt.Sprintf("X-Vault-Token: \r\nAuthorization: Bearer t%d\r\n", i), fmt.Sprintf("X-Vault-Token: t%d\r\nX-Vault-Token: t%d\r\n", i, i+1),
			fmt.Sprintf("X-Forwarded-For: 127.0.0.%d\r\n", i+1), "",
		} {
			var text []byte
			for _, line := range []string{"GET /v1/secret/data/x", "LIST /v1/secret/metadata", "POST /v1/transit/encrypt/k", "POST /v1/secret/data/x", "GET /v1/sys/mounts", "GET /v1/%73ys/mounts", "GET /ui"} {
				text = fmt.Appendf(text, "%s HTTP/1.1\r\nHost: vault.example.com\r\n%sContent-Length: 0\r\n\r\n", line, header)
			}
			before := stats.Answers.Count(engine.SentToStandby) + stats.Answers.Count(engine.Redirected)
			answer := string(p.compare(t, lane, [][]byte{text}))
			if got := stats.Answers.Count(engine.SentToStandby) + stats.Answers.Count(engine.Redirected) - before; got != 14 {
				t.Errorf("%q: %d requests were counted", header, got)
			}
			if len(header) > 0 && strings.HasPrefix(header, "X-Vault-Token: t") && !strings.Contains(header, "\r\nX") {
				for n, v := range c.Vaults {
					count[fmt.Sprint(n)] += strings.Count(answer, "Location: "+v.URL()+"/")
				}
			}
		}
	}
	if count["0"] != 160 || count["1"]+count["2"] != 120 || count["1"] < 30 || count["2"] < 30 {
		t.Errorf("requests by node: %v", count)
	}
	// All of that is answered on the lane.
	conn, end := p.dial(t, lane, true)
	defer end()
	if _, err := io.WriteString(conn, "GET /v1/secret/data/x HTTP/1.1\r\nHost: vault.example.com\r\nX-Vault-Token: t\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n := onLane(); n != 1 {
		t.Errorf("%d connections on the lane", n)
	}
}

// TestCheckOfReads: check says of each node whether it gets reads, why not, and what matchers let writes through.
func TestCheckOfReads(t *testing.T) {
	c := standIns(t)
	file := func(matchers string) string {
		return configFile(t, c.Consul.Addr(), "http://127.0.0.1:18200 {\nbind 127.0.0.1\nvault_redirect {consul} {\nscheme http\n"+matchers+"\n}\n}\n")
	}
	list, code := findingsOf(t, "--config", file("standby method GET LIST"))
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, v := range c.Vaults[1:] {
		wantFinding(t, list, "reads", doctor.OK, v.Name(), "gets no reads: forwards reads to the active node", "")
	}
	wantFinding(t, list, "reads", doctor.Warning, "vault", "the option standby does nothing", "remove it")
	for _, v := range c.Vaults {
		v.SetServesReads(true)
	}
	c.Vaults[2].SetClusterID("other")
	list, _ = findingsOf(t, "--config", file("standby method GET\nstandby path /v1/secret/* /v1/database/creds/*\nstandby expression \"method('GET') && path('/v1/a/*')\""))
	wantFinding(t, list, "reads", doctor.OK, "vault-1", "serves reads", "")
	wantFinding(t, list, "reads", doctor.Warning, "vault-2", "gets no reads: of another Vault cluster", "")
	wantFinding(t, list, "reads", doctor.Warning, "vault", "each request is a write: /v1/database/creds/*", "standby method GET LIST")
	for _, args := range [][]string{{"--config", file("")}, {c.Consul.Addr(), "--scheme", "http"}} {
		list, _ = findingsOf(t, args...)
		if slices.ContainsFunc(list, func(f doctor.Finding) bool { return f.Check == "reads" }) {
			t.Errorf("without the option: %s", dump(list))
		}
	}
}
