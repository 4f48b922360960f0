// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package check

import (
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
)

// fakeHandler stands for the handler in Caddyfiles.
type fakeHandler struct{}

func (fakeHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.vault_redirect", New: func() caddy.Module { return new(fakeHandler) }}
}

func (fakeHandler) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error { return nil }

func init() {
	caddy.RegisterModule(fakeHandler{})
	httpcaddyfile.RegisterHandlerDirective("vault_redirect", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return fakeHandler{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("vault_redirect", httpcaddyfile.Before, "respond")
}

// Which sites are served by https is what Caddy makes of the config, a part of which it decides when it loads it.
func TestCheckKnowsHTTPS(t *testing.T) {
	const handler = " {\n\tvault_redirect\n}\n"
	for name, row := range map[string]struct {
		caddyfile string
		https     bool
	}{
		"a name":                             {"vault.example.com" + handler, true},
		"http":                               {"http://vault.example.com" + handler, false},
		"a port":                             {":8080" + handler, false},
		"no name, https":                     {"https://" + handler, true},
		"the port of https":                  {":443" + handler, true},
		"no name, https, beside a name":      {"https://" + handler + "status.example.com {\n\trespond ok\n}\n", true},
		"a port, beside a name on that port": {"https://:8443" + handler + "status.example.com:8443 {\n\trespond ok\n}\n", true},
		"another port of https":              {"{\n\thttps_port 8443\n}\n:8443" + handler, true},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "Caddyfile")
			if err := os.WriteFile(file, []byte(row.caddyfile), 0o600); err != nil {
				t.Fatal(err)
			}
			found, err := handlersByConfig(filepath.ToSlash(file), "")
			if err != nil || len(found) != 1 || len(found[0].sites) != 1 {
				t.Fatalf("%v: %+v", err, found)
			}
			if got := found[0].sites[0].TLS; got != row.https {
				t.Errorf("https: %t", got)
			}
		})
	}
}

// Where every request is proxied, clients do not see where it goes.
func TestCheckKnowsProxies(t *testing.T) {
	for proxy, all := range map[string]bool{`{}`: false, `{"match": [{"path": ["/v1/*"]}]}`: false, `{"match": [{"path": ["/x"]}, {}]}`: true, `{"all": true}`: true} {
		file := filepath.Join(t.TempDir(), "config.json")
		text := `{"listen": [":80"], "routes": [{"handle": [{"handler": "vault_redirect", "proxy": ` + proxy + `}]}]}`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := handlersByConfig(file, "")
		if err != nil || len(found) != 1 || len(found[0].sites) != 1 || found[0].sites[0].Proxy != all {
			t.Errorf("%s: %v: %+v", proxy, err, found)
		}
	}
}

func TestCheckKnowsReads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	text := `{"listen": [":80"], "routes": [{"handle": [{"handler": "vault_redirect", "standby": {"match": [
		{"method": ["GET", "LIST"]}, {"path": ["/v1/a/*"]}, {"header": {"X-Read": ["yes"]}}]}}]}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := handlersByConfig(file, "")
	if err != nil || len(found) != 1 || len(found[0].sites) != 1 {
		t.Fatal(err, found)
	}
	want := []doctor.Matcher{{Methods: []string{"GET", "LIST"}}, {Paths: []string{"/v1/a/*"}}, {More: true}}
	if got := found[0].sites[0].Reads; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}
