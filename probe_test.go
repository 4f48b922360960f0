// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the probes, against scripted Vault nodes.

package vaultredirect

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func TestVerdicts(t *testing.T) {
	vault := `{"initialized":true,"sealed":false,"standby":false}`
	for _, row := range []struct {
		code            int
		body            string
		active, standby bool
	}{
		{200, vault, true, false},
		{200, `{"initialized":true,"sealed":false,"standby":true}`, false, true},
		{200, `{"initialized":true,"sealed":true,"standby":false}`, false, false},
		{200, `{}`, false, false},
		{200, `<html>It works!</html>`, false, false},
		{200, ``, false, false},
		{204, vault, false, false},
		{307, vault, false, false},
		{429, vault, false, true},
		{472, vault, false, true},
		{473, vault, false, true},
		{474, vault, false, true},
		{501, vault, false, false},
		{503, vault, false, false},
		{530, vault, false, false},
		{404, vault, false, false},
	} {
		v := verdictOf(row.code, []byte(row.body))
		if !v.known || v.active != row.active || v.standby != row.standby {
			t.Errorf("%d %s: %+v", row.code, row.body, v)
		}
		if !v.active && !strings.HasPrefix(v.detail, fmt.Sprintf("probe: %d", row.code)) {
			t.Errorf("%d %s: detail %q", row.code, row.body, v.detail)
		}
	}
}

// probing returns a cluster of stand-ins and a handler that probes them.
func probing(t *testing.T, n int) (*standin.Cluster, *Handler) {
	t.Helper()
	c, err := standin.NewCluster(n, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := provision(t, c.Consul, `, "scheme": "http", "hold": 0, "probe": {"interval": "50ms", "timeout": "200ms"}`)
	untilTarget(t, h, c.Vaults[0])
	return c, h
}

// untilTarget waits until requests are redirected to a node, nil for none.
func untilTarget(t *testing.T, h *Handler, v *standin.Vault) {
	t.Helper()
	if v == nil {
		until(t, h, "no active node", func(s *state) bool { return !s.active() && s.reason != ReasonStarting })
		return
	}
	until(t, h, v.Name()+" is active", func(s *state) bool { return s.active() && s.target.url == v.URL() })
}

func TestProbesOutrankConsul(t *testing.T) {
	t.Parallel()
	c, h := probing(t, 3)
	a, b := c.Vaults[0], c.Vaults[1]
	// Consul goes on saying that the first is active, and fine.
	for _, code := range []int{429, 472, 473, 474, 501, 503, 530, 500} {
		a.SetHealth(code)
		untilTarget(t, h, nil)
		a.SetHealth(0)
		untilTarget(t, h, a)
	}
	a.SetActive(false)
	b.SetActive(true)
	untilTarget(t, h, b)
	b.Kill()
	untilTarget(t, h, nil)
	if s := h.view.current.Load(); s.reason != ReasonNoActive && s.reason != ReasonUnhealthy {
		t.Errorf("reason %s", s.reason)
	}
	a.SetActive(true)
	untilTarget(t, h, a)
	a.Hang(true)
	untilTarget(t, h, nil)
	a.Hang(false)
	untilTarget(t, h, a)
	for _, r := range a.Requests() {
		if r.Token || r.Method != http.MethodGet || r.Path != "/v1/sys/health" {
			t.Errorf("%s %s, token %v", r.Method, r.Path, r.Token)
		}
	}
}

func TestProbesFollowConsulAtOnce(t *testing.T) {
	t.Parallel()
	c, h := probing(t, 3)
	for range 3 {
		untilTarget(t, h, c.StepDown())
	}
	_, next := c.Kill()
	untilTarget(t, h, next)
}

func TestProbesFollowWithoutConsul(t *testing.T) {
	t.Parallel()
	c, h := probing(t, 3)
	c.Consul.Refuse()
	until(t, h, "consul gone", func(s *state) bool { return s.reason == ReasonConsulUnreachable })
	for _, next := range []*standin.Vault{c.Vaults[1], c.Vaults[2], c.Vaults[0]} {
		for _, v := range c.Vaults {
			v.SetActive(false)
		}
		untilTarget(t, h, nil)
		next.SetActive(true)
		untilTarget(t, h, next)
		s := h.view.current.Load()
		if !s.stale.IsZero() || s.reason != ReasonConsulUnreachable {
			t.Errorf("reason %s, stale since %s: a node that proves itself is not stale", s.reason, s.stale)
		}
	}
	if err := c.Consul.Accept(); err != nil {
		t.Fatal(err)
	}
	until(t, h, "consul back", func(s *state) bool { return s.reason == ReasonOK })
}

// Whatever it says itself: a node that is critical or in maintenance is out while Consul can be asked.
func TestProbesDoNotOutrankChecks(t *testing.T) {
	t.Parallel()
	for _, check := range []string{"serfHealth", "_node_maintenance"} {
		v, err := standin.NewVault("", "vault-1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.Close)
		v.SetActive(true)
		host, port, _ := strings.Cut(v.Addr(), ":")
		var p int
		fmt.Sscan(port, &p)
		entry := func(status string) *api.ServiceEntry {
			return standin.Active("vault-1", standin.Address(host), standin.Port(p), standin.NodeCheck(check, status))
		}
		consul := newConsul(t, entry("critical"))
		h := provision(t, consul, `, "scheme": "http", "hold": 0, "probe": {"interval": "50ms"}`)
		until(t, h, check, func(s *state) bool { return s.reason == ReasonUnhealthy })
		if check == "_node_maintenance" {
			continue
		}
		// What Consul said last says nothing of now.
		consul.Refuse()
		untilTarget(t, h, v)
	}
}

func TestOnlyTheActiveNodeIsProbed(t *testing.T) {
	t.Parallel()
	c, h := probing(t, 3)
	a, b := c.Vaults[0], c.Vaults[1]
	// The rounds of the start are over when the active node has been asked a few times more.
	more := func(n int) int {
		before := len(a.Requests())
		if err := a.Await(t.Context(), func() bool { return len(a.Requests()) >= before+n }); err != nil {
			t.Fatal(err)
		}
		return len(b.Requests())
	}
	before := more(5)
	if after := more(10); after != before {
		t.Errorf("a standby was probed %d times", after-before)
	}
	if n := a.Connections(); n != 1 {
		t.Errorf("%d connections to the active node, want 1", n)
	}
	// The end of the last handler is the end of the probes.
	if err := h.Cleanup(); err != nil {
		t.Fatal(err)
	}
	for _, v := range c.Vaults {
		if err := v.Await(t.Context(), func() bool { return v.Connections() == 0 }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProbesByLeader(t *testing.T) {
	t.Parallel()
	c, err := standin.NewCluster(2, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := provision(t, c.Consul, `, "scheme": "http", "redirect_to": "leader", "probe": {"interval": "50ms"}`)
	untilTarget(t, h, c.Vaults[0]) // as /v1/sys/leader names it
	asked := false
	for _, r := range c.Vaults[0].Requests() {
		asked = asked || r.Path == "/v1/sys/leader"
	}
	if !asked {
		t.Error("/v1/sys/leader was not asked")
	}
}

func TestLeaderAddress(t *testing.T) {
	for _, row := range []struct{ leader, scheme, want, wrong string }{
		{"https://10.0.0.1:8200", "https", "10.0.0.1:8200", ""},
		{"https://vault.example.com", "https", "vault.example.com:443", ""},
		{"http://[::1]:8200/", "http", "::1:8200", ""},
		{"http://10.0.0.1:8200", "https", "", "is not https"},
		{"", "https", "", "not a URL"},
		{"https://u:p@vault", "https", "", "not a URL"},
		{"https://vault:99999999999999999999", "https", "", "port"},
	} {
		host, port, err := parseLeader(row.leader, row.scheme)
		if row.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), row.wrong) {
				t.Errorf("%s: %v, want %q", row.leader, err, row.wrong)
			}
			continue
		}
		if got := fmt.Sprintf("%s:%d", host, port); err != nil || got != row.want {
			t.Errorf("%s: %s, %v", row.leader, got, err)
		}
	}
}

func TestProbesNeedAnAddress(t *testing.T) {
	h := provision(t, newConsul(t, standin.Active("vault-1", standin.ServiceAddress("no host"))), `, "probe": {}`)
	until(t, h, "bad address", func(s *state) bool { return s.reason == ReasonBadAddress })
}

// A check that has merely passed again, and so has a new index, says nothing new.
func TestProbesOutliveNewIndexes(t *testing.T) {
	t.Parallel()
	c, h := probing(t, 2)
	entry := func(index uint64) *api.ServiceEntry {
		host, port, _ := strings.Cut(c.Vaults[0].Addr(), ":")
		var p int
		fmt.Sscan(port, &p)
		return standin.Active("vault-0", standin.Address(host), standin.Port(p), standin.Check("api", "passing"), standin.Index(index))
	}
	c.Consul.Set("vault", entry(1))
	untilTarget(t, h, c.Vaults[0])
	until(t, h, "one node", func(s *state) bool { return s.nodes == 1 && s.active() })
	changes := h.view.current.Load().changes
	for i := range uint64(5) {
		polled := h.view.current.Load().polled
		c.Consul.Set("vault", entry(i+2))
		until(t, h, "the next answer", func(s *state) bool {
			if !s.active() {
				t.Fatalf("no active node: %s (%s)", s.reason, s.detail)
			}
			return s.polled.After(polled)
		})
	}
	if n := h.view.current.Load().changes; n != changes {
		t.Errorf("%d changes, want none", n-changes)
	}
	// What is known of a node goes with it.
	c.Consul.Set("vault")
	untilTarget(t, h, nil)
	h.view.watcher.mu.Lock()
	defer h.view.watcher.mu.Unlock()
	if n := len(h.view.verdicts); n != 0 {
		t.Errorf("%d verdicts, want none", n)
	}
}

func TestSelectionByProbeNeedsProbes(t *testing.T) {
	for mode, want := range map[string]string{selectProbe: "needs probe", "": "selects by", "Tag": "selects by"} {
		d := &oddDiscovery{newScripted(Answer{}), mode}
		err := (&Active{discovery: d}).checkSelection(false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %q: %v, want %q", mode, err, want)
		}
	}
	if err := (&Active{discovery: &oddDiscovery{newScripted(Answer{}), selectProbe}}).checkSelection(true); err != nil {
		t.Error(err)
	}
}

type oddDiscovery struct {
	*scripted
	mode string
}

func (d *oddDiscovery) Selection() Selection { return Selection{Mode: d.mode} }
