// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"crypto/tls"
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
func member(i, code int) *Node {
	name, ip := fmt.Sprintf("vault-%d", i), fmt.Sprintf("10.0.0.%d", i)
	n := &Node{Label: name, Inspection: engine.Inspection{
		Host: name + ".example.com", Port: "8200", Addresses: []netip.Addr{netip.MustParseAddr(ip)}, Connected: 2 * time.Millisecond,
		Certificate: &engine.Certificate{Names: name + ".example.com", For: name + ".example.com", From: now.Add(-time.Hour), To: now.Add(84 * 24 * time.Hour)},
		Health:      &engine.Health{Role: engine.RoleOf(code), Vault: true, Version: "1.21.0", ClusterID: "c1", HasClock: true},
	}}
	n.Node = discovery.Node{Name: name, ID: "vault:" + ip, Address: ip, Tags: []string{"standby"}, Checks: []discovery.Check{{ID: "vault-sealed-check", Status: "passing", Service: true}}}
	n.URL, n.State = "https://"+name+".example.com:8200", engine.NodeStandby
	n.Probe = engine.ProbeOutcome{Result: engine.ResultStandby, Code: code}
	if code == 200 {
		n.Node.Tags, n.Probe.Result = []string{"active"}, engine.ResultActive
		n.Elected, n.Marked, n.State = true, true, engine.NodeActive
	}
	return n
}

// healthy is a cluster with which all is well.
func healthy() *Observation {
	return &Observation{
		Config: engine.Config{Name: "vault", Probe: engine.Probe{Mode: engine.ProbeAuto}}, Source: "consul", Endpoint: "127.0.0.1:8500", Now: now,
		Selection: discovery.Selection{Mode: discovery.ByAuto, Tag: "active", Service: "vault"},
		Sites:     []Site{{Listen: []Listen{{"", 443, 443}}, Hosts: []string{"vault.example.com"}, TLS: true}},
		Here:      []netip.Addr{netip.MustParseAddr("10.0.0.100")},
		Queries:   Queries{Asked: true, Took: 3 * time.Millisecond, Blocking: Blocking{Wait: 30 * time.Second, Held: time.Second}},
		Reason:    discovery.ReasonOK, By: engine.ByProbe, Candidates: 1,
		Nodes: []*Node{member(1, 200), member(2, 429), member(3, 429)},
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
	want := "consul token blocking service registration mark active probe standby scheme version cluster clock reach certificate role redirect"
	if got := strings.Join(checks, " "); got != want {
		t.Errorf("checks %s, want %s", got, want)
	}
}

// reading makes the standbys get reads, or not for a reason, of what a matcher selects.
func reading(why string, matchers ...Matcher) func(*Observation) {
	return func(o *Observation) {
		o.Standbys = true
		o.Sites[0].Reads = matchers
		for i := range o.Nodes[1:] {
			o.Nodes[i+1].Reads, o.Nodes[i+1].WhyNoReads = why == "", why
		}
	}
}

// Matchers that are known to let no writes through are not warned about.
func TestReadsWithoutAWarning(t *testing.T) {
	o := healthy()
	reading("", Matcher{Methods: []string{"GET", "LIST"}}, Matcher{Methods: []string{"get"}, Paths: []string{"/v1/secret/*"}},
		Matcher{Paths: []string{"/v1/transit/encrypt/*", "/v1/kms/Decrypt/key"}}, Matcher{More: true}, Matcher{More: true, Paths: []string{"/v1/secret/*"}})(o)
	for _, f := range o.Findings() {
		if f.Severity != OK {
			t.Errorf("%+v", f)
		}
	}
}

func TestFindings(t *testing.T) {
	for _, row := range []struct {
		name                    string
		make                    func(o *Observation)
		check                   string
		severity                Severity
		subject, detail, remedy string
	}{
		{"consul does not answer", func(o *Observation) { o.Nodes, o.Asked, o.Took = nil, false, 10*time.Second }, "consul", Wrong, "127.0.0.1:8500", "within 10s", "firewall"},
		{"unreachable", failed(discovery.ReasonConsulUnreachable, "no route to host"), "consul", Wrong, "", "no route", "firewall"},
		{"http to an https port", failed(discovery.ReasonConsulUnreachable, "malformed HTTP response"), "consul", Wrong, "", "malformed", "https://"},
		{"https to an http port", failed(discovery.ReasonConsulUnreachable, "server gave HTTP response to HTTPS client"), "consul", Wrong, "", "", "http://"},
		{"untrusted consul", failed(discovery.ReasonConsulUnreachable, "x509: signed by unknown authority"), "consul", Wrong, "", "x509", "CONSUL_CACERT"},
		{"unknown name", failed(discovery.ReasonConsulUnreachable, "lookup consul: no such host"), "consul", Wrong, "", "no such host", "DNS"},
		{"other error", failed(discovery.ReasonConsulError, "answered 500: disk full"), "consul", Wrong, "", "disk full", "log of the Consul agent"},
		{"denied", failed(discovery.ReasonACLDenied, "answered 403"), "token", Wrong, "", "refused: answered 403", `service_prefix "vault" { policy = "read" }`},
		{"filtered", func(o *Observation) { o.Incomplete = discovery.ReasonACLFiltered }, "token", Wrong, "", "hides results", "node_prefix"},
		{"filtered to nothing", func(o *Observation) { o.Nodes, o.Incomplete = nil, discovery.ReasonACLFiltered }, "service", Wrong, "vault", "no instance is visible", "see token"},
		{"no leader", func(o *Observation) {
			o.Incomplete, o.IncompleteDetail = discovery.ReasonConsulError, "knows no leader"
		}, "consul", Warning, "", "knows no leader", "list-peers"},
		{"no service", func(o *Observation) { o.Nodes = nil }, "service", Wrong, "vault", "no instance", "service_registration"},
		{"no mark", func(o *Observation) { o.Nodes[0].Marked = false }, "mark", Warning, "vault", "marks no node", "active_by"},
		{"a dead one keeps its mark", func(o *Observation) {
			o.Nodes[1].Marked, o.Nodes[1].State = true, engine.NodeCritical
		}, "mark", OK, "vault", "it marks vault-1, and still vault-2, which Consul or the probes say is down", ""},
		{"none but a dead one is marked", func(o *Observation) {
			o.Nodes[0].Marked, o.Nodes[1].Marked, o.Nodes[1].State = false, true, engine.NodeUnreachable
		}, "mark", Warning, "vault", "it marks only vault-2", "see reach"},
		{"not marked, active", func(o *Observation) { o.Nodes[0].Marked = false }, "active", Warning, "vault", "Consul does not mark it", "service_registration"},
		{"two marks", func(o *Observation) { o.Nodes[1].Marked = true }, "mark", Warning, "vault", "vault-1, vault-2", "only the active node"},
		{"marked standby", func(o *Observation) { o.Nodes[1].Marked = true }, "role", Warning, "vault-2", "Consul marks it as active", "see mark"},
		{"nothing to be marked by", func(o *Observation) {
			for i := range o.Nodes {
				o.Nodes[i].Node.Tags, o.Nodes[i].Node.Checks = nil, nil
			}
		}, "mark", Warning, "vault", "nothing marks an active node: the instances have no checks, and none of the tags", "service_registration"},
		{"no checks, by check", func(o *Observation) {
			o.Selection.Mode = discovery.ByCheck
			for i := range o.Nodes {
				o.Nodes[i].Node.Checks = nil
			}
		}, "mark", Warning, "vault", "the instances have no checks", "active_by auto"},
		{"registered twice", again(1, "lb"), "registration", Warning, "vault-2", "is registered twice, as vault-2/vault:10.0.0.2 and lb/vault:10.0.0.2", "on its own machine"},
		{"registered twice, on one node", again(1, "vault-2"), "registration", Warning, "vault-2", "twice, as vault-2/vault:10.0.0.2 and vault-2/own", "remove the service definition"},
		{"registered three times", func(o *Observation) { again(1, "lb")(o); again(1, "lc")(o) }, "registration", Warning, "vault-2", "3 times", ""},
		{"the active one twice is no split brain", again(0, "lb"), "active", OK, "vault", "vault-1", ""},
		{"the active one twice is marked once", again(0, "lb"), "mark", OK, "vault", "it marks vault-1", ""},
		{"the active one twice has one role", again(0, "lb"), "role", OK, "lb", "redirects lead here", ""},
		{"a standby twice can take over once", again(1, "lb"), "standby", OK, "vault", "can take over: vault-2, vault-3", ""},
		{"one address", oneAddress, "registration", Warning, "vault", "all nodes are registered with the same address, https://lb:443: api_addr has to be each node's own", "set api_addr"},
		{"one address is no split brain", oneAddress, "active", OK, "vault", "vault-1", ""},
		{"one address has no standby", oneAddress, "standby", Warning, "vault", "not known", "see registration"},
		{"no port in api_addr", noPort, "registration", Wrong, "vault-2", "api_addr has no port: Vault is registered as vault::443", `api_addr = "https://vault-2:8200"`},
		{"no port in api_addr, refused", noPort, "reach", Wrong, "vault-2", "refused", "see registration"},
		{"no port in api_addr, and right", func(o *Observation) {
			h := o.Nodes[1].Health
			noPort(o)
			o.Nodes[1].Health = h
		}, "registration", Warning, "vault-2", "no port", "api_addr"},
		{"no port in api_addr, mended by the option", func(o *Observation) { noPort(o); o.Nodes[1].URL = "https://vault-2:8200" }, "registration", OK, "vault", "once", ""},
		{"named ports", func(o *Observation) {
			o.Nodes[1].URL, o.Nodes[1].Why = "", engine.NoPort
		}, "redirect", Wrong, "vault-2", "several named ports", "option `port`"},
		{"closed", closed(engine.StepHandshake), "role", Wrong, "vault-2", "PROXY protocol?", "allow_authorized"},
		{"closed, http", closed(engine.StepRequest), "role", Wrong, "vault-2", "PROXY protocol?", "allow_authorized"},
		{"closed, to probes", closed(engine.StepHandshake), "probe", Warning, "vault", "no answer on its state, Consul decides: vault-2", "see role"},
		{"closed by one that is critical", func(o *Observation) {
			closed(engine.StepRequest)(o)
			o.Nodes[1].Failing = []string{"c"}
		}, "role", Wrong, "vault-2", "no answer to /v1/sys/health", "log"},
		{"refused by one that is passing", func(o *Observation) { o.Nodes[1].Inspection = failedAt(engine.StepConnect, "connection refused") }, "reach", Wrong, "vault-2", "refused", "proxy_protocol_behavior"},
		{"blocking queries cut", blocked(30*time.Second, "answered 504: x"), "blocking", Warning, "127.0.0.1:8500", "fail after 30s, while others are answered: answered 504", "`poll_interval` below its limit (here: 28s), or raise the limit to more than 1m4s"},
		{"blocking queries fail", blocked(3*time.Millisecond, "answered 500: x"), "blocking", Warning, "127.0.0.1:8500", "fail after 3ms", "`index` and `wait`"},
		{"by check", func(o *Observation) { o.Selection.Mode = discovery.ByCheck }, "mark", OK, "vault", "all checks of the instance", ""},
		{"two actives", func(o *Observation) { o.Nodes[1].Health.Role = engine.RoleOf(200) }, "active", Wrong, "vault", "vault-1, vault-2", "10s"},
		{"two candidates", func(o *Observation) { o.Candidates = 2 }, "active", Wrong, "vault", "2 nodes could be", "list-peers"},
		{"no active node", noActive(discovery.ReasonUnhealthy), "active", Wrong, "vault", "no active node: unhealthy", "vault status"},
		{"no answer in time", noActive(discovery.ReasonStarting), "active", Wrong, "vault", "starting", "--timeout"},
		{"by consul", func(o *Observation) { o.By = engine.BySource }, "active", OK, "vault", "Consul marks it", ""},
		{"consul errs", func(o *Observation) { o.By = engine.BySource; o.Nodes[0].Health.Role = engine.RoleOf(429) }, "active", Wrong, "vault", "says itself: standby (429)", "trust"},
		{"life only", func(o *Observation) { o.Nodes[2].Probe.Result = engine.ResultTLS }, "probe", Warning, "vault", "liveness only (certificate not trusted): vault-3", "probe { tls { ca FILE } }"},
		{"strict and untrusted", func(o *Observation) { o.Probe.Mode = engine.ProbeStrict; o.Nodes[2].Probe.Result = engine.ResultTLS }, "probe", Wrong, "vault", "never used", "ca FILE"},
		{"consul alone", func(o *Observation) { o.Nodes[2].Probe.Result = engine.ResultRefused }, "probe", Warning, "vault", "not reachable, Consul decides: vault-3", "see reach"},
		{"no standby", func(o *Observation) { o.Nodes = o.Nodes[:1] }, "standby", Warning, "vault", "no node can take over", "add a node"},
		{"http after https", func(o *Observation) { o.Nodes[0].URL = "http://vault-1.example.com:8200" }, "scheme", Wrong, "vault", "refuses", "scheme https"},
		{"a proxy may", func(o *Observation) {
			o.Sites = append(o.Sites[:0], Site{TLS: true, Proxy: true})
			o.Nodes[0].URL = "http://v:1"
		}, "standby", OK, "", "", ""},
		{"all is proxied", func(o *Observation) { o.Sites = append(o.Sites[:0], Site{TLS: true, Proxy: true}) }, "redirect", OK, "vault-1", "all requests are proxied to https://vault-1", ""},
		{"versions", func(o *Observation) { o.Nodes[2].Health.Version = "1.20.4" }, "version", Warning, "vault", "1.20.4 (vault-3), 1.21.0 (vault-1, vault-2)", "upgrade"},
		{"reads are served", reading(""), "reads", OK, "vault-2", "serves reads", ""},
		{"reads are forwarded", reading(engine.ForwardsReads), "reads", OK, "vault-2", "gets no reads: forwards reads", ""},
		{"all reads are forwarded", reading(engine.ForwardsReads), "reads", Warning, "vault", "does nothing", "OpenBao from 2.5"},
		{"reads are not served", reading("probe: 503, sealed"), "reads", Warning, "vault-2", "gets no reads: probe: 503, sealed", "see its other lines"},
		{"a matcher for all", reading("", Matcher{}), "reads", Warning, "vault", "lets every method through for all paths", "standby method GET LIST"},
		{"a matcher for writes", reading("", Matcher{Methods: []string{"GET", "PUT"}}), "reads", Warning, "vault", "lets GET, PUT through", "standby method GET LIST"},
		{"a matcher of paths", reading("", Matcher{Paths: []string{"/v1/secret/*", "/v1/transit/encrypt/*"}}), "reads", Warning, "vault", "lets every method through for /v1/secret/*:", "standby method GET LIST"},
		{"a matcher of leases", reading("", Matcher{Methods: []string{"GET"}, Paths: []string{"/v1/database/creds/*"}}), "reads", Warning, "vault", "each request is a write: /v1/database/creds/*:", "standby method GET LIST"},
		{"clusters", func(o *Observation) { o.Nodes[2].Health.ClusterID = "c2" }, "cluster", Wrong, "vault", "c2 (vault-3)", "service of its own"},
		{"clock ahead", func(o *Observation) { o.Nodes[2].Health.Ahead = 45 * time.Second }, "clock", Warning, "vault", "vault-3 is 45s ahead", "NTP"},
		{"clock behind", func(o *Observation) { o.Nodes[2].Health.Ahead = -time.Hour }, "clock", Warning, "vault", "vault-3 is 1h0m0s behind", "NTP"},
		{"clock near", func(o *Observation) { o.Nodes[2].Health.Ahead = 30 * time.Second }, "clock", OK, "vault", "within 30s", ""},
		{"unknown name of a node", func(o *Observation) { o.Nodes[1].Inspection = failedAt(engine.StepLookup, "no such host") }, "reach", Wrong, "vault-2", "no such host", "DNS"},
		{"firewall", func(o *Observation) { o.Nodes[1].Inspection = failedAt(engine.StepConnect, "no answer in time") }, "reach", Wrong, "vault-2", "no answer in time", "firewall"},
		{"20 days left", func(o *Observation) { o.Nodes[1].Certificate.To = now.Add(21*24*time.Hour - 1) }, "certificate", Warning, "vault-2", "20 days left", "renew"},
		{"21 days left", func(o *Observation) { o.Nodes[1].Certificate.To = now.Add(21 * 24 * time.Hour) }, "certificate", OK, "vault-2", "21 days left", ""},
		{"expired", func(o *Observation) { o.Nodes[1].Certificate.To = now }, "certificate", Wrong, "vault-2", "expired on 2026-11-24", "renew"},
		{"not yet valid", func(o *Observation) { o.Nodes[1].Certificate.From = now.Add(1) }, "certificate", Wrong, "vault-2", "not valid before", "clocks"},
		{"wrong name", func(o *Observation) { o.Nodes[1].Certificate.WrongName = "no" }, "certificate", Wrong, "vault-2", "not for vault-2", "issue it for"},
		{"untrusted", func(o *Observation) { o.Nodes[1].Certificate.Untrusted = "unknown authority" }, "certificate", Warning, "vault-2", "unknown authority", "ca FILE"},
		{"not verified", func(o *Observation) { o.Probe.TLS = &tls.Config{InsecureSkipVerify: true} }, "certificate", Warning, "vault-2", "insecure_skip_verify", "ca FILE"},
		{"no TLS", func(o *Observation) { o.Nodes[1].Inspection = failedAt(engine.StepHandshake, "handshake failure") }, "certificate", Wrong, "vault-2", "handshake failure", "log"},
		{"http, not https", otherScheme(""), "scheme", Wrong, "vault-2", "answers http", "TLS; or set `scheme http`, and serve clients by http"},
		{"http, not https, for a site that speaks http", func(o *Observation) {
			otherScheme("")(o)
			o.Sites[0].TLS = false
		}, "scheme", Wrong, "vault-2", "answers http", "TLS; or set `scheme http`"},
		{"http, not https, without a config", func(o *Observation) { otherScheme("")(o); o.Sites = nil }, "scheme", Wrong, "vault-2", "answers http", "--scheme http"},
		{"http, not https, by URL", func(o *Observation) {
			otherScheme("")(o)
			o.Selection.Mode = discovery.ByProbe
		}, "scheme", Wrong, "vault-2", "answers http", "write its URL with http://"},
		{"http, not https, to probes", otherScheme(""), "probe", Wrong, "vault", "the wrong scheme: vault-2", "see scheme"},
		{"https, not http", otherScheme("http://vault-2.example.com:8200"), "scheme", Wrong, "vault-2", "answers https", "set `scheme https`"},
		{"https, not http, to probes", otherScheme("http://vault-2.example.com:8200"), "probe", Wrong, "vault", "the wrong scheme: vault-2", "see scheme"},
		{"https, not http, and a site that cannot lead there", otherScheme("http://vault-2.example.com:8200"), "scheme", Wrong, "vault", "Vault's own client refuses that", "scheme https"},
		{"sealed", func(o *Observation) { o.Nodes[1].Health.Role = engine.RoleOf(503) }, "role", Warning, "vault-2", "sealed (503)", "unseal"},
		{"uninitialized", func(o *Observation) { o.Nodes[1].Health.Role = engine.RoleOf(501) }, "role", Warning, "vault-2", "501", "raft join"},
		{"removed", func(o *Observation) { o.Nodes[1].Health.Role = engine.RoleOf(530) }, "role", Warning, "vault-2", "removed", "join"},
		{"maintenance", func(o *Observation) { o.Nodes[1].State = engine.NodeMaintenance }, "role", Warning, "vault-2", "maintenance", "consul maint"},
		{"failing check", func(o *Observation) { o.Nodes[1].Failing = []string{"serfHealth"} }, "role", Warning, "vault-2", "serfHealth", "log of the Consul agent"},
		{"not Vault", func(o *Observation) { o.Nodes[1].Health = &engine.Health{Role: engine.RoleOf(404)} }, "role", Wrong, "vault-2", "not Vault (/v1/sys/health: 404)", "api_addr"},
		{"client certificate", func(o *Observation) {
			o.Nodes[1].Inspection = failedAt(engine.StepRequest, "remote error: tls: certificate required")
		}, "role", Wrong, "vault-2", "certificate required", "key FILE"},
		{"bad address", func(o *Observation) { o.Nodes[1].URL, o.Nodes[1].Why = "", "no address" }, "redirect", Wrong, "vault-2", "no address", "api_addr"},
		{"loopback of another machine", at("127.0.0.1", "10.0.0.1"), "redirect", Wrong, "vault-2", "the node is at 10.0.0.1", "api_addr"},
		{"loopback of this machine", at("127.0.0.1", "10.0.0.100"), "redirect", Wrong, "vault-2", "only clients on this machine", "api_addr"},
		{"loopback of a trial", at("127.0.0.1", "127.0.0.1"), "redirect", Warning, "vault-2", "only clients on this machine", "trial"},
		{"loopback by name", at("localhost", "10.0.0.1"), "redirect", Wrong, "vault-2", "loopback", "api_addr"},
		{"loopback for local clients", func(o *Observation) {
			at("127.0.0.1", "127.0.0.1")(o)
			o.Sites[0].Listen = []Listen{{"127.0.0.1", 80, 80}}
		}, "redirect", OK, "vault-2", "", ""},
		{"name that is loopback here", func(o *Observation) {
			o.Nodes[1].Addresses = []netip.Addr{netip.MustParseAddr("127.0.1.1")}
		}, "redirect", Warning, "vault-2", "loopback address here", "/etc/hosts"},
		{"redirector by address", func(o *Observation) {
			at("10.0.0.100", "10.0.0.100")(o)
			o.Sites[0].Listen = []Listen{{"", 8200, 8200}}
		}, "redirect", Wrong, "vault-2", "leads back to the redirector itself, which is listening on *:8200", "api_addr"},
		{"redirector by name", func(o *Observation) { o.Nodes[1].Host, o.Nodes[1].Port = "Vault.example.com", "443" }, "redirect", Wrong, "vault-2", "the site Vault.example.com", "api_addr"},
		{"another port", func(o *Observation) { at("10.0.0.100", "10.0.0.100")(o) }, "redirect", OK, "vault-2", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := healthy()
			row.make(o)
			list := o.Findings()
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

// again registers a node once more, on the node of Consul with a name; its checks are critical there.
func again(i int, name string) func(*Observation) {
	return func(o *Observation) {
		n := *o.Nodes[i]
		n.Label, n.Elected, n.Failing = name, false, []string{"c"}
		if n.Node.Name == name {
			n.Node.ID = "own"
		}
		n.Node.Name = name
		o.Nodes = append(o.Nodes, &n)
	}
}

// oneAddress registers all nodes with that of a balancer, which leads to the active one.
func oneAddress(o *Observation) {
	for i := range o.Nodes {
		o.Nodes[i].URL, o.Nodes[i].Inspection = "https://lb:443", o.Nodes[0].Inspection
	}
}

// noPort registers vault-2 as Vault does where api_addr has no port.
func noPort(o *Observation) {
	n := o.Nodes[1]
	n.Node.ID, n.Node.Port, n.URL = "vault::443", 443, "https://vault-2:443"
	n.Inspection = failedAt(engine.StepConnect, "connection refused")
}

// closed makes vault-2 close connections without an answer.
func closed(step engine.Step) func(*Observation) {
	return func(o *Observation) {
		o.Nodes[1].Inspection = failedAt(step, closedWithoutAnswer)
		o.Nodes[1].Probe = engine.ProbeOutcome{Result: engine.ResultRefused}
	}
}

// blocked makes queries that wait fail.
func blocked(after time.Duration, text string) func(*Observation) {
	return func(o *Observation) {
		o.Blocking = Blocking{Wait: time.Minute, Held: after, Failed: text}
	}
}

// failedAt is the inspection of a node that failed at a step.
func failedAt(step engine.Step, text string) engine.Inspection {
	return engine.Inspection{Host: "x", FailedStep: step, Failure: text}
}

// otherScheme makes vault-2 speak http, or https if it is given a URL of http.
func otherScheme(url string) func(*Observation) {
	return func(o *Observation) {
		n := o.Nodes[1]
		n.Inspection, n.Probe = engine.Inspection{FailedStep: engine.StepHandshake, Failure: "x", OtherScheme: true}, engine.ProbeOutcome{Result: engine.ResultTLS}
		if url != "" {
			n.URL, n.Inspection = url, engine.Inspection{Health: &engine.Health{Role: engine.RoleOf(400)}, OtherScheme: true}
			n.Probe = engine.ProbeOutcome{Result: engine.ResultInvalid, Code: 400}
		}
	}
}

// Where a node speaks the other scheme, nothing beside that says that all is well with the schemes.
func TestNoSchemeIsFineBesideAWrongOne(t *testing.T) {
	for _, url := range []string{"", "http://vault-2.example.com:8200"} {
		o := healthy()
		otherScheme(url)(o)
		for _, f := range o.Findings() {
			if (f.Check == "scheme" || f.Check == "probe") && f.Severity == OK {
				t.Errorf("%q: %+v", url, f)
			}
		}
	}
}

func failed(reason discovery.Reason, text string) func(*Observation) {
	return func(o *Observation) { o.Nodes, o.Failed, o.FailedWith = nil, reason, text }
}

func noActive(reason discovery.Reason) func(*Observation) {
	return func(o *Observation) {
		o.Reason, o.By, o.Candidates = reason, "", 0
		n := o.Nodes[0]
		n.Elected, n.Health.Code, n.Marked = false, 503, false
	}
}

// at registers vault-2 with a host, on a node whose address in Consul is home.
func at(host, home string) func(*Observation) {
	return func(o *Observation) {
		n := o.Nodes[1]
		n.URL, n.Host, n.Node.Address = "https://"+host+":8200", host, home
		n.Addresses = nil
		if ip, err := netip.ParseAddr(host); err == nil {
			n.Addresses = []netip.Addr{ip}
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
