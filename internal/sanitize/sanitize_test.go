// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package sanitize

import (
	"net"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

// The engine's tests have the table of hostile addresses, for each way by which they come.
func TestHost(t *testing.T) {
	for host, want := range map[string]string{
		"vault-1":                 "vault-1",
		"vault.example.com.":      "vault.example.com.",
		"10.0.0.1":                "10.0.0.1",
		"2001:db8::1":             "2001:db8::1",
		"[2001:db8::1]":           "2001:db8::1",
		"::ffff:10.0.0.1":         "::ffff:10.0.0.1",
		"":                        "",
		"::ffff:0.0.0.0":          "",
		"[10.0.0.1]":              "",
		"fe80::1%eth0":            "",
		"a.example.com:8200":      "",
		"user@a.example.com":      "",
		"2130706433":              "",
		"a.0x7f":                  "",
		"-a":                      "",
		"a..b":                    "",
		strings.Repeat("a.", 200): "",
	} {
		got, err := Host(host)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", host, got, err, want)
		}
	}
}

// FuzzHost has whatever gets through be the whole host of a URL, and nothing but that.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"vault-1", "10.0.0.1", "[::1]", "a@b", "a/b", "a:1", "%2e", "a\r\nb", "::1%eth0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, err := Host(text)
		if err != nil {
			return
		}
		u, err := url.Parse("https://" + net.JoinHostPort(host, "8200") + "/v1/x")
		if err != nil || u.Hostname() != host || u.Port() != "8200" || u.User != nil || u.Path != "/v1/x" || u.RawQuery != "" {
			t.Errorf("%q became %q: %+v, %v", text, host, u, err)
		}
	})
}

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "",
		" one \r\n\ttwo ":      "one two",
		"a\xffb":               "ab",
		"\x1b[31mred\x00\x7f":  "[31mred",
		"<html>\n<body>\nno\n": "<html> <body> no",
	} {
		if got := Line(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	if long := Line(strings.Repeat("é", 1000)); len(long) > maxLine+len("…") || !utf8.ValidString(long) {
		t.Errorf("%d bytes, valid %v", len(long), utf8.ValidString(long))
	}
}
