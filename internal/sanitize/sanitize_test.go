// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package sanitize

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestHost(t *testing.T) {
	for _, row := range []struct{ name, host, want string }{
		{"name", "vault-1", "vault-1"},
		{"full name", "vault-1.example.com", "vault-1.example.com"},
		{"full name with a dot", "vault-1.example.com.", "vault-1.example.com."},
		{"underscores, as in names of Consul's nodes", "_vault_1.node_", "_vault_1.node_"},
		{"capitals stay", "Vault-1.Example.COM", "Vault-1.Example.COM"},
		{"digits", "1vault.2.example", "1vault.2.example"},
		{"punycode", "xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"longest label", strings.Repeat("a", 63), strings.Repeat("a", 63)},
		{"longest name", strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 126) + "a"},
		{"IPv4", "10.0.0.1", "10.0.0.1"},
		{"loopback is an address like others", "127.0.0.1", "127.0.0.1"},
		{"IPv6", "2001:db8::1", "2001:db8::1"},
		{"IPv6 in brackets", "[2001:db8::1]", "2001:db8::1"},
		{"IPv4 mapped", "::ffff:10.0.0.1", "::ffff:10.0.0.1"},
		{"link-local without a zone", "fe80::1", "fe80::1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, err := Host(row.host); err != nil || got != row.want {
				t.Errorf("%q, %v, want %q", got, err, row.want)
			}
		})
	}
}

// Everything that is not plainly one host is refused.
func TestHostRefuses(t *testing.T) {
	for _, host := range []string{
		"", "evil.com/", "/evil.com", "evil.com\\", "a@b", "user:pw@b", "x:1", "10.0.0.1:8200", "[::1]:8200", "http://a", "a?b", "a#b", "a;b", "a,b",
		" ", " a", "a ", "a b", "a\tb", "a\r\nX-Evil: 1", "a\n", "\ra", "a\x00", "a\x7f", "a\x1b[0m", "%2e", "a%2eb", "a%00", "%", "ünicode", "evil。com", "a\u202eb", "\xff",
		"0.0.0.0", "::", "[::]", "224.0.0.1", "ff02::1", "127.1", "0x7f.1", "0x7f.0.0.1", "0x7f000001", "0X7F000001", "2130706433", "017700000001", "127.0.0.01", "127.0.0.1.", "1.2.3.4.5", "256.0.0.1",
		"fe80::1%eth0", "[fe80::1%25eth0]", "fe80::1%25", "[::1", "::1]", "[[::1]]", "[]", "[a]", "[127.0.0.1]", ":::", ":",
		"-a", "a-", "a.-b", "a-.b", ".", "..", ".a", "a..b", "a..", "{node}", "$HOME", "a'b", `a"b`, "a|b", "a*", "*", "~", "a+b", "a=b", "<a>",
		strings.Repeat("a", 64), strings.Repeat("a", 256), strings.Repeat("a.", 128), strings.Repeat("é", 200),
		"::ffff:0.0.0.0", "::ffff:224.0.0.1", // netip's own tests do not see through IPv4-mapped addresses
	} {
		t.Run(host, func(t *testing.T) {
			got, err := Host(host)
			if err == nil || got != "" {
				t.Fatalf("%q became %q", host, got)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
				t.Errorf("the error shows the address raw: %q", err)
			}
		})
	}
}

// FuzzHost checks that what gets through is the whole host of a URL, for any parser.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"vault-1", "10.0.0.1", "[::1]", "::1", "a@b", "a:1", "fe80::1%25eth0", "0x7f.1", "a\r\nb", "é", "a/", "127.0.0.1."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		got, err := Host(host)
		if err != nil {
			return
		}
		if got != strings.Trim(host, "[]") {
			t.Fatalf("%q became %q", host, got)
		}
		authority := got
		ip, err := netip.ParseAddr(got)
		if err == nil && strings.Contains(got, ":") {
			authority = "[" + got + "]"
		}
		if ip.Zone() != "" || ip.IsValid() && (ip.IsUnspecified() || ip.IsMulticast()) {
			t.Fatalf("%q", got)
		}
		u, err := url.Parse("https://" + authority + ":8200/x")
		if err != nil || u.Hostname() != got || u.Port() != "8200" || u.User != nil || u.Path != "/x" {
			t.Fatalf("%q: %v, %+v", got, err, u)
		}
	})
}

func TestLine(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"", ""},
		{"no cluster leader", "no cluster leader"},
		{" <html>\r\n\t<body>\n\nSign in </body>", "<html> <body> Sign in </body>"},
		{"a\xffb", "ab"},
		{strings.Repeat("x", maxLine), strings.Repeat("x", maxLine)},
		{strings.Repeat("x", maxLine+1), strings.Repeat("x", maxLine) + "…"},
		{strings.Repeat("é", maxLine), strings.Repeat("é", maxLine/2) + "…"},
		{"x" + strings.Repeat("é", maxLine), "x" + strings.Repeat("é", maxLine/2-1) + "…"}, // no half of a rune
	} {
		t.Run(fmt.Sprintf("%.20q", row.text), func(t *testing.T) {
			if got := Line(row.text); got != row.want || !utf8.ValidString(got) {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}
