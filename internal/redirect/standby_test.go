// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// The active node gets what a node says of itself or of its cluster, however that is written.
func TestServedByStandbys(t *testing.T) {
	for target, want := range map[string]bool{
		"/v1/secret/data/app":             true,
		"/v1/secret/data/system":          true,
		"/v1/secret/data/sys.old":         true,
		"/v1/ns/team/secret/data/app":     true,
		"/v1/secret//data/%2573ys":        true, // which Vault unescapes once, too
		"/v1/secret/data/ui":              true,
		"/v1/":                            true,
		"/v1/sys/health":                  false,
		"/v1/sys":                         false,
		"/v1/SYS/health":                  false,
		"/v1/%73ys/health":                false,
		"/v1/sys%2Fhealth":                false,
		"/v1/ns/sys/mounts":               false,
		"/v1/ns/team/sYs/":                false,
		"/v1//sys/mounts":                 false,
		"/v1/secret/../sys/mounts":        false,
		"/v1/secret/..%2fsys/mounts":      false,
		"/v1/../ui/":                      false,
		"/v1/secret/%2e%2E/../ui/vault":   false,
		"/v1/secret/data/app..old":        true,
		"/v1/secret/data/sys/of-somebody": false,
		"/ui":                             false,
		"/ui/vault":                       false,
		"/UI/":                            false,
		"//ui/":                           false,
		"/":                               false,
		"/v1":                             false,
		"//v1/secret":                     false,
		"/v2/secret":                      false,
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if got := ServedByStandbys(u.Path); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
}

func TestNeverServedByStandbys(t *testing.T) {
	for pattern, want := range map[string]bool{
		"/v1/sys/health": true, "/v1/sys/*": true, "/v1/*/sys/": false, "/v1/ns/sys/*/x": true, "/v1/SYS/*": true,
		"/ui": true, "/ui/*": true, "/u*": false, "/v2/*": true, "/v1": true, "/other/secret": true,
		"/v1/sys*": false, "/v1/*": false, "/v*": false, "*": false, "*/sys/*": false, "/v1/secret/*": false, "/v1/secret": false,
		"/{env.X}/sys": false, "/v1/s?s/x": false,
	} {
		if got := NeverServedByStandbys(pattern); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}

// The key is that of the token, wherever a client puts it, else that of the client's address.
func TestKeyOf(t *testing.T) {
	request := func(client string, header ...string) *http.Request {
		r := httptest.NewRequest("GET", "/v1/x", nil)
		r.RemoteAddr = client
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		return r
	}
	const one, two = "192.0.2.1:1000", "192.0.2.2:1000"
	for _, row := range []struct {
		name string
		a, b *http.Request
		same bool
	}{
		{"one token, two clients", request(one, "X-Vault-Token", "t"), request(two, "X-Vault-Token", "t"), true},
		{"one token, in two headers", request(one, "X-Vault-Token", "t"), request(one, "Authorization", "Bearer t"), true},
		{"two tokens", request(one, "X-Vault-Token", "t"), request(one, "X-Vault-Token", "u"), false},
		{"two bearer tokens", request(one, "Authorization", "Bearer t"), request(one, "Authorization", "Bearer u"), false},
		{"the first header counts", request(one, "X-Vault-Token", "t", "Authorization", "Bearer u"), request(one, "X-Vault-Token", "t"), true},
		{"no token, two ports", request(one), request("192.0.2.1:1001"), true},
		{"no token, two clients", request(one), request(two), false},
		{"an empty token", request(one, "X-Vault-Token", ""), request(one), true},
		{"another authorization", request(one, "Authorization", "Basic t"), request(one), true},
	} {
		if got := keyOf(row.a) == keyOf(row.b); got != row.same {
			t.Errorf("%s: the same key: %v", row.name, got)
		}
		if n := testing.AllocsPerRun(100, func() { keyOf(row.a) }); n > 0 {
			t.Errorf("%s: %v allocations", row.name, n)
		}
	}
}
