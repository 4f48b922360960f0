// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of what the doctor makes of what was seen.

package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// member is a node that is well: vault-<i> at 10.0.0.<i>, which answers with a code.
func member(i, code int) Node {
	name, ip := fmt.Sprintf("vault-%d", i), fmt.Sprintf("10.0.0.%d", i)
	n := Node{Label: name, Look: Look{
		Host: name + ".example.com", Port: "8200", Addresses: []netip.Addr{netip.MustParseAddr(ip)}, Connected: 2 * time.Millisecond,
		Cert:   &Cert{Names: name + ".example.com", For: name + ".example.com", From: now.Add(-time.Hour), To: now.Add(84 * 24 * time.Hour)},
		Health: &Health{Code: code, Vault: true, Version: "1.21.0", ClusterID: "c1", HasClock: true},
	}}
	n.Node = discovery.Node{Name: name, ID: "vault:" + ip, Address: ip, Tags: []string{"standby"}}
	n.URL, n.State = "https://"+name+".example.com:8200", engine.NodeStandby
	n.Probe = engine.ProbeOutcome{Result: engine.ResultStandby, Code: code}
	if code == 200 {
		n.Node.Tags, n.Probe.Result = []string{"active"}, engine.ResultActive
		n.Elected, n.Marked, n.State = true, true, engine.NodeActive
	}
	return n
}

// healthy is a cluster with which all is well.
func healthy() *Seen {
	return &Seen{
		Name: "vault", Source: "consul", Endpoint: "127.0.0.1:8500", Mode: engine.ProbeAuto, Verify: true, Now: now,
		Selection: discovery.Selection{Mode: discovery.ByAuto, Tag: "active", Service: "vault"},
		Sites:     []Site{{Listen: []Listen{{"", 443, 443}}, Hosts: []string{"vault.example.com"}, TLS: true}},
		Here:      []netip.Addr{netip.MustParseAddr("10.0.0.100")},
		Asked:     true, Took: 3 * time.Millisecond, Reason: discovery.ReasonOK, By: engine.ByProbe, Candidates: 1,
		Nodes: []Node{member(1, 200), member(2, 429), member(3, 429)},
	}
}

func TestFindingsOfAHealthyCluster(t *testing.T) {
	list := healthy().Findings()
	var checks []string
	for _, f := range list {
		if f.Severity != OK || f.Remedy != "" || f.Detail == "" || f.Subject == "" {
			t.Errorf("%+v", f)
		}
		if !slices.Contains(checks, f.Check) {
			checks = append(checks, f.Check)
		}
	}
	want := "consul token service mark active probe standby scheme version cluster clock reach certificate role redirect"
	if got := strings.Join(checks, " "); got != want {
		t.Errorf("checks %s, want %s", got, want)
	}
}

func TestFindings(t *testing.T) {
	for _, row := range []struct {
		name                    string
		make                    func(s *Seen)
		check                   string
		severity                Severity
		subject, detail, remedy string
	}{
		{"consul does not answer", func(s *Seen) { s.Nodes, s.Asked, s.Took = nil, false, 10*time.Second }, "consul", Wrong, "127.0.0.1:8500", "within 10s", "firewall"},
		{"unreachable", failed(discovery.ReasonConsulUnreachable, "no route to host"), "consul", Wrong, "", "no route", "firewall"},
		{"http to an https port", failed(discovery.ReasonConsulUnreachable, "malformed HTTP response"), "consul", Wrong, "", "malformed", "https://"},
		{"https to an http port", failed(discovery.ReasonConsulUnreachable, "server gave HTTP response to HTTPS client"), "consul", Wrong, "", "", "http://"},
		{"untrusted consul", failed(discovery.ReasonConsulUnreachable, "x509: signed by unknown authority"), "consul", Wrong, "", "x509", "CONSUL_CACERT"},
		{"unknown name", failed(discovery.ReasonConsulUnreachable, "lookup consul: no such host"), "consul", Wrong, "", "no such host", "DNS"},
		{"other error", failed(discovery.ReasonConsulError, "answered 500: disk full"), "consul", Wrong, "", "disk full", "log of the Consul agent"},
		{"denied", failed(discovery.ReasonACLDenied, "answered 403"), "token", Wrong, "", "refused: answered 403", `service_prefix "vault" { policy = "read" }`},
		{"filtered", func(s *Seen) { s.Doubt = discovery.ReasonACLFiltered }, "token", Wrong, "", "hides results", "node_prefix"},
		{"filtered to nothing", func(s *Seen) { s.Nodes, s.Doubt = nil, discovery.ReasonACLFiltered }, "service", Wrong, "vault", "no instance is visible", "see token"},
		{"no leader", func(s *Seen) { s.Doubt, s.DoubtWhy = discovery.ReasonConsulError, "knows no leader" }, "consul", Warning, "", "knows no leader", "list-peers"},
		{"no service", func(s *Seen) { s.Nodes = nil }, "service", Wrong, "vault", "no instance", "service_registration"},
		{"no mark", func(s *Seen) { s.Nodes[0].Marked = false }, "mark", Warning, "vault", "marks no node", "active_by"},
		{"a dead one keeps its mark", func(s *Seen) {
			s.Nodes[1].Marked, s.Nodes[1].State = true, engine.NodeCritical
		}, "mark", OK, "vault", "it marks vault-1, and still vault-2, which Consul or the probes say is down", ""},
		{"none but a dead one is marked", func(s *Seen) {
			s.Nodes[0].Marked, s.Nodes[1].Marked, s.Nodes[1].State = false, true, engine.NodeUnreachable
		}, "mark", Warning, "vault", "it marks only vault-2", "see reach"},
		{"not marked, active", func(s *Seen) { s.Nodes[0].Marked = false }, "active", Warning, "vault", "Consul does not mark it", "service_registration"},
		{"two marks", func(s *Seen) { s.Nodes[1].Marked = true }, "mark", Warning, "vault", "vault-1, vault-2", "only the active node"},
		{"marked standby", func(s *Seen) { s.Nodes[1].Marked = true }, "role", Warning, "vault-2", "Consul marks it as active", "see mark"},
		{"by check", func(s *Seen) { s.Selection.Mode = discovery.ByCheck }, "mark", OK, "vault", "all checks of the instance", ""},
		{"two actives", func(s *Seen) { s.Nodes[1].Look.Health.Code = 200 }, "active", Wrong, "vault", "vault-1, vault-2", "10s"},
		{"two candidates", func(s *Seen) { s.Candidates = 2 }, "active", Wrong, "vault", "2 nodes could be", "list-peers"},
		{"nobody", nobody(discovery.ReasonUnhealthy), "active", Wrong, "vault", "no active node: unhealthy", "vault status"},
		{"no answer in time", nobody(discovery.ReasonStarting), "active", Wrong, "vault", "starting", "--timeout"},
		{"by consul", func(s *Seen) { s.By = engine.BySource }, "active", OK, "vault", "Consul marks it", ""},
		{"consul errs", func(s *Seen) { s.By = engine.BySource; s.Nodes[0].Look.Health.Code = 429 }, "active", Wrong, "vault", "says itself: standby (429)", "trust"},
		{"life only", func(s *Seen) { s.Nodes[2].Probe.Result = engine.ResultTLS }, "probe", Warning, "vault", "judged by life only, since TLS is not trusted: vault-3", "probe { tls { ca FILE } }"},
		{"strict and untrusted", func(s *Seen) { s.Mode = engine.ProbeStrict; s.Nodes[2].Probe.Result = engine.ResultTLS }, "probe", Wrong, "vault", "never used", "ca FILE"},
		{"consul alone", func(s *Seen) { s.Nodes[2].Probe.Result = engine.ResultRefused }, "probe", Warning, "vault", "by Consul alone, since not reached: vault-3", "see reach"},
		{"no standby", func(s *Seen) { s.Nodes = s.Nodes[:1] }, "standby", Warning, "vault", "no node can take over", "add a node"},
		{"http after https", func(s *Seen) { s.Nodes[0].URL = "http://vault-1.example.com:8200" }, "scheme", Wrong, "vault", "refuses", "scheme https"},
		{"a proxy may", func(s *Seen) {
			s.Sites = append(s.Sites[:0], Site{TLS: true, Proxy: true})
			s.Nodes[0].URL = "http://v:1"
		}, "standby", OK, "", "", ""},
		{"versions", func(s *Seen) { s.Nodes[2].Look.Health.Version = "1.20.4" }, "version", Warning, "vault", "1.20.4 (vault-3), 1.21.0 (vault-1, vault-2)", "upgrade"},
		{"clusters", func(s *Seen) { s.Nodes[2].Look.Health.ClusterID = "c2" }, "cluster", Wrong, "vault", "c2 (vault-3)", "service of its own"},
		{"clock ahead", func(s *Seen) { s.Nodes[2].Look.Health.Ahead = 45 * time.Second }, "clock", Warning, "vault", "vault-3 is 45s ahead", "NTP"},
		{"clock behind", func(s *Seen) { s.Nodes[2].Look.Health.Ahead = -time.Hour }, "clock", Warning, "vault", "vault-3 is 1h0m0s behind", "NTP"},
		{"clock near", func(s *Seen) { s.Nodes[2].Look.Health.Ahead = 30 * time.Second }, "clock", OK, "vault", "within 30s", ""},
		{"unknown name of a node", func(s *Seen) { s.Nodes[1].Look = Look{Host: "x", LookupErr: "no such host"} }, "reach", Wrong, "vault-2", "no such host", "DNS"},
		{"firewall", func(s *Seen) { s.Nodes[1].Look = Look{Host: "x", ConnectErr: "no answer in time"} }, "reach", Wrong, "vault-2", "no answer in time", "firewall"},
		{"20 days left", func(s *Seen) { s.Nodes[1].Look.Cert.To = now.Add(21*24*time.Hour - 1) }, "certificate", Warning, "vault-2", "20 days left", "renew"},
		{"21 days left", func(s *Seen) { s.Nodes[1].Look.Cert.To = now.Add(21 * 24 * time.Hour) }, "certificate", OK, "vault-2", "21 days left", ""},
		{"expired", func(s *Seen) { s.Nodes[1].Look.Cert.To = now }, "certificate", Wrong, "vault-2", "expired on 2026-11-24", "renew"},
		{"not yet valid", func(s *Seen) { s.Nodes[1].Look.Cert.From = now.Add(1) }, "certificate", Wrong, "vault-2", "not valid before", "clocks"},
		{"wrong name", func(s *Seen) { s.Nodes[1].Look.Cert.WrongName = "no" }, "certificate", Wrong, "vault-2", "not for vault-2", "issue it for"},
		{"untrusted", func(s *Seen) { s.Nodes[1].Look.Cert.Untrusted = "unknown authority" }, "certificate", Warning, "vault-2", "unknown authority", "ca FILE"},
		{"not verified", func(s *Seen) { s.Verify = false }, "certificate", Warning, "vault-2", "insecure_skip_verify", "ca FILE"},
		{"no TLS", func(s *Seen) { s.Nodes[1].Look = Look{TLSErr: "handshake failure"} }, "certificate", Wrong, "vault-2", "handshake failure", "log"},
		{"http, not https", otherKind(""), "scheme", Wrong, "vault-2", "answers http", "TLS; or set `scheme http`, and serve clients by http"},
		{"http, not https, for a site that speaks http", func(s *Seen) {
			otherKind("")(s)
			s.Sites[0].TLS = false
		}, "scheme", Wrong, "vault-2", "answers http", "TLS; or set `scheme http`"},
		{"http, not https, without a config", func(s *Seen) { otherKind("")(s); s.Sites = nil }, "scheme", Wrong, "vault-2", "answers http", "--scheme http"},
		{"http, not https, by URL", func(s *Seen) {
			otherKind("")(s)
			s.Selection.Mode = discovery.ByProbe
		}, "scheme", Wrong, "vault-2", "answers http", "write its URL with http://"},
		{"http, not https, to probes", otherKind(""), "probe", Wrong, "vault", "the wrong scheme: vault-2", "see scheme"},
		{"https, not http", otherKind("http://vault-2.example.com:8200"), "scheme", Wrong, "vault-2", "answers https", "set `scheme https`"},
		{"https, not http, to probes", otherKind("http://vault-2.example.com:8200"), "probe", Wrong, "vault", "the wrong scheme: vault-2", "see scheme"},
		{"https, not http, and a site that cannot lead there", otherKind("http://vault-2.example.com:8200"), "scheme", Wrong, "vault", "Vault's own client refuses that", "scheme https"},
		{"sealed", func(s *Seen) { s.Nodes[1].Look.Health.Code = 503 }, "role", Warning, "vault-2", "sealed (503)", "unseal"},
		{"uninitialized", func(s *Seen) { s.Nodes[1].Look.Health.Code = 501 }, "role", Warning, "vault-2", "501", "raft join"},
		{"removed", func(s *Seen) { s.Nodes[1].Look.Health.Code = 530 }, "role", Warning, "vault-2", "removed", "join"},
		{"maintenance", func(s *Seen) { s.Nodes[1].State = engine.NodeMaintenance }, "role", Warning, "vault-2", "maintenance", "consul maint"},
		{"failing check", func(s *Seen) { s.Nodes[1].Failing = []string{"serfHealth"} }, "role", Warning, "vault-2", "serfHealth", "log of the Consul agent"},
		{"not Vault", func(s *Seen) { s.Nodes[1].Look.Health = &Health{Code: 404} }, "role", Wrong, "vault-2", "not Vault (/v1/sys/health: 404)", "api_addr"},
		{"client certificate", func(s *Seen) {
			s.Nodes[1].Look.Health, s.Nodes[1].Look.HealthErr = nil, "remote error: tls: certificate required"
		}, "role", Wrong, "vault-2", "certificate required", "key FILE"},
		{"bad address", func(s *Seen) { s.Nodes[1].URL, s.Nodes[1].Why = "", "no address" }, "redirect", Wrong, "vault-2", "no address", "api_addr"},
		{"loopback of another machine", at("127.0.0.1", "10.0.0.1"), "redirect", Wrong, "vault-2", "the node is at 10.0.0.1", "api_addr"},
		{"loopback of this machine", at("127.0.0.1", "10.0.0.100"), "redirect", Wrong, "vault-2", "only clients on this machine", "api_addr"},
		{"loopback of a trial", at("127.0.0.1", "127.0.0.1"), "redirect", Warning, "vault-2", "only clients on this machine", "trial"},
		{"loopback by name", at("localhost", "10.0.0.1"), "redirect", Wrong, "vault-2", "loopback", "api_addr"},
		{"loopback for local clients", func(s *Seen) {
			at("127.0.0.1", "127.0.0.1")(s)
			s.Sites[0].Listen = []Listen{{"127.0.0.1", 80, 80}}
		}, "redirect", OK, "vault-2", "", ""},
		{"name that is loopback here", func(s *Seen) {
			s.Nodes[1].Look.Addresses = []netip.Addr{netip.MustParseAddr("127.0.1.1")}
		}, "redirect", Warning, "vault-2", "loopback address here", "/etc/hosts"},
		{"redirector by address", func(s *Seen) {
			at("10.0.0.100", "10.0.0.100")(s)
			s.Sites[0].Listen = []Listen{{"", 8200, 8200}}
		}, "redirect", Wrong, "vault-2", "leads back to the redirector itself, which is listening on *:8200", "api_addr"},
		{"redirector by name", func(s *Seen) { s.Nodes[1].Look.Host, s.Nodes[1].Look.Port = "Vault.example.com", "443" }, "redirect", Wrong, "vault-2", "the site Vault.example.com", "api_addr"},
		{"another port", func(s *Seen) { at("10.0.0.100", "10.0.0.100")(s) }, "redirect", OK, "vault-2", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := healthy()
			row.make(s)
			list := s.Findings()
			ok := slices.ContainsFunc(list, func(f Finding) bool {
				return f.Check == row.check && f.Severity == row.severity && strings.Contains(f.Subject, row.subject) &&
					strings.Contains(f.Detail, row.detail) && strings.Contains(f.Remedy, row.remedy)
			})
			if !ok {
				t.Errorf("no %s %s of %q with %q and %q in:\n%+v", row.severity, row.check, row.subject, row.detail, row.remedy, list)
			}
			for _, f := range list {
				if (f.Remedy == "") != (f.Severity == OK) {
					t.Errorf("a remedy goes with what is not ok: %+v", f)
				}
			}
		})
	}
}

// otherKind has vault-2 speak http, or https if it is given a URL of http.
func otherKind(url string) func(*Seen) {
	return func(s *Seen) {
		n := &s.Nodes[1]
		n.Look, n.Probe = Look{TLSErr: "x", OtherKind: true}, engine.ProbeOutcome{Result: engine.ResultTLS}
		if url != "" {
			n.URL, n.Look = url, Look{Health: &Health{Code: 400}, OtherKind: true}
			n.Probe = engine.ProbeOutcome{Result: engine.ResultInvalid, Code: 400}
		}
	}
}

// Where a node speaks the other scheme, nothing beside that says that all is well with the schemes.
func TestNoSchemeIsFineBesideAWrongOne(t *testing.T) {
	for _, url := range []string{"", "http://vault-2.example.com:8200"} {
		s := healthy()
		otherKind(url)(s)
		for _, f := range s.Findings() {
			if (f.Check == "scheme" || f.Check == "probe") && f.Severity == OK {
				t.Errorf("%q: %+v", url, f)
			}
		}
	}
}

func failed(reason discovery.Reason, text string) func(*Seen) {
	return func(s *Seen) { s.Nodes, s.Failure, s.FailedWith = nil, reason, text }
}

func nobody(reason discovery.Reason) func(*Seen) {
	return func(s *Seen) {
		s.Reason, s.By, s.Candidates = reason, "", 0
		n := &s.Nodes[0]
		n.Elected, n.Look.Health.Code, n.Marked = false, 503, false
	}
}

// at has vault-2 registered with a host, on a node whose address in Consul is home.
func at(host, home string) func(*Seen) {
	return func(s *Seen) {
		n := &s.Nodes[1]
		n.URL, n.Look.Host, n.Node.Address = "https://"+host+":8200", host, home
		n.Look.Addresses = nil
		if ip, err := netip.ParseAddr(host); err == nil {
			n.Look.Addresses = []netip.Addr{ip}
		}
	}
}

func TestReports(t *testing.T) {
	reports := []Report{
		{"a", []Finding{{"consul", "c", OK, "fine", ""}}},
		{"b", []Finding{{"role", "n\x1b[2J", Warning, "secret told\n", "look"}}},
	}
	for i := range reports {
		reports[i].Clean([]string{"", "secret"})
	}
	var b strings.Builder
	if err := Print(&b, reports); err != nil {
		t.Fatal(err)
	}
	want := "a\n  ok  consul  c  fine\n\nb\n  warning  role  n?[2J  [redacted] told?\n                        -> look\n\n1 ok, 1 warning, 0 wrong\n"
	if b.String() != want {
		t.Errorf("printed\n%q, want\n%q", b.String(), want)
	}
	b.Reset()
	if err := PrintJSON(&b, nil); err != nil || b.String() != "[]\n" {
		t.Errorf("%v: %s", err, b.String())
	}
}
