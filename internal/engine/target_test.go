// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the way from a Node to its target: modes, templates, hostile addresses, redirect loops.

package vaultredirect

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTarget(t *testing.T) {
	full := Node{
		Name: "vault-1", ID: "vault:10.0.0.1:8200", Address: "10.1.0.1", ServiceAddress: "10.0.0.1", Port: 8200, Datacenter: "dc1",
		Meta: map[string]string{"host": "v1.example.com", "a.b": "dotted", "empty": "", "v6": "[2001:db8::7]"},
		Tagged: map[string]TaggedAddress{
			"wan": {"203.0.113.5", 8443}, "lan": {"10.0.0.9", 0}, "v6": {"2001:db8::5", 0}, "none": {"", 1}, "neg": {"10.0.0.9", -1}, "big": {"a", 65536},
		},
	}
	with := func(change func(*Node)) Node { n := full; change(&n); return n }
	noService := with(func(n *Node) { n.ServiceAddress = "" })
	for _, tc := range []struct {
		name       string
		scheme, to string
		port       int
		node       Node
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
		{name: "port overrides a wrong one", port: 8200, node: with(func(n *Node) { n.Port = -7 }), want: "https://10.0.0.1:8200"},
		{name: "no port", node: with(func(n *Node) { n.Port = 0 }), want: "!port 0"},
		{name: "port 65535", node: with(func(n *Node) { n.Port = 65535 }), want: "https://10.0.0.1:65535"},
		{name: "port 65536", node: with(func(n *Node) { n.Port = 65536 }), want: "!65535"},
		{name: "IPv6", node: with(func(n *Node) { n.ServiceAddress = "2001:db8::1" }), want: "https://[2001:db8::1]:8200"},
		{name: "IPv6 in brackets", node: with(func(n *Node) { n.ServiceAddress = "[2001:DB8::1]" }), want: "https://[2001:DB8::1]:8200"},
		{name: "IPv6 loopback", node: with(func(n *Node) { n.ServiceAddress = "::1" }), want: "https://[::1]:8200"},
		{name: "underscores and digits", to: "node_name", node: with(func(n *Node) { n.Name = "Vault_1.dc-1.10.example" }), want: "https://Vault_1.dc-1.10.example:8200"},
		{name: "absolute name", to: "node_name", node: with(func(n *Node) { n.Name = "vault.example.com." }), want: "https://vault.example.com.:8200"},
		{name: "longest label", to: "node_name", node: with(func(n *Node) { n.Name = strings.Repeat("a", 63) }), want: "https://" + strings.Repeat("a", 63) + ":8200"},
		{name: "no name", to: "node_name", node: with(func(n *Node) { n.Name = "" }), want: "!no address"},
		{name: "no node address", to: "node_address", node: with(func(n *Node) { n.Address = "" }), want: "!no address"},
		{name: "no address at all", to: "service_address", node: Node{Port: 1}, want: "!no address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := newAddressing(tc.scheme, tc.to, tc.port)
			if err != nil {
				t.Fatal(err)
			}
			got, err := a.target(&tc.node)
			if part, bad := strings.CutPrefix(tc.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), part) || got != (target{}) {
					t.Errorf("target %q, error %v, want none and %q", got.url, err, part)
				}
				return
			}
			if err != nil || got.url != tc.want || !strings.HasSuffix(tc.want, "://"+got.authority) {
				t.Errorf("target %+v, error %v, want %s", got, err, tc.want)
			}
		})
	}
}

// TestTargetHostile has every mode refuse what is not plainly one host.
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
	for mode, node := range map[string]func(string) Node{
		"auto":            func(h string) Node { return Node{Name: "ok", ServiceAddress: h, Port: 1} },
		"node_name":       func(h string) Node { return Node{Name: h, ServiceAddress: "ok", Port: 1} },
		"node_address":    func(h string) Node { return Node{Name: "ok", Address: h, Port: 1} },
		"service_address": func(h string) Node { return Node{Name: "ok", Address: "ok", ServiceAddress: h, Port: 1} },
		"tagged:wan":      func(h string) Node { return Node{Tagged: map[string]TaggedAddress{"wan": {h, 1}}} },
		"{meta.h}":        func(h string) Node { return Node{Meta: map[string]string{"h": h}, Port: 1} },
	} {
		for _, host := range hostile {
			t.Run(mode+"/"+host, func(t *testing.T) {
				a, err := newAddressing("https", mode, 0)
				if err != nil {
					t.Fatal(err)
				}
				n := node(host)
				got, err := a.target(&n)
				if err == nil || got != (target{}) {
					t.Fatalf("%q became %q", host, got.url)
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
			_, err := newAddressing(tc.scheme, tc.to, tc.port)
			wantError(t, err, tc.want...)
		})
	}
}

// wantError fails unless the error has all parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in the error: %v", part, err)
		}
	}
}

func TestIsSelf(t *testing.T) {
	tcp := func(s string) net.Addr { a, _ := net.ResolveTCPAddr("tcp", s); return a }
	for _, tc := range []struct {
		name      string
		host, to  string // the request's Host; where the node is, without scheme
		scheme    string
		port      int
		tls       bool
		forwarded string
		local     net.Addr
		want      bool
	}{
		{name: "another node", host: "vault.example.com:8200", to: "vault-1", port: 8200},
		{name: "same name and port", host: "vault.example.com:8200", to: "vault.example.com", port: 8200, want: true},
		{name: "case", host: "VAULT.example.com:8200", to: "vault.EXAMPLE.com", port: 8200, want: true},
		{name: "same name, another port", host: "vault.example.com:8201", to: "vault.example.com", port: 8200},
		{name: "no port, but the node has one", host: "vault.example.com", to: "vault.example.com", port: 8200},
		{name: "no port, https, 443", host: "vault.example.com", to: "vault.example.com", port: 443, tls: true, want: true},
		{name: "no port, case, https, 443", host: "Vault.example.com", to: "vault.example.com", port: 443, tls: true, want: true},
		{name: "no port, http, 443", host: "vault.example.com", to: "vault.example.com", port: 443},
		{name: "no port, http, 80", host: "vault.example.com", to: "vault.example.com", scheme: "http", port: 80, want: true},
		{name: "no port, https, 80", host: "vault.example.com", to: "vault.example.com", scheme: "http", port: 80, tls: true},
		{name: "explicit 443", host: "vault.example.com:443", to: "vault.example.com", port: 443, tls: true, want: true},
		{name: "behind a proxy that ends TLS", host: "vault.example.com", to: "vault.example.com", port: 443, forwarded: "https", want: true},
		{name: "behind a proxy, in capitals", host: "vault.example.com", to: "vault.example.com", port: 443, forwarded: "HTTPS", want: true},
		{name: "behind a proxy of plain http", host: "vault.example.com", to: "vault.example.com", port: 443, forwarded: "http"},
		{name: "IPv6", host: "[2001:db8::1]:8200", to: "2001:db8::1", port: 8200, want: true},
		{name: "IPv6 case", host: "[2001:DB8::1]:8200", to: "2001:db8::1", port: 8200, want: true},
		{name: "IPv6 without port", host: "[2001:db8::1]", to: "2001:db8::1", port: 443, tls: true, want: true},
		{name: "IPv6, another", host: "[2001:db8::2]:8200", to: "2001:db8::1", port: 8200},
		{name: "own socket", host: "lb.example.com", to: "10.0.0.5", port: 8200, local: tcp("10.0.0.5:8200"), want: true},
		{name: "own socket, IPv4 mapped", host: "lb.example.com", to: "10.0.0.5", port: 8200, local: &net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.5"), Port: 8200}, want: true},
		{name: "own socket, mapped by the node", host: "lb.example.com", to: "::ffff:10.0.0.5", port: 8200, local: tcp("10.0.0.5:8200"), want: true},
		{name: "own socket, IPv6", host: "lb", to: "2001:db8::1", port: 8200, local: tcp("[2001:db8::1]:8200"), want: true},
		{name: "own socket, HTTP/3", host: "lb", to: "10.0.0.5", port: 8200, local: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 8200}, want: true},
		{name: "own address, another port", host: "lb", to: "10.0.0.5", port: 8200, local: tcp("10.0.0.5:443")},
		{name: "another address, same port", host: "lb", to: "10.0.0.6", port: 8200, local: tcp("10.0.0.5:8200")},
		{name: "a name is no socket", host: "lb", to: "vault-1", port: 8200, local: tcp("10.0.0.5:8200")},
		{name: "unix socket", host: "lb", to: "10.0.0.5", port: 8200, local: &net.UnixAddr{Name: "/run/x", Net: "unix"}},
		{name: "no Host", to: "vault-1", port: 443, tls: true},
		{name: "name of another site behind the same name", host: "vault.example.com.evil", to: "vault.example.com", port: 443, tls: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := newAddressing(tc.scheme, "auto", 0)
			if err != nil {
				t.Fatal(err)
			}
			to, err := a.target(&Node{ServiceAddress: tc.to, Port: tc.port})
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, "/v1/sys/health", nil)
			r.Host = tc.host
			if tc.tls {
				r.TLS = new(tls.ConnectionState)
			}
			if tc.forwarded != "" {
				r.Header.Set("X-Forwarded-Proto", tc.forwarded)
			}
			if tc.local != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tc.local))
			}
			if got := to.isSelf(r); got != tc.want {
				t.Errorf("isSelf is %v for Host %q and target %s", got, tc.host, to.url)
			}
		})
	}
}
