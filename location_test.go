// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// readRequest reads a request as net/http's server does.
func readRequest(line string) (*http.Request, error) {
	return http.ReadRequest(bufio.NewReader(strings.NewReader(line + "\r\nHost: redirector.test\r\n\r\n")))
}

func TestLocation(t *testing.T) {
	h, end := handlerOf(t, "https", "", nodeAt("vault-1.test", 8200))
	defer end()
	rewrite := func(path, raw string) func(*http.Request) {
		return func(r *http.Request) { r.URL.Path, r.URL.RawPath = path, raw }
	}
	for _, tc := range []struct {
		name   string
		line   string
		change func(*http.Request) // by a handler before this one
		want   string              // what follows https://vault-1.test:8200; "400" for that answer
	}{
		{name: "plain", line: "GET /v1/secret/data/a HTTP/1.1", want: "/v1/secret/data/a"},
		{name: "LIST", line: "LIST /v1/secret/metadata/ HTTP/1.1", want: "/v1/secret/metadata/"},
		{name: "PUT by HTTP/1.0", line: "PUT /v1/x HTTP/1.0", want: "/v1/x"},
		{name: "root", line: "GET / HTTP/1.1", want: "/"},
		{name: "%2F", line: "GET /v1/secret/a%2Fb%2fc HTTP/1.1", want: "/v1/secret/a%2Fb%2fc"},
		{name: "%2F alone", line: "GET /%2F HTTP/1.1", want: "/%2F"},
		{name: "two slashes", line: "GET /v1//x// HTTP/1.1", want: "/v1//x//"},
		{name: "two slashes first", line: "GET //evil.com/x HTTP/1.1", want: "//evil.com/x"},
		{name: "three slashes first", line: "GET ///evil.com HTTP/1.1", want: "///evil.com"},
		{name: "backslash", line: `GET /\evil.com HTTP/1.1`, want: `/\evil.com`},
		{name: "user in the path", line: "GET /@evil.com:80/ HTTP/1.1", want: "/@evil.com:80/"},
		{name: "dots stay", line: "GET /v1/../../x/./%2e%2e HTTP/1.1", want: "/v1/../../x/./%2e%2e"},
		{name: "? alone", line: "GET /v1/x? HTTP/1.1", want: "/v1/x?"},
		{name: "??", line: "GET /v1/x?? HTTP/1.1", want: "/v1/x??"},
		{name: "query", line: "GET /v1/x?a=b%20c&d=%2F+e;f HTTP/1.1", want: "/v1/x?a=b%20c&d=%2F+e;f"},
		{name: "query with what is not escaped right", line: "GET /x?a=%zz&%&=\"|^'<> HTTP/1.1", want: "/x?a=%zz&%&=\"|^'<>"},
		{name: "query that looks like a URL", line: "GET /x?http://evil.com/@ HTTP/1.1", want: "/x?http://evil.com/@"},
		{name: "needless escape", line: "GET /%41%7E HTTP/1.1", want: "/%41%7E"},
		{name: "lower case escape", line: "GET /%c3%a9 HTTP/1.1", want: "/%c3%a9"},
		{name: "escaped control characters", line: "GET /%0d%0aX:%00%7f%20%3F%23%25 HTTP/1.1", want: "/%0d%0aX:%00%7f%20%3F%23%25"},
		{name: "unescaped |", line: "GET /a|b HTTP/1.1", want: "/a|b"},
		{name: `unescaped "`, line: `GET /a"b HTTP/1.1`, want: `/a"b`},
		{name: "unescaped ^", line: "GET /a^b HTTP/1.1", want: "/a^b"},
		{name: "unescaped others, with %2F", line: "GET /a`{}<>[]|%2Fb HTTP/1.1", want: "/a`{}<>[]|%2Fb"},
		{name: "sub-delimiters", line: "GET /a;b,c=d!$&'()*+:@~_-. HTTP/1.1", want: "/a;b,c=d!$&'()*+:@~_-."},
		{name: "non-ASCII is escaped", line: "GET /é HTTP/1.1", want: "/%C3%A9"},
		{name: "no UTF-8", line: "GET /\xff\x80 HTTP/1.1", want: "/%FF%80"},
		// Escaped anew, a%2Fb would become a/b: another path.
		{name: "non-ASCII and %2F", line: "GET /é/a%2Fb HTTP/1.1", want: "/%C3%A9/a%2Fb"},
		{name: "# in the path", line: "GET /a#b HTTP/1.1", want: "/a%23b"},
		{name: "# in the path and %2F", line: "GET /a#b%2Fc HTTP/1.1", want: "/a%23b%2Fc"},
		{name: "# in the query", line: "GET /a?b#c#d HTTP/1.1", want: "/a?b%23c%23d"},
		{name: "absolute-form", line: "GET http://evil.com/x%2Fy?z HTTP/1.1", want: "/x%2Fy?z"},
		{name: "absolute-form, no path", line: "GET https://evil.com HTTP/1.1", want: "/"},
		{name: "absolute-form, query only", line: "GET https://evil.com?a HTTP/1.1", want: "/?a"},
		{name: "absolute-form with user", line: "GET http://u:p@evil.com:99/x HTTP/1.1", want: "/x"},
		{name: "absolute-form, two slashes", line: "GET http://evil.com//evil.org/ HTTP/1.1", want: "//evil.org/"},
		{name: "opaque", line: "GET mailto:x@evil.com HTTP/1.1", want: "400"},
		{name: "opaque http", line: "GET http:evil.com HTTP/1.1", want: "400"},
		{name: "*", line: "OPTIONS * HTTP/1.1", want: "400"},
		{name: "* by GET", line: "GET * HTTP/1.1", want: "400"},
		{name: "CONNECT", line: "CONNECT evil.com:443 HTTP/1.1", want: "400"},
		{name: "CONNECT with a path", line: "CONNECT /x HTTP/1.1", want: "400"},

		{name: "rewritten to another path", line: "GET /a/x%2Fy?q HTTP/1.1", change: rewrite("/x/y", "/x%2Fy"), want: "/x%2Fy?q"},
		{name: "rewritten to nothing", line: "GET /a?q HTTP/1.1", change: rewrite("", ""), want: "/?q"},
		{name: "rewritten, no slash", line: "GET /a HTTP/1.1", change: rewrite("x", ""), want: "400"},
		{name: "rewritten, no slash: a longer host", line: "GET /a HTTP/1.1", change: rewrite(".evil.com/", ""), want: "400"},
		{name: "rewritten, no slash: another port", line: "GET /a HTTP/1.1", change: rewrite("1", ""), want: "400"},
		{name: "rewritten, no slash: a user", line: "GET /a HTTP/1.1", change: rewrite("@evil.com/", "@evil.com/"), want: "400"},
		{name: "rewritten, the raw path has no slash", line: "GET /a HTTP/1.1", change: rewrite("/x", "%2Fx"), want: "400"},
		{name: "rewritten, the raw path is of another path", line: "GET /a HTTP/1.1", change: rewrite("/x", "@evil.com/"), want: "/x"},
		{name: "rewritten, the raw path is none", line: "GET /a HTTP/1.1", change: rewrite("/x y", "/%zz"), want: "/x%20y"},
		{name: "rewritten with spaces and controls", line: "GET /a HTTP/1.1", change: rewrite("/x y\r\n\x00", ""), want: "/x%20y%0D%0A%00"},
		{name: "rewritten, raw path with line breaks", line: "GET /a HTTP/1.1", change: rewrite("/x\r\ny", "/x\r\ny"), want: "/x%0D%0Ay"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := readRequest(tc.line)
			if err != nil {
				t.Fatal(err)
			}
			if tc.change != nil {
				tc.change(r)
			}
			w := httptest.NewRecorder()
			if err := h.ServeHTTP(w, r, nil); err != nil {
				t.Fatal(err)
			}
			if tc.want == "400" {
				if w.Code != http.StatusBadRequest || w.Header().Get("Location") != "" {
					t.Errorf("answer %d to %q, want 400 without Location", w.Code, w.Header().Get("Location"))
				}
				return
			}
			if got := w.Header().Get("Location"); w.Code != http.StatusTemporaryRedirect || got != "https://vault-1.test:8200"+tc.want {
				t.Errorf("answer %d to %q, want 307 to https://vault-1.test:8200%s", w.Code, got, tc.want)
			}
			if w.Body.Len() > 0 || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("body %q, headers %v", w.Body, w.Header())
			}
		})
	}
}

// TestLocationHTTP2 has a target that HTTP/1 cannot carry, but HTTP/2 does.
// HTTP/2 lets a space in the query through.
func TestLocationHTTP2(t *testing.T) {
	h, end := handlerOf(t, "https", "", nodeAt("vault-1.test", 8200))
	defer end()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = h.ServeHTTP(w, r, nil) }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path, u.RawQuery = "/a b", "c d"
	resp, err := srv.Client().Transport.RoundTrip(&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if location := resp.Header.Get("Location"); resp.Proto != "HTTP/2.0" || location != "https://vault-1.test:8200/a%20b?c%20d" {
		t.Errorf("%s: location %q", resp.Proto, location)
	}
}

// hostName is what a host in an authority may be besides an IP address.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

// checkURL fails unless a URL parses and is of the scheme and on the authority of the target, which is one host and a port.
func checkURL(t *testing.T, text, scheme string, to engine.Target) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if u.Scheme != scheme || u.Host != to.Authority || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		t.Fatalf("%q is not %s on %s", text, scheme, to.Authority)
	}
	if u.Port() == "" || u.Port() == "0" || strings.Trim(u.Port(), "0123456789") != "" {
		t.Fatalf("%q has port %q", text, u.Port())
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil && (!hostName.MatchString(u.Hostname()) || len(u.Hostname()) > 254) || ip.Zone() != "" || ip.IsValid() && ip.IsUnspecified() {
		t.Fatalf("%q has host %q", text, u.Hostname())
	}
	for i := range len(text) {
		if c := text[i]; c < 0x21 || c == 0x7f {
			t.Fatalf("%q has the byte %#x", text, c)
		}
	}
	return u
}

// FuzzLocation checks that whatever a client and Consul send, the Location is that path on the elected node.
func FuzzLocation(f *testing.F) {
	modes := []string{engine.ToAuto, engine.ToNodeName, engine.ToNodeAddress, engine.ToServiceAddress, "tagged:wan", "{node}.{datacenter}.test", "{meta.h}"}
	f.Add("GET /v1/secret/a%2Fb?c=d%20e HTTP/1.1", "vault-1", "127.10.0.1", "", "wan.test", 8200, 0, uint8(0))
	f.Add("GET //evil.com/ HTTP/1.1", "vault-1", "127.10.0.1", "[2001:db8::1]", "wan.test", 443, 8443, uint8(0))
	f.Add("GET http://u:p@evil.com/?#@ HTTP/1.1", "a@evil.com", "evil.com/", "x:1", "a\r\nb", 1, 80, uint8(4))
	f.Add("CONNECT evil.com:443 HTTP/1.1", "vault-1", "fe80::1%25eth0", "", "0x7f.1", 65536, -1, uint8(2))
	f.Add("OPTIONS * HTTP/1.1", "vault-1", "::ffff:127.10.0.1", "127.1", "", 65535, 0, uint8(3))
	f.Add("GET /\xff?\x80 HTTP/1.1", "v", "1.2.3.4.", "%2e", "[::1]", 8200, 1, uint8(6))
	f.Add("GET http:evil.com HTTP/1.0", strings.Repeat("a.", 130), "-a", " ", "a b", 8200, 1, uint8(5))
	f.Fuzz(func(t *testing.T, line, name, address, service, other string, port, otherPort int, mode uint8) {
		r, err := readRequest(line)
		if err != nil {
			return
		}
		scheme := []string{"http", "https"}[mode&1]
		h, end := handlerOf(t, scheme, modes[int(mode>>1)%len(modes)], discovery.Node{
			Name: name, ID: "vault", Address: address, ServiceAddress: service, Port: port, Datacenter: other, Tags: []string{"active"},
			Meta: map[string]string{"h": other}, Tagged: map[string]discovery.TaggedAddress{"wan": {Host: other, Port: otherPort}},
		})
		defer end()
		s := h.redirector.View.State()
		if !s.Active() {
			return
		}
		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, r, nil); err != nil {
			t.Fatal(err)
		}
		locations := w.Header()["Location"]
		if w.Code != http.StatusTemporaryRedirect {
			if len(locations) > 0 {
				t.Fatalf("answer %d with Location %q", w.Code, locations)
			}
			return
		}
		u := checkURL(t, locations[0], scheme, s.Target)
		if want := r.URL.Path; u.Path != want && (want != "" || u.Path != "/") {
			t.Fatalf("%q: path %q became %q", locations[0], want, u.Path)
		}
		// What came as plain ASCII leaves byte for byte.
		_, uri, _ := strings.Cut(line, " ")
		uri, _, _ = strings.Cut(uri, " ")
		path, query, found := strings.Cut(uri, "?")
		if !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, func(c rune) bool { return c > 0x7e || c == '#' }) {
			return
		}
		if found {
			path += "?" + strings.ReplaceAll(query, "#", "%23")
		}
		if locations[0] != s.Target.URL+path {
			t.Fatalf("%q became %q", uri, locations[0])
		}
	})
}
