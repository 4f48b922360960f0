// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// probing returns a cluster of stand-ins and a handler that probes them.
func probing(t *testing.T, n int) (*standin.Cluster, *Handler) {
	t.Helper()
	c := standin.RunCluster(t, n)
	h := provision(t, c.Consul, `, "scheme": "http", "hold": 0, "probe": {"interval": "50ms", "timeout": "1s"}`)
	untilTarget(t, h, c.Vaults[0])
	return c, h
}

// untilTarget waits until requests are redirected to a node, nil for none.
func untilTarget(t *testing.T, h *Handler, v *standin.Vault) {
	t.Helper()
	if v == nil {
		until(t, h, "no active node", func(s *engine.State) bool { return !s.Active() && s.ReasonAt(time.Now()) != discovery.ReasonStarting })
		return
	}
	until(t, h, v.Name()+" is active", func(s *engine.State) bool { return s.Active() && s.Target.URL == v.URL() })
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
	if s := h.redirector.View.State(); s.ReasonAt(time.Now()) != discovery.ReasonNoActive && s.ReasonAt(time.Now()) != discovery.ReasonUnhealthy {
		t.Errorf("reason %s", s.ReasonAt(time.Now()))
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
	until(t, h, "consul gone", func(s *engine.State) bool { return s.ReasonAt(time.Now()) == discovery.ReasonConsulUnreachable })
	for _, next := range []*standin.Vault{c.Vaults[1], c.Vaults[2], c.Vaults[0]} {
		for _, v := range c.Vaults {
			v.SetActive(false)
		}
		untilTarget(t, h, nil)
		next.SetActive(true)
		untilTarget(t, h, next)
		s := h.redirector.View.State()
		if !s.StaleSince.IsZero() || s.ReasonAt(time.Now()) != discovery.ReasonConsulUnreachable {
			t.Errorf("reason %s, stale since %s: a node that proves itself is not stale", s.ReasonAt(time.Now()), s.StaleSince)
		}
	}
	if err := c.Consul.Accept(); err != nil {
		t.Fatal(err)
	}
	until(t, h, "consul back", func(s *engine.State) bool { return s.ReasonAt(time.Now()) == discovery.ReasonOK })
}

// What a node says itself outranks its checks, such as that of a dead agent of Consul, but never an operator's word (C5).
func TestProbesOutrankChecksButNotMaintenance(t *testing.T) {
	t.Parallel()
	v := standin.RunVault(t, "vault-1")
	host, port := hostPortOf(t, v.Addr())
	for _, row := range []struct {
		check string
		used  bool
	}{{"serfHealth", true}, {"_node_maintenance", false}, {"_service_maintenance:vault", false}} {
		t.Run(row.check, func(t *testing.T) {
			consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address(host), standin.Port(port), standin.NodeCheck(row.check, "critical")))
			h := provision(t, consul, `, "scheme": "http", "hold": 0, "probe": {"interval": "50ms"}`)
			if row.used {
				untilTarget(t, h, v)
				v.SetActive(false)
				untilTarget(t, h, nil)
				v.SetActive(true)
				untilTarget(t, h, v)
				return
			}
			until(t, h, row.check, func(s *engine.State) bool { return s.ReasonAt(time.Now()) == discovery.ReasonUnhealthy })
			before := len(v.Requests())
			if err := v.Await(t.Context(), func() bool { return len(v.Requests()) >= before+5 }); err != nil {
				t.Fatal(err)
			}
			if s := h.redirector.View.State(); s.Active() || s.ReasonAt(time.Now()) != discovery.ReasonUnhealthy {
				t.Errorf("reason %s, active %v although it is in maintenance", s.ReasonAt(time.Now()), s.Active())
			}
		})
	}
}

// hostPortOf splits an address.
func hostPortOf(t testing.TB, addr string) (host string, port int) {
	t.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Addr().String(), int(a.Port())
}

// Standbys are asked now and then, so that a sealed one is known before the failover that needs it; and each probe has a
// connection of its own, of which the last one is kept.
func TestStandbysAreProbedSeldom(t *testing.T) {
	t.Parallel()
	c, h := probing(t, 3)
	a, b := c.Vaults[0], c.Vaults[1]
	// The rounds of the start are over when the active node has been asked a few times more.
	more := func(v *standin.Vault, n int) []standin.VaultRequest {
		before := len(v.Requests())
		if err := v.Await(t.Context(), func() bool { return len(v.Requests()) >= before+n }); err != nil {
			t.Fatal(err)
		}
		return v.Requests()[before:]
	}
	more(a, 5)
	of := len(a.Requests())
	asked := more(b, 5)
	// 50ms and ten times that.
	if took := asked[4].Time.Sub(asked[0].Time); took < 4*10*50*time.Millisecond*6/10 {
		t.Errorf("a standby was probed four times within %s", took)
	}
	if n := len(a.Requests()) - of; n < 10 {
		t.Errorf("%d probes of the active node for five of a standby", n)
	}
	from := map[string]bool{}
	for _, r := range more(a, 10) {
		from[r.RemoteAddr] = true
	}
	if len(from) < 9 { // a port may be used again
		t.Errorf("10 probes came over %d connections", len(from))
	}
	if err := a.Await(t.Context(), func() bool { return a.Connections() <= 2 }); err != nil {
		t.Errorf("%d connections to the active node", a.Connections())
	}
	for range 20 {
		more(a, 1)
		if n := a.Connections(); n > 3 { // the kept one, the one that asks, and one that is being closed
			t.Fatalf("%d connections to the active node", n)
		}
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
	c := standin.RunCluster(t, 2)
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

func TestProbesNeedAnAddress(t *testing.T) {
	h := provision(t, standin.RunConsul(t, standin.Active("vault-1", standin.ServiceAddress("no host"))), `, "probe": {}`)
	until(t, h, "bad address", func(s *engine.State) bool { return s.ReasonAt(time.Now()) == discovery.ReasonBadAddress })
}

// A check that has merely passed again, and so has a new index, says nothing new.
func TestProbesOutliveNewIndexes(t *testing.T) {
	t.Parallel()
	c, h := probing(t, 2)
	entry := func(index uint64) *api.ServiceEntry {
		host, port := hostPortOf(t, c.Vaults[0].Addr())
		return standin.Active("vault-0", standin.Address(host), standin.Port(port), standin.Check("api", "passing"), standin.Index(index))
	}
	c.Consul.Set("vault", entry(1))
	untilTarget(t, h, c.Vaults[0])
	until(t, h, "one node", func(s *engine.State) bool { return s.Nodes() == 1 && s.Active() })
	changes := h.redirector.View.State().Changes
	for i := range uint64(5) {
		polled := h.redirector.View.State().Polled
		c.Consul.Set("vault", entry(i+2))
		until(t, h, "the next answer", func(s *engine.State) bool {
			if !s.Active() {
				t.Fatalf("no active node: %s (%s)", s.ReasonAt(time.Now()), s.Detail)
			}
			return s.Polled.After(polled)
		})
	}
	if n := h.redirector.View.State().Changes; n != changes {
		t.Errorf("%d changes, want none", n-changes)
	}
	// It is used for as long as it says that it is active, registered or not. What is known of a node goes with it.
	c.Consul.Set("vault")
	until(t, h, "no registration", func(s *engine.State) bool { return s.Nodes() == 0 && s.Active() })
	c.Vaults[0].SetActive(false)
	untilTarget(t, h, nil)
	for _, v := range c.Vaults {
		if err := v.Await(t.Context(), func() bool { return v.Connections() == 0 }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSelectionByProbeNeedsProbes(t *testing.T) {
	for _, row := range []struct {
		by    string
		mode  string
		want  engine.Mode
		wrong string
	}{
		{discovery.ByTag, probeOff, engine.ProbeOff, ""},
		{discovery.ByAuto, probeAuto, engine.ProbeAuto, ""},
		{discovery.ByAuto, "", engine.ProbeAuto, ""},
		{discovery.ByCheck, probeStrict, engine.ProbeStrict, ""},
		{discovery.ByProbe, probeStrict, engine.ProbeStrict, ""},
		{discovery.ByProbe, "", engine.ProbeStrict, ""},
		{discovery.ByProbe, probeAuto, "", "so the mode is strict"},
		{discovery.ByProbe, probeOff, "", "so the mode is strict"},
		{"", probeStrict, engine.ProbeStrict, "selects by"},
		{"Tag", probeStrict, engine.ProbeStrict, "selects by"},
	} {
		mode, err := (&Probe{Mode: row.mode}).mode(row.by)
		if err == nil {
			err = checkSelection(&standin.Given{By: discovery.Selection{Mode: row.by}})
		}
		if mode != row.want || row.wrong == "" && err != nil || row.wrong != "" && (err == nil || !strings.Contains(err.Error(), row.wrong)) {
			t.Errorf("by %q with probes %q: mode %q, %v, want %q", row.by, row.mode, mode, err, row.wrong)
		}
	}
}
