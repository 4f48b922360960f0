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
	entry := `{"Node":{"Node":"%s","Address":"127.10.0.1","TaggedAddresses":{"wan":"x"}},"Service":{"ID":"v","Tags":["active"],"Address":"%s","Port":8200,
		"TaggedAddresses":{"wan":{"Address":"w","Port":1}},"ModifyIndex":7},"Checks":[{"CheckID":"serfHealth","Status":"%s"},{"CheckID":"service:vault","ServiceID":"v","Status":"passing"}]}`
	for _, body := range []string{
		"", "null", "[]", "{}", "[null]", `[{"Node":null}]`, `[{"Node":{"Node":"a"},"Service":{},"Checks":[null]}]`,
		"[" + fmt.Sprintf(entry, "a", "", "passing") + "," + fmt.Sprintf(entry, "b", "evil.com/", "warning") + "]",
		"[" + fmt.Sprintf(entry, "a", "::1", "critical") + "," + fmt.Sprintf(entry, "a", "0.0.0.0", "") + "]", strings.Repeat("[", 1000),
	} {
		f.Add([]byte(body), uint8(len(body)))
	}
	f.Fuzz(func(t *testing.T, body []byte, mode uint8) {
		var entries []*api.ServiceEntry
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
		for _, entry := range entries {
			if status := entry.Checks.AggregatedStatus(); entry.Node.Node == s.Node.Name && entry.Service.ID == s.Node.ID && (status == api.HealthPassing || status == api.HealthWarning) {
				return
			}
		}
		t.Fatalf("elected %s, which is not eligible", s.Node.Identity())
	})
}
