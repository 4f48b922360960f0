// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// Answers of GET /v1/sys/health, as versions of Vault and OpenBao give them.
const (
	vault06Active    = `200 {"initialized":true,"sealed":false,"standby":false,"server_time_utc":1469555798}`
	vault06Standby   = `429 {"initialized":true,"sealed":false,"standby":true,"server_time_utc":1469555798}`
	vault1Active     = `200 {"initialized":true,"sealed":false,"standby":false,"performance_standby":false,"replication_performance_mode":"disabled","replication_dr_mode":"disabled","server_time_utc":1764000000,"version":"1.21.0","enterprise":false,"cluster_name":"vault-cluster-x","cluster_id":"c1","echo_duration_ms":0,"clock_skew_ms":0,"replication_primary_canary_age_ms":0}`
	vault1Standby    = `429 {"initialized":true,"sealed":false,"standby":true,"performance_standby":false,"replication_performance_mode":"disabled","replication_dr_mode":"disabled","server_time_utc":1764000000,"version":"1.21.0","enterprise":false,"cluster_name":"vault-cluster-x","cluster_id":"c1","echo_duration_ms":1,"clock_skew_ms":0}`
	vaultPerformance = `473 {"initialized":true,"sealed":false,"standby":true,"performance_standby":true,"replication_performance_mode":"primary","server_time_utc":1764000000,"version":"1.18.1+ent","enterprise":true,"cluster_id":"c1","last_wal":42,"license":{"state":"autoloaded","expiry_time":"2030-01-01T00:00:00Z","terminated":false}}`
	vaultDR          = `472 {"initialized":true,"sealed":false,"standby":true,"performance_standby":false,"replication_dr_mode":"secondary","version":"1.18.1+ent","cluster_id":"c1"}`
	vaultSealed      = `503 {"initialized":true,"sealed":true,"standby":true,"server_time_utc":1764000000,"version":"1.21.0"}`
	vaultNew         = `501 {"initialized":false,"sealed":true,"standby":true,"server_time_utc":1764000000,"version":"1.21.0"}`
	openBaoActive    = `200 {"initialized":true,"sealed":false,"standby":false,"server_time_utc":1764000000,"version":"2.4.1","cluster_name":"bao-cluster","cluster_id":"c1"}`
	openBaoStandby   = `429 {"initialized":true,"sealed":false,"standby":true,"server_time_utc":1764000000,"version":"2.6.0","cluster_name":"bao-cluster","cluster_id":"c1"}`
	anotherCluster   = `200 {"initialized":true,"sealed":false,"standby":false,"version":"1.21.0","cluster_id":"c2"}`
	vaultQuota       = `429 {"errors":["request path \"sys/health\": rate limit quota exceeded"]}`
	vaultForwarded   = `400 {"errors":["missing x-forwarded-for header and configured to reject when not present"]}`
	balancerDown     = `503 <html><body><h1>503 Service Unavailable</h1>No server is available to handle this request.</body></html>`
)

// registered is an element of /v1/health/service/vault. In it, {a} and {b} are the ports of two nodes.
func registered(node, service, checks string) string {
	return fmt.Sprintf(`{"Node":{"ID":"40e4a748-2192-161a-0510-9bf59fe950b5","Node":%q,"Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","wan":"127.0.0.1"},"Meta":{"consul-network-segment":"","consul-version":"1.22.0"},"CreateIndex":7,"ModifyIndex":8},"Service":{%s},"Checks":[%s]}`,
		node, service, checks)
}

// vaultService is a registration as Vault makes it.
func vaultService(port, tag string, index int) string {
	return fmt.Sprintf(`"ID":"vault:127.0.0.1:%s","Service":"vault","Tags":[%q,"initialized"],"Address":"127.0.0.1","Meta":{"external-source":"vault"},"Port":%s,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{},"PeerName":"","CreateIndex":20,"ModifyIndex":%d`, port, tag, port, index)
}

const (
	serfPassing = `{"Node":"n","CheckID":"serfHealth","Name":"Serf Health Status","Status":"passing","Notes":"","Output":"Agent alive and reachable","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Interval":"","Timeout":"","ExposedPort":0,"Definition":{},"CreateIndex":7,"ModifyIndex":7}`
	serfFailing = `{"Node":"n","CheckID":"serfHealth","Status":"critical","ServiceID":""}`
)

func vaultCheck(port, status string) string {
	return fmt.Sprintf(`{"Node":"n","CheckID":"vault:127.0.0.1:%s:vault-sealed-check","Name":"Vault Sealed Status","Status":%q,"Output":"Vault Unsealed","ServiceID":"vault:127.0.0.1:%s","ServiceName":"vault","ServiceTags":["active"],"Type":"ttl","CreateIndex":20,"ModifyIndex":21}`, port, status, port)
}

// TestFieldAnswers sends answers that people have met through source, engine and redirect. The next oddity is one more row.
func TestFieldAnswers(t *testing.T) {
	usual := registered("vault-0", vaultService("{a}", "active", 9), serfPassing+","+vaultCheck("{a}", "passing")) + "," +
		registered("vault-1", vaultService("{b}", "standby", 5), serfPassing+","+vaultCheck("{b}", "passing"))
	httpCheck := func(status string) string {
		return fmt.Sprintf(`{"CheckID":"api","Status":%q,"ServiceID":"vault","ModifyIndex":5}`, status)
	}
	static := func(port, tag string, index int) string {
		return fmt.Sprintf(`"ID":"vault","Service":"vault","Tags":[%q],"Address":"","Port":%s,"ModifyIndex":%d`, tag, port, index)
	}
	type row struct {
		name     string
		consul   string // the elements; {a} and {b} are ports of nodes
		a, b     string // answers to probes; empty: the node refuses connections
		config   string // more of the handler's, with a comma in front
		want     string // a or b: redirected there, else a reason, or loop
		detail   string // is part of what the state says of it
		several  bool   // there is more than one candidate
		noProbes bool
	}
	rows := []row{
		{name: "Vault 0.6, Consul 1.0", a: vault06Active, b: vault06Standby, want: "a", consul: `{"Node":{"Node":"vault-0","Address":"127.0.0.1"},"Service":{"ID":"vault:127.0.0.1:{a}","Service":"vault","Tags":["active"],"Address":"127.0.0.1","Port":{a}},"Checks":[{"Node":"vault-0","CheckID":"serfHealth","Status":"passing"}]},` +
			`{"Node":{"Node":"vault-1","Address":"127.0.0.1"},"Service":{"ID":"vault:127.0.0.1:{b}","Service":"vault","Tags":["standby"],"Address":"127.0.0.1","Port":{b}},"Checks":null}`},
		{name: "Vault 1.21, Consul 1.22", consul: usual, a: vault1Active, b: vault1Standby, want: "a"},
		{name: "OpenBao 2", consul: usual, a: openBaoActive, b: openBaoStandby, want: "a"},
		{name: "performance standby", consul: usual, a: vault1Active, b: vaultPerformance, want: "a"},
		{name: "disaster recovery secondary", consul: usual, a: vaultDR, b: vault1Active, want: "b"},
		{name: "sealed", consul: usual, a: vaultSealed, b: vault1Standby, want: "unhealthy"},
		{name: "not initialized", consul: usual, a: vaultNew, b: vaultNew, want: "unhealthy"},
		{name: "the tag is late", consul: usual, a: vault1Standby, b: vault1Active, want: "b"},
		{name: "nothing is reached", consul: usual, want: "a"},
		{name: "without probes", consul: usual, want: "a", noProbes: true},

		{name: "A1: durations that are empty", a: vault1Active, b: vault1Standby, want: "a", consul: strings.ReplaceAll(usual, `"Definition":{}`, `"Definition":{"Interval":"","Timeout":"","DeregisterCriticalServiceAfter":""}`)},
		{name: "A1: fields of other types", a: vault1Active, b: vault1Standby, want: "a", consul: strings.NewReplacer(`"Weights":{"Passing":1,"Warning":1}`, `"Weights":"1"`, `"ExposedPort":0`, `"ExposedPort":"0"`, `"Connect":{}`, `"Connect":[]`).Replace(usual)},
		{name: "A2: a quota at the active node", consul: usual, a: vaultQuota, b: vault1Standby, want: "a"},
		{name: "A2: a quota at all nodes", consul: usual, a: vaultQuota, b: vaultQuota, want: "a"},
		{name: "A2: a listener that rejects what has no header", consul: usual, a: vaultForwarded, b: vaultForwarded, want: "a"},
		{name: "A2: a balancer without servers", consul: usual, a: balancerDown, b: vault1Standby, want: "unhealthy"},
		{name: "A3: named ports", a: vault1Active, want: "a", consul: registered("vault-0", `"ID":"vault","Service":"vault","Tags":["active"],"Address":"127.0.0.1","Port":0,"Ports":[{"Name":"cluster","Port":8201,"Default":false},{"Name":"api","Port":{a},"Default":true}]`, serfPassing)},
		{name: "A3: named ports, none is the default", want: "bad_address", detail: "set the option port", consul: registered("vault-0", `"ID":"vault","Service":"vault","Tags":["active"],"Address":"127.0.0.1","Port":0,"Ports":[{"Name":"api","Port":{a}}]`, serfPassing)},

		{name: "B1: one Vault on two Consul nodes", a: vault1Active, b: vault1Standby, want: "a", consul: registered("client-1", vaultService("{a}", "active", 9), serfFailing+","+vaultCheck("{a}", "critical")) + "," +
			registered("client-2", vaultService("{a}", "active", 7), serfPassing+","+vaultCheck("{a}", "passing")) + "," + registered("vault-1", vaultService("{b}", "standby", 5), serfPassing)},
		{name: "B1: the same without probes", noProbes: true, want: "a", consul: registered("client-1", vaultService("{a}", "active", 9), serfFailing) + "," + registered("client-2", vaultService("{a}", "active", 7), serfPassing)},
		{name: "B2: the balancer's address for all", a: vault1Active, want: "a", detail: "api_addr has to be each node's own", consul: registered("vault-0", vaultService("{a}", "standby", 9), serfPassing) + "," + registered("vault-1", vaultService("{a}", "active", 5), serfPassing) + "," + registered("vault-2", vaultService("{a}", "standby", 6), serfPassing)},
		{name: "B3: two say that they are active, one is marked", consul: strings.ReplaceAll(strings.ReplaceAll(usual, `"ModifyIndex":9`, `"ModifyIndex":7`), `"ModifyIndex":5`, `"ModifyIndex":9`), a: vault1Active, b: vault1Active, want: "a", several: true},
		{name: "B3: two clusters under one name", consul: usual, a: vault1Active, b: anotherCluster, want: "a", several: true},
		{name: "B4: a static tag on every node, HTTP checks", noProbes: true, want: "a", several: true, consul: registered("vault-0", static("{a}", "active", 5), serfPassing+","+httpCheck("passing")) + "," + registered("vault-1", static("{b}", "active", 9), serfPassing+","+httpCheck("warning"))},
		{name: "B4: a tag that is stuck on two nodes", noProbes: true, want: "b", several: true, consul: registered("vault-0", static("{a}", "active", 5), serfPassing) + "," + registered("vault-1", static("{b}", "active", 9), serfPassing)},
		{name: "B4: the same, and the nodes say it", a: vault1Active, b: vault1Standby, want: "a", consul: registered("vault-0", static("{a}", "active", 5), serfPassing) + "," + registered("vault-1", static("{b}", "active", 9), serfPassing)},
		{name: "C1: api_addr has no port", noProbes: true, want: "a", detail: "api_addr has no port: registered as vault::", consul: registered("localhost", `"ID":"vault::{a}","Service":"vault","Tags":["active"],"Address":"","Port":{a}`, serfPassing)},
		{name: "C1: and nothing answers there", want: "a", detail: "api_addr has no port: registered as vault::", consul: registered("localhost", `"ID":"vault::{a}","Service":"vault","Tags":["active"],"Address":"","Port":{a}`, serfPassing)},
		{name: "C2: no checks and no tags", noProbes: true, want: "no_active", detail: "nothing marks an active node: the instances have no checks", consul: registered("k8s-sync", `"ID":"vault-x","Service":"vault","Tags":null,"Address":"127.0.0.1","Port":{a}`, "")},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a, b := answering(t, row.a), answering(t, row.b)
			consul := standin.RunConsul(t)
			body := "[" + strings.NewReplacer("{a}", a, "{b}", b).Replace(row.consul) + "]"
			consul.Handle(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/v1/health/service/") {
					return false
				}
				if r.URL.Query().Get("index") != "" {
					select {
					case <-r.Context().Done():
					case <-t.Context().Done():
					}
					return true
				}
				w.Header().Set("X-Consul-Index", "10")
				_, _ = io.WriteString(w, body)
				return true
			})
			probe := "auto"
			if row.noProbes {
				probe = "off"
			}
			h := provision(t, consul, fmt.Sprintf(`, "scheme": "http", "hold": 0, "redirect_to": "service_address", "probe": {"mode": %q} %s`, probe, row.config))
			port := map[string]string{"a": a, "b": b}[row.want]
			until(t, h, row.want, func(s *engine.State) bool {
				if port == "" {
					return !s.Active() && s.ReasonAt(time.Now()) == discovery.Reason(row.want)
				}
				return s.Active() && s.Target.URL == "http://127.0.0.1:"+port && (s.Candidates > 1) == row.several
			})
			if s := h.redirector.View.State(); !strings.Contains(s.Detail, row.detail) {
				t.Errorf("detail %q, want %q", s.Detail, row.detail)
			}
			resp := ask(t, h, "GET", "/v1/secret/x")
			if want := "http://127.0.0.1:" + port + "/v1/secret/x"; port != "" && (resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") != want) {
				t.Errorf("status %d, Location %q, want %s", resp.StatusCode, resp.Header.Get("Location"), want)
			}
			if port == "" && resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
}

// answering returns the port of a node that answers probes by a status and a body, or one that is closed.
func answering(t *testing.T, answer string) (port string) {
	t.Helper()
	code, body, _ := strings.Cut(cmp.Or(answer, "0 "), " ")
	status := 0
	if _, err := fmt.Sscan(code, &status); err != nil {
		t.Fatal(err)
	}
	if status == 0 {
		return harness.Port(t)
	}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(node.Close)
	_, port, err := net.SplitHostPort(node.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
