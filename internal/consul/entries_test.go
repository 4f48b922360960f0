// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package consul

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// elect returns what the engine makes of nodes.
func elect(t *testing.T, g *standin.Given, redirectTo string) *engine.State {
	t.Helper()
	addressing, err := engine.NewAddressing("https", redirectTo, 0)
	if err != nil {
		t.Fatal(err)
	}
	log := zap.NewNop()
	view, err := engine.NewPool().Acquire(g, engine.Config{Addressing: addressing}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Release(log)
	view.Start()
	for {
		changed := view.Changed()
		if s := view.State(); s.Phase().Situation != engine.Starting {
			return s
		}
		<-changed
	}
}

// FuzzConsulAnswer takes any bytes for the body of Consul's answer.
func FuzzConsulAnswer(f *testing.F) {
	instance := `{"Node":{"Node":"%s","Address":"127.10.0.1","TaggedAddresses":{"wan":"x"}},"Service":{"ID":"v","Tags":["active"],"Address":"%s","Port":8200,
		"TaggedAddresses":{"wan":{"Address":"w","Port":1}},"ModifyIndex":7},"Checks":[{"CheckID":"serfHealth","Status":"%s"},{"CheckID":"service:vault","ServiceID":"v","Status":"passing"}]}`
	for _, body := range []string{
		"", "null", "[]", "{}", "[null]", `[{"Node":null}]`, `[{"Node":{"Node":"a"},"Service":{},"Checks":[null]}]`,
		"[" + fmt.Sprintf(instance, "a", "", "passing") + "," + fmt.Sprintf(instance, "b", "evil.com/", "warning") + "]",
		"[" + fmt.Sprintf(instance, "a", "::1", "critical") + "," + fmt.Sprintf(instance, "a", "0.0.0.0", "") + "]", strings.Repeat("[", 1000),
	} {
		f.Add([]byte(body), uint8(len(body)))
	}
	f.Fuzz(func(t *testing.T, body []byte, mode uint8) {
		var entries []*entry
		if json.Unmarshal(body, &entries) != nil {
			return
		}
		nodes, err := nodesOf(entries)
		if err != nil {
			return
		}
		if len(entries) != len(nodes) {
			t.Fatalf("%d entries became %d nodes", len(entries), len(nodes))
		}
		own := 0 // checks of instances: counted up in Consul's answer, down in the nodes
		for i := range nodes {
			for _, c := range entries[i].Checks {
				if c.ServiceID != "" {
					own++
				}
			}
			for _, c := range nodes[i].Checks {
				if c.Service {
					own--
				}
			}
		}
		if own != 0 {
			t.Fatalf("checks of instances and of nodes are mixed up: %+v", nodes)
		}
		by := []string{discovery.ByAuto, discovery.ByTag, discovery.ByCheck}[mode%3]
		to := []string{"auto", "node_name", "node_address", "service_address", "tagged:wan", "{node}.{meta.a}"}[int(mode>>2)%6]
		s := elect(t, &standin.Given{Nodes: nodes, By: discovery.Selection{Mode: by, Tag: "active", Service: "vault"}}, to)
		if s.Active() != (s.ReasonAt(time.Now()) == discovery.ReasonOK) {
			t.Fatalf("state %+v", s)
		}
		if !s.Active() {
			return
		}
		u, err := url.Parse(s.Target.URL)
		if err != nil || u.Scheme != "https" || u.Host != s.Target.Authority || u.Port() == "" || u.User != nil || u.Path != "" {
			t.Fatalf("%q: %v", s.Target.URL, err)
		}
		var known []*api.ServiceEntry // Consul's own client says what the checks amount to
		if json.Unmarshal(body, &known) != nil {
			return
		}
		for _, entry := range known {
			if status := entry.Checks.AggregatedStatus(); entry.Node.Node == s.Node.Name && entry.Service.ID == s.Node.ID && (status == api.HealthPassing || status == api.HealthWarning) {
				return
			}
		}
		t.Fatalf("elected %s, which is not eligible", s.Node.Identity())
	})
}

// Fields that are not used may hold anything; an error names a needed one of another type.
func TestOnlyNeededFieldsAreRead(t *testing.T) {
	const node = `"Node":{"Node":"a","Address":"127.10.0.1","Datacenter":"dc1"}`
	for _, row := range []struct{ name, body, wrong string }{
		{"a definition of a check with empty durations", `[{` + node + `,"Service":{"ID":"v","Port":8200},"Checks":[{"CheckID":"c","Status":"passing",
			"Definition":{"Interval":"","Timeout":"","DeregisterCriticalServiceAfter":""}}]}]`, ""},
		{"weights, proxies and locality of other types", `[{` + node + `,"Service":{"ID":"v","Port":8200,"Weights":"1","Proxy":[],"Connect":7,"Locality":true,"EnableTagOverride":"no"},"Checks":[]}]`, ""},
		{"indexes of the node as text", `[{"Node":{"Node":"a","CreateIndex":"1","ModifyIndex":"2","Partition":3}, "Service":{"ID":"v","Port":8200},"Checks":null}]`, ""},
		{"output of a check that is no text", `[{` + node + `,"Service":{"ID":"v","Port":8200},"Checks":[{"CheckID":"c","Status":"passing","Output":{"a":1},"Interval":10,"ExposedPort":"x"}]}]`, ""},
		{"no list", `{"Node":{}}`, "array"},
		{"a port as text", `[{` + node + `,"Service":{"ID":"v","Port":"8200"}}]`, "Service.Port"},
		{"a status that is a number", `[{` + node + `,"Service":{"ID":"v","Port":8200},"Checks":[{"CheckID":"c","Status":1}]}]`, "Checks.Status"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var entries []*entry
			err := json.Unmarshal([]byte(row.body), &entries)
			if row.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), row.wrong) && row.wrong != "array" {
					t.Errorf("%v, want %s", err, row.wrong)
				}
				return
			}
			nodes, nodesErr := nodesOf(entries)
			if err != nil || nodesErr != nil || len(nodes) != 1 || nodes[0].Name != "a" || nodes[0].Port != 8200 {
				t.Errorf("%v, %v, %+v", err, nodesErr, nodes)
			}
		})
	}
}

// Since Consul 1.22 an instance may have named ports, of which one is the default.
func TestNamedPorts(t *testing.T) {
	for _, row := range []struct {
		service string
		want    int
	}{
		{`"Port":8200`, 8200},
		{`"Port":0,"Ports":[{"Name":"api","Port":8200,"Default":true},{"Name":"cluster","Port":8201,"Default":false}]`, 8200},
		{`"Ports":[{"Name":"cluster","Port":8201},{"Name":"api","Port":8200,"Default":true}]`, 8200},
		{`"Port":443,"Ports":[{"Name":"api","Port":8200,"Default":true}]`, 443},
		{`"Port":0,"Ports":[{"Name":"api","Port":8200}]`, 0},
		{`"Port":0,"Ports":null`, 0},
	} {
		var entries []*entry
		if err := json.Unmarshal([]byte(`[{"Node":{"Node":"a"},"Service":{"ID":"v",`+row.service+`}}]`), &entries); err != nil {
			t.Fatal(err)
		}
		if nodes, err := nodesOf(entries); err != nil || nodes[0].Port != row.want {
			t.Errorf("%s: %+v, %v", row.service, nodes, err)
		}
	}
}
