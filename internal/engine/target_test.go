// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

func TestTarget(t *testing.T) {
	full := discovery.Node{
		Name: "vault-1", ID: "vault:10.0.0.1:8200", Address: "10.1.0.1", ServiceAddress: "10.0.0.1", Port: 8200, Datacenter: "dc1",
		Meta: map[string]string{"host": "v1.example.com", "a.b": "dotted", "empty": "", "v6": "[2001:db8::7]"},
		Tagged: map[string]discovery.TaggedAddress{
			"wan": {Host: "203.0.113.5", Port: 8443}, "lan": {Host: "10.0.0.9", Port: 0}, "v6": {Host: "2001:db8::5", Port: 0}, "none": {Host: "", Port: 1}, "neg": {Host: "10.0.0.9", Port: -1}, "big": {Host: "a", Port: 65536},
		},
	}
	with := func(change func(*discovery.Node)) discovery.Node { n := full; change(&n); return n }
	noService := with(func(n *discovery.Node) { n.ServiceAddress = "" })
	for _, tc := range []struct {
		name       string
		scheme, to string
		port       int
		node       discovery.Node
		want       string // the URL, or, if it begins with "!", a part of the error
	}{
		{name: "defaults", node: full, want: "https://10.0.0.1:8200"},
		{name: "http", scheme: "http", node: full, want: "http://10.0.0.1:8200"},
		{name: "auto", to: "auto", node: full, want: "https://10.0.0.1:8200"},
		{name: "auto without service address", to: "auto", node: noService, want: "https://vault-1:8200"},
		{name: "node_name", to: "node_name", node: full, want: "https://vault-1:8200"},
		{name: "node_address", to: "node_address", node: full, want: "https://10.1.0.1:8200"},
		{name: "service_address", to: "service_address", node: full, want: "https://10.0.0.1:8200"},
		{name: "service_address of an instance without", to: "service_address", node: noService, want: "https://10.1.0.1:8200"},
		{name: "tagged with port", to: "tagged:wan", node: full, want: "https://203.0.113.5:8443"},
		{name: "tagged without port", to: "tagged:lan", node: full, want: "https://10.0.0.9:8200"},
		{name: "tagged IPv6", to: "tagged:v6", node: full, want: "https://[2001:db8::5]:8200"},
		{name: "tagged with port, overridden", to: "tagged:wan", port: 443, node: full, want: "https://203.0.113.5:443"},
		{name: "tagged, no such key", to: "tagged:moon", node: full, want: `!"moon"`},
		{name: "tagged, no host", to: "tagged:none", node: full, want: "!no address"},
		{name: "tagged, negative port", to: "tagged:neg", node: full, want: "!port -1"},
		{name: "tagged, port too great", to: "tagged:big", node: full, want: "!port 65536"},
		{name: "template node", to: "{node}.vault.example.com", node: full, want: "https://vault-1.vault.example.com:8200"},
		{name: "template of several", to: "{node}.{datacenter}.example.com", node: full, want: "https://vault-1.dc1.example.com:8200"},
		{name: "template node_address", to: "{node_address}", node: full, want: "https://10.1.0.1:8200"},
		{name: "template service_address", to: "{service_address}", node: full, want: "https://10.0.0.1:8200"},
		{name: "template meta", to: "{meta.host}", node: full, want: "https://v1.example.com:8200"},
		{name: "template meta with a dot in the key", to: "{meta.a.b}", node: full, want: "https://dotted:8200"},
		{name: "template meta IPv6", to: "{meta.v6}", node: full, want: "https://[2001:db8::7]:8200"},
		{name: "template without a value", to: "{meta.empty}.example.com", node: full, want: "!meta.empty"},
		{name: "template of a missing key", to: "a{meta.none}", node: full, want: "!meta.none"},
		{name: "template that makes no host name", to: "{id}.example.com", node: full, want: "!host name"},
		{name: "port overrides", port: 443, node: full, want: "https://10.0.0.1:443"},
		{name: "port overrides a wrong one", port: 8200, node: with(func(n *discovery.Node) { n.Port = -7 }), want: "https://10.0.0.1:8200"},
		{name: "no port", node: with(func(n *discovery.Node) { n.Port = 0 }), want: "!no port is registered"},
		{name: "port 65535", node: with(func(n *discovery.Node) { n.Port = 65535 }), want: "https://10.0.0.1:65535"},
		{name: "port 65536", node: with(func(n *discovery.Node) { n.Port = 65536 }), want: "!65535"},
		{name: "IPv6", node: with(func(n *discovery.Node) { n.ServiceAddress = "2001:db8::1" }), want: "https://[2001:db8::1]:8200"},
		{name: "IPv6 in brackets", node: with(func(n *discovery.Node) { n.ServiceAddress = "[2001:DB8::1]" }), want: "https://[2001:DB8::1]:8200"},
		{name: "IPv6 loopback", node: with(func(n *discovery.Node) { n.ServiceAddress = "::1" }), want: "https://[::1]:8200"},
		{name: "underscores and digits", to: "node_name", node: with(func(n *discovery.Node) { n.Name = "Vault_1.dc-1.10.example" }), want: "https://Vault_1.dc-1.10.example:8200"},
		{name: "absolute name", to: "node_name", node: with(func(n *discovery.Node) { n.Name = "vault.example.com." }), want: "https://vault.example.com.:8200"},
		{name: "longest label", to: "node_name", node: with(func(n *discovery.Node) { n.Name = strings.Repeat("a", 63) }), want: "https://" + strings.Repeat("a", 63) + ":8200"},
		{name: "no name", to: "node_name", node: with(func(n *discovery.Node) { n.Name = "" }), want: "!no address"},
		{name: "no node address", to: "node_address", node: with(func(n *discovery.Node) { n.Address = "" }), want: "!no address"},
		{name: "no address at all", to: "service_address", node: discovery.Node{Port: 1}, want: "!no address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := NewAddressing(tc.scheme, tc.to, tc.port)
			if err != nil {
				t.Fatal(err)
			}
			got, err := a.target(&tc.node, "")
			if part, bad := strings.CutPrefix(tc.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), part) || got != (Target{}) {
					t.Errorf("target %q, error %v, want none and %q", got.URL, err, part)
				}
				return
			}
			if err != nil || got.URL != tc.want || !strings.HasSuffix(tc.want, "://"+got.Authority) {
				t.Errorf("target %+v, error %v, want %s", got, err, tc.want)
			}
		})
	}
}

// The certificate must have the name that discovery gives, or the host; where the active node names its own address, that.
func TestServerName(t *testing.T) {
	for _, row := range []struct{ name, to, leader, want string }{
		{"", "auto", "", "10.0.0.1"},
		{"vault.example.com", "auto", "", "vault.example.com"},
		{"vault.example.com", "leader", "", "vault.example.com"}, // not known yet
		{"vault.example.com", "leader", "https://vault-1.example.com:8200", "vault-1.example.com"},
	} {
		a, err := NewAddressing("", row.to, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.target(&discovery.Node{ServiceAddress: "10.0.0.1", ServerName: row.name, Port: 8200}, row.leader)
		if got.ServerName != row.want || err != nil {
			t.Errorf("%+v: %q, %v", row, got.ServerName, err)
		}
	}
}

// A node is probed at its own address, and its certificate there is for that, wherever it says that clients are to go.
func TestProbesOfLeadersKeepTheirName(t *testing.T) {
	a, err := NewAddressing("", ToLeader, 0)
	if err != nil {
		t.Fatal(err)
	}
	m := member{
		node: discovery.Node{ServiceAddress: "vault-1.example.com", Port: 8200}, findings: findings{verdict: verdict{kind: verdictActive}, leader: "https://10.0.0.1:8200"},
	}
	a.locate(&m)
	if m.target.Host != "10.0.0.1" || m.direct.URL != "https://vault-1.example.com:8200" || m.direct.ServerName != "vault-1.example.com" {
		t.Errorf("to %s, probed at %s for %s", m.target.URL, m.direct.URL, m.direct.ServerName)
	}
}

// Every mode refuses what is not plainly one host.
func TestTargetHostile(t *testing.T) {
	hostile := []string{
		"evil.com/", "/evil.com", "evil.com\\", "a@b", "user:pw@b", "x:1", "10.0.0.1:8200", "[::1]:8200", "http://a", "a?b", "a#b", "a;b", "a,b",
		" ", " a", "a ", "a b", "a\tb", "a\r\nX-Evil: 1", "a\n", "\ra", "a\x00", "a\x7f", "a\x1b[0m", "%2e", "a%2eb", "a%00", "%", "ünicode", "evil。com", "a\u202eb", "\xff",
		"0.0.0.0", "::", "[::]", "224.0.0.1", "ff02::1", "127.1", "0x7f.1", "0x7f.0.0.1", "0x7f000001", "0X7F000001", "2130706433", "017700000001", "127.0.0.01", "127.0.0.1.", "1.2.3.4.5", "256.0.0.1",
		"fe80::1%eth0", "[fe80::1%25eth0]", "fe80::1%25", "[::1", "::1]", "[[::1]]", "[]", "[a]", "[127.0.0.1]", ":::", ":",
		"-a", "a-", "a.-b", "a-.b", ".", "..", ".a", "a..b", "a..", "{node}", "$HOME", "a'b", `a"b`, "a|b", "a*", "*", "~", "a+b", "a=b", "<a>",
		strings.Repeat("a", 64), strings.Repeat("a", 256), strings.Repeat("a.", 128), strings.Repeat("é", 200),
		// netip's IsUnspecified does not see through IPv4-mapped addresses.
		"::ffff:0.0.0.0",
	}
	for mode, node := range map[string]func(string) discovery.Node{
		"auto":         func(h string) discovery.Node { return discovery.Node{Name: "ok", ServiceAddress: h, Port: 1} },
		"node_name":    func(h string) discovery.Node { return discovery.Node{Name: h, ServiceAddress: "ok", Port: 1} },
		"node_address": func(h string) discovery.Node { return discovery.Node{Name: "ok", Address: h, Port: 1} },
		"service_address": func(h string) discovery.Node {
			return discovery.Node{Name: "ok", Address: "ok", ServiceAddress: h, Port: 1}
		},
		"tagged:wan": func(h string) discovery.Node {
			return discovery.Node{Tagged: map[string]discovery.TaggedAddress{"wan": {Host: h, Port: 1}}}
		},
		"{meta.h}": func(h string) discovery.Node { return discovery.Node{Meta: map[string]string{"h": h}, Port: 1} },
	} {
		for _, host := range hostile {
			t.Run(mode+"/"+host, func(t *testing.T) {
				a, err := NewAddressing("https", mode, 0)
				if err != nil {
					t.Fatal(err)
				}
				n := node(host)
				got, err := a.target(&n, "")
				if err == nil || got != (Target{}) {
					t.Fatalf("%q became %q", host, got.URL)
				}
				if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
					t.Errorf("the error shows the address raw: %q", err)
				}
			})
		}
	}
}

func TestNewAddressingRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, scheme, to string
		port             int
		want             []string // the field and what would be right
	}{
		{"scheme", "ftp", "", 0, []string{"scheme", `"ftp"`, "http", "https"}},
		{"scheme in capitals", "HTTPS", "", 0, []string{"scheme", `"HTTPS"`, "https"}},
		{"scheme with ://", "https://", "", 0, []string{"scheme", "https"}},
		{"negative port", "", "", -1, []string{"port", "-1", "between 1 and 65535"}},
		{"great port", "", "", 65536, []string{"port", "65536", "between 1 and 65535"}},
		{"unknown mode", "", "node-name", 0, []string{"redirect_to", `"node-name"`, "node_name", "tagged:<key>", "{node}"}},
		{"fixed host", "", "vault.example.com", 0, []string{"redirect_to", "template"}},
		{"tagged without key", "", "tagged:", 0, []string{"redirect_to", "tagged:wan"}},
		{"unknown placeholder", "", "{nodes}.x", 0, []string{"redirect_to", "{nodes}", "{node}", "{meta.<key>}"}},
		{"placeholder of Caddy", "", "{http.request.host}", 0, []string{"redirect_to", "{http.request.host}", "{node}"}},
		{"meta without key", "", "{meta.}", 0, []string{"redirect_to", "{meta.}", "{meta.<key>}"}},
		{"not closed", "", "{node.x", 0, []string{"redirect_to", "not closed"}},
		{"closed twice", "", "{node}}", 0, []string{"redirect_to", "{node}}"}},
		{"template with port", "", "{node}:8200", 0, []string{"redirect_to", "{node}:8200", "host name"}},
		{"template with scheme", "", "https://{node}", 0, []string{"redirect_to", "https://{node}"}},
		{"template with path", "", "{node}/x", 0, []string{"redirect_to", "{node}/x"}},
		{"template with user", "", "evil@{node}", 0, []string{"redirect_to", "evil@{node}"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := NewAddressing(tc.scheme, tc.to, tc.port)
			wantError(t, err, tc.want...)
		})
	}
}
