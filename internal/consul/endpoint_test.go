// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package consul

import (
	"net/url"
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	for _, row := range []struct {
		name, address string
		tls           bool
		want          string // scheme and String
	}{
		{"host and port", "a:1", false, "http a:1"},
		{"host and port over TLS", "a:1", true, "https a:1"},
		{"http", "http://a:1", false, "http a:1"},
		{"http over TLS", "http://a:1", true, "http a:1"},
		{"https", "https://a:1", false, "https a:1"},
		{"URL without port", "https://consul.test", false, "https consul.test"},
		{"path prefix", "https://proxy.test/consul/", false, "https proxy.test/consul"},
		{"path prefix without scheme", "proxy.test:80/a/b", false, "http proxy.test:80/a/b"},
		{"IPv6", "[::1]:8500", false, "http [::1]:8500"},
		{"IPv6 URL", "http://[2001:db8::1]", false, "http [2001:db8::1]"},
		{"IPv6 with a zone, which is of this machine", "[fe80::1%25lo]:8500", false, "http [fe80::1%lo]:8500"},
		{"socket", "unix:///run/consul.sock", false, "http unix:///run/consul.sock"},
	} {
		t.Run(row.name, func(t *testing.T) {
			e, err := ParseEndpoint(row.address, row.tls)
			if got := e.Scheme + " " + e.String(); err != nil || got != row.want {
				t.Errorf("%q, %v, want %q", got, err, row.want)
			}
		})
	}
}

func TestParseEndpointRefuses(t *testing.T) {
	for _, row := range []struct {
		name, address string
		want          []string
	}{
		{"nothing", "", []string{"127.0.0.1:8500"}},
		{"no port", "consul.test", []string{"consul.test:8500"}},
		{"IPv6 without port", "[::1]", []string{"[::1]:8500"}},
		{"IPv6 without brackets", "::1:8500", []string{"::1"}}, // no connection could be made to it
		{"port 0", "a:0", []string{"between 1 and 65535"}},
		{"port 65536", "http://a:65536", []string{"between 1 and 65535"}},
		{"port by name", "a:http", []string{"127.0.0.1:8500"}},
		{"no host", ":8500", []string{"127.0.0.1:8500"}},
		{"no host in a URL", "http:///v1", []string{"not an address"}},
		{"scheme", "tcp://a:1", []string{"tcp", "http, https or unix"}},
		{"query", "http://a:1?x", []string{"query"}},
		{"fragment", "http://a:1#x", []string{"fragment"}},
		{"relative socket", "unix://run/consul.sock", []string{"unix:///"}},
		{"spaces", "a b:1", []string{"not an address"}},
		{"no host name", "a_/b*:1", []string{"a_"}},
		{"user", "http://user:hunter2@a:1", []string{"CONSUL_HTTP_AUTH"}},
		{"user without scheme", "user:hunter2@a:1", []string{"CONSUL_HTTP_AUTH"}},
		{"user and a wrong scheme", "tcp://user:hunter2@a:1", nil},
		{"user and a wrong port", "http://user:hunter2@a:x", nil},
		// Wherever a password hides: a /, # or ? in it ends the authority.
		{"password with a slash", "http://user:hunter2/x@a:1", nil},
		{"password with a slash after digits", "http://user:1/hunter2@a:1", nil},
		{"password with ?", "http://user:1?hunter2@a:1", nil},
		{"password with #", "http://user:1#hunter2@a:1", nil},
		{"user of a socket", "unix://user:hunter2@/run/x", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			e, err := ParseEndpoint(row.address, false)
			if err == nil {
				t.Fatalf("taken as %s", e)
			}
			for _, part := range row.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in the error: %v", part, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in the error: %v", err)
			}
		})
	}
}

// FuzzParseEndpoint checks that what gets through is one host of a URL, and holds no password.
func FuzzParseEndpoint(f *testing.F) {
	for _, seed := range []string{"a:1", "https://a/b", "unix:///x", "u:p@a:1", "[::1]:8500", "a:1?x", "http://[fe80::1%25lo]", "http://a:0", "//a:1"} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, address string, useTLS bool) {
		e, err := ParseEndpoint(address, useTLS)
		if err != nil {
			return
		}
		if e.Host == "" || strings.ContainsAny(e.Host, "@/?#\\ ") || e.Scheme != "http" && e.Scheme != "https" {
			t.Fatalf("%q became %+v", address, e)
		}
		host := strings.ReplaceAll(e.Host, "%", "%25")
		if u, err := url.Parse(e.Scheme + "://" + host + "/v1"); err != nil || u.Host != e.Host || u.User != nil {
			t.Fatalf("%q became %+v: %v, %+v", address, e, err, u)
		}
	})
}
