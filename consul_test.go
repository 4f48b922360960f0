// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
)

// clearConsulEnv takes away what the environment says of Consul.
func clearConsulEnv(t *testing.T) {
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "CONSUL_") {
			t.Setenv(name, "")
		}
	}
}

// env is a fake environment.
type env map[string]string

func (e env) get(name string) string { return e[name] }

// writeFile writes a file into the folder and returns its path.
func writeFile(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// authorityOf writes a file with a server's certificate.
func authorityOf(t *testing.T, s *httptest.Server) string {
	t.Helper()
	return writeFile(t, t.TempDir(), "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// writePair writes a new self-signed certificate and its key.
func writePair(t testing.TB, dir, name string) (cert, key string) {
	t.Helper()
	cert, key, err := certs.New(name, name).Write(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, "one")
	cert2, key2 := writePair(t, dir, "two")
	caDir := filepath.Join(dir, "cas")
	data, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, caDir, "a.pem", string(data))
	oddDir := filepath.Dir(writeFile(t, filepath.Join(dir, "cas[1]"), "a.pem", string(data)))
	tokenFile, envTokenFile := writeFile(t, dir, "token", "from-file\n"), writeFile(t, dir, "envtoken", "from-env-file")
	tlsOf := func(s *consulSettings) string {
		c := s.tlsSettings
		return fmt.Sprint(filepath.Base(c.CA), " ", filepath.Base(c.Cert), " ", filepath.Base(c.Key), " ", s.tls.ServerName, " ", s.tls.InsecureSkipVerify,
			" ", s.tls.RootCAs != nil, " ", s.tls.GetClientCertificate != nil)
	}
	tokens := func(s *consulSettings) string { return s.token + " " + filepath.Base(s.TokenFile) }
	endpoint := func(s *consulSettings) string { return s.endpoint.Scheme + " " + s.endpoint.String() }
	enterprise := func(s *consulSettings) string {
		return s.Namespace + " " + s.Partition + " " + s.Datacenter + " " + s.Peer
	}
	for _, tc := range []struct {
		name   string
		config Consul
		env    env
		get    func(*consulSettings) string
		want   string
	}{
		{"defaults", Consul{}, nil, func(s *consulSettings) string {
			return fmt.Sprintln(s.Address, s.Service, s.ActiveBy, s.Tag, s.CheckID, s.Consistency, time.Duration(s.PollInterval), s.token, s.TokenFile, s.auth == nil, s.tls.InsecureSkipVerify)
		}, "127.0.0.1:8500 vault auto active  default 30s   true false\n"},
		{"default endpoint", Consul{}, nil, endpoint, "http 127.0.0.1:8500"},
		{"shortest interval", Consul{PollInterval: caddy.Duration(time.Second)}, nil, func(s *consulSettings) string { return time.Duration(s.PollInterval).String() }, "1s"},
		{"longest interval", Consul{PollInterval: caddy.Duration(10 * time.Minute)}, nil, func(s *consulSettings) string { return time.Duration(s.PollInterval).String() }, "10m0s"},
		{"CONSUL_HTTP_ADDR", Consul{}, env{"CONSUL_HTTP_ADDR": "consul:8501"}, endpoint, "http consul:8501"},
		{"CONSUL_HTTP_ADDR https", Consul{}, env{"CONSUL_HTTP_ADDR": "https://consul:8501"}, endpoint, "https consul:8501"},
		{"CONSUL_HTTP_ADDR unix", Consul{}, env{"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"}, endpoint, "http unix:///run/consul.sock"},
		{"address over environment", Consul{Address: "a:1"}, env{"CONSUL_HTTP_ADDR": "consul:8501"}, endpoint, "http a:1"},
		{"CONSUL_HTTP_SSL", Consul{}, env{"CONSUL_HTTP_SSL": "true"}, endpoint, "https 127.0.0.1:8500"},
		{"CONSUL_HTTP_SSL=0", Consul{}, env{"CONSUL_HTTP_SSL": "0"}, endpoint, "http 127.0.0.1:8500"},
		{"CONSUL_HTTP_SSL and https", Consul{}, env{"CONSUL_HTTP_SSL": "false", "CONSUL_HTTP_ADDR": "https://a:1"}, endpoint, "https a:1"},
		{"the config's scheme over CONSUL_HTTP_SSL", Consul{Address: "http://a:1"}, env{"CONSUL_HTTP_SSL": "true"}, endpoint, "http a:1"},
		// As in Consul's own client, which never goes back to http here: the token would be sent in the clear.
		{"CONSUL_HTTP_SSL over CONSUL_HTTP_ADDR's http", Consul{}, env{"CONSUL_HTTP_SSL": "true", "CONSUL_HTTP_ADDR": "http://a:1"}, endpoint, "https a:1"},
		{"path prefix", Consul{Address: "https://proxy.test/consul/"}, nil, endpoint, "https proxy.test/consul"},
		{"IPv6", Consul{Address: "[::1]:8500"}, nil, endpoint, "http [::1]:8500"},
		{"IPv6 URL", Consul{Address: "http://[2001:db8::1]"}, nil, endpoint, "http [2001:db8::1]"},

		{"token", Consul{Token: new("t")}, env{"CONSUL_HTTP_TOKEN": "e", "CONSUL_HTTP_TOKEN_FILE": envTokenFile}, tokens, "t ."},
		{"token_file", Consul{TokenFile: tokenFile}, env{"CONSUL_HTTP_TOKEN": "e", "CONSUL_HTTP_TOKEN_FILE": envTokenFile}, tokens, " token"},
		{"CONSUL_HTTP_TOKEN_FILE", Consul{}, env{"CONSUL_HTTP_TOKEN": "e", "CONSUL_HTTP_TOKEN_FILE": envTokenFile}, tokens, " envtoken"},
		{"CONSUL_HTTP_TOKEN", Consul{}, env{"CONSUL_HTTP_TOKEN": "e"}, tokens, "e ."},
		{"no token, whatever the environment says", Consul{Token: new("")}, env{"CONSUL_HTTP_TOKEN": "e", "CONSUL_HTTP_TOKEN_FILE": envTokenFile}, tokens, " ."},
		{"CONSUL_HTTP_AUTH", Consul{}, env{"CONSUL_HTTP_AUTH": "u:p:q"}, func(s *consulSettings) string { return s.auth.Username + " " + s.auth.Password }, "u p:q"},
		{"CONSUL_HTTP_AUTH without password", Consul{}, env{"CONSUL_HTTP_AUTH": "u"}, func(s *consulSettings) string { return s.auth.Username + s.auth.Password }, "u"},

		{"CONSUL_NAMESPACE, CONSUL_PARTITION", Consul{}, env{"CONSUL_NAMESPACE": "n", "CONSUL_PARTITION": "p"}, enterprise, "n p  "},
		{"the config over both", Consul{Namespace: "a", Partition: "b", Datacenter: "c", Peer: "d"}, env{"CONSUL_NAMESPACE": "n", "CONSUL_PARTITION": "p"}, enterprise, "a b c d"},

		{"no TLS", Consul{}, nil, tlsOf, ". . .  false false false"},
		{"CONSUL_CACERT", Consul{}, env{"CONSUL_CACERT": cert, "CONSUL_CAPATH": caDir}, tlsOf, "one.pem . .  false true false"},
		{"CONSUL_CAPATH", Consul{}, env{"CONSUL_CAPATH": caDir}, tlsOf, "cas . .  false true false"},
		// The name of a folder is no pattern.
		{"CONSUL_CAPATH with brackets", Consul{}, env{"CONSUL_CAPATH": oddDir}, tlsOf, "cas[1] . .  false true false"},
		{"CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY", Consul{}, env{"CONSUL_CLIENT_CERT": cert, "CONSUL_CLIENT_KEY": key}, tlsOf, ". one.pem one.key  false false true"},
		{"CONSUL_TLS_SERVER_NAME", Consul{}, env{"CONSUL_TLS_SERVER_NAME": "c.test"}, tlsOf, ". . . c.test false false false"},
		// As Consul's own client does.
		{"CONSUL_TLS_SERVER_NAME with a port", Consul{}, env{"CONSUL_TLS_SERVER_NAME": "c.test:8501"}, tlsOf, ". . . c.test false false false"},
		{"CONSUL_HTTP_SSL_VERIFY=false", Consul{}, env{"CONSUL_HTTP_SSL_VERIFY": "false"}, tlsOf, ". . .  true false false"},
		{"CONSUL_HTTP_SSL_VERIFY=false beside settings", Consul{TLS: new(TLS)}, env{"CONSUL_HTTP_SSL_VERIFY": "false"}, tlsOf, ". . .  false false false"},
		{"CONSUL_HTTP_SSL_VERIFY=false beside a CA", Consul{TLS: &TLS{CA: cert}}, env{"CONSUL_HTTP_SSL_VERIFY": "false"}, tlsOf, "one.pem . .  false true false"},
		{"CONSUL_HTTP_SSL_VERIFY=1", Consul{}, env{"CONSUL_HTTP_SSL_VERIFY": "1"}, tlsOf, ". . .  false false false"},
		{
			"the config's TLS over the environment's",
			Consul{TLS: &TLS{CA: cert2, Cert: cert2, Key: key2, ServerName: "x.test", InsecureSkipVerify: true}},
			env{"CONSUL_CACERT": cert, "CONSUL_CLIENT_CERT": cert, "CONSUL_CLIENT_KEY": key, "CONSUL_TLS_SERVER_NAME": "c.test", "CONSUL_HTTP_SSL_VERIFY": "true"},
			tlsOf, "two.pem two.pem two.key x.test true true true",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := tc.config.resolve(caddy.NewEmptyReplacer(), tc.env.get)
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.get(s); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, "one")
	empty, tokenFile := writeFile(t, dir, "empty", " \n"), writeFile(t, dir, "token", "hunter2")
	for _, tc := range []struct {
		name   string
		config Consul
		env    env
		want   []string
	}{
		{"CONSUL_HTTP_SSL_VERIFY", Consul{}, env{"CONSUL_HTTP_SSL_VERIFY": "yes"}, []string{"CONSUL_HTTP_SSL_VERIFY", `"yes"`, "true or false"}},
		{"CONSUL_HTTP_SSL", Consul{}, env{"CONSUL_HTTP_SSL": "on"}, []string{"CONSUL_HTTP_SSL", `"on"`, "true or false"}},
		{"CONSUL_HTTP_ADDR", Consul{}, env{"CONSUL_HTTP_ADDR": "a"}, []string{"CONSUL_HTTP_ADDR", `"a"`, "a:8500"}},
		{"address without port", Consul{Address: "consul.test"}, nil, []string{"address", "consul.test:8500"}},
		{"IPv6 without port", Consul{Address: "[::1]"}, nil, []string{"address", "[::1]:8500"}},
		// No connection could be made to it.
		{"IPv6 without brackets", Consul{Address: "::1:8500"}, nil, []string{"address", "::1"}},
		{"port 0", Consul{Address: "a:0"}, nil, []string{"address", "between 1 and 65535"}},
		{"port 65536", Consul{Address: "http://a:65536"}, nil, []string{"address", "between 1 and 65535"}},
		{"port by name", Consul{Address: "a:http"}, nil, []string{"address", "127.0.0.1:8500"}},
		{"no host", Consul{Address: ":8500"}, nil, []string{"address", "127.0.0.1:8500"}},
		{"no host in a URL", Consul{Address: "http:///v1"}, nil, []string{"address"}},
		{"scheme", Consul{Address: "tcp://a:1"}, nil, []string{"address", "tcp", "http, https or unix"}},
		{"query", Consul{Address: "http://a:1?x"}, nil, []string{"address", "query"}},
		{"fragment", Consul{Address: "http://a:1#x"}, nil, []string{"address", "fragment"}},
		{"relative socket", Consul{Address: "unix://run/consul.sock"}, nil, []string{"address", "unix:///"}},
		{"spaces", Consul{Address: "a b:1"}, nil, []string{"address"}},
		{"user", Consul{Address: "http://user:hunter2@a:1"}, nil, []string{"address", "CONSUL_HTTP_AUTH"}},
		{"user without scheme", Consul{Address: "user:hunter2@a:1"}, nil, []string{"address", "CONSUL_HTTP_AUTH"}},
		{"user and a wrong scheme", Consul{Address: "tcp://user:hunter2@a:1"}, nil, []string{"address"}},
		{"user and a wrong port", Consul{Address: "http://user:hunter2@a:x"}, nil, []string{"address"}},
		{"password with a slash", Consul{Address: "http://user:hunter2/x@a:1"}, nil, []string{"address"}},
		{"user from the environment", Consul{}, env{"CONSUL_HTTP_ADDR": "http://user:hunter2@a:1"}, []string{"CONSUL_HTTP_ADDR", "CONSUL_HTTP_AUTH"}},
		// Wherever a password hides: a /, # or ? in it ends the authority.
		{"password with a slash after digits", Consul{Address: "http://user:1/hunter2@a:1"}, nil, []string{"address"}},
		{"password with ?", Consul{Address: "http://user:1?hunter2@a:1"}, nil, []string{"address"}},
		{"password with #", Consul{Address: "http://user:1#hunter2@a:1"}, nil, []string{"address"}},
		{"user of a socket", Consul{Address: "unix://user:hunter2@/run/x"}, nil, []string{"address"}},
		{"token and token_file", Consul{Token: new("hunter2"), TokenFile: empty}, nil, []string{"token", "token_file", "mutually exclusive"}},
		{"no token and token_file", Consul{Token: new(""), TokenFile: tokenFile}, nil, []string{"token", "token_file", "mutually exclusive"}},
		{"token_file that is none", Consul{TokenFile: dir}, nil, []string{"token_file", dir, "not a regular file"}},
		{"empty token_file", Consul{TokenFile: empty}, nil, []string{"token_file", "empty"}},
		{"missing CONSUL_HTTP_TOKEN_FILE", Consul{}, env{"CONSUL_HTTP_TOKEN_FILE": dir + "/none"}, []string{"token_file", "none"}},
		{"unknown placeholder", Consul{Service: "{nothing.here}"}, nil, []string{"service", "nothing.here"}},
		{"placeholder without value", Consul{TLS: &TLS{CA: "{empty}"}}, nil, []string{"tls ca", "empty"}},
		{"active_by", Consul{ActiveBy: "x"}, nil, []string{"active_by", `"x"`, "auto, tag or check"}},
		{"consistency", Consul{Consistency: "x"}, nil, []string{"consistency", `"x"`, "stale"}},
		{"service", Consul{Service: "a?b"}, nil, []string{"service", `"a?b"`}},
		{"interval", Consul{PollInterval: caddy.Duration(time.Second - 1)}, nil, []string{"poll_interval", "1s", "10m"}},
		{"no CA there", Consul{}, env{"CONSUL_CACERT": dir + "/none"}, []string{"ca", "none"}},
		{"CA without a certificate", Consul{TLS: &TLS{CA: empty}}, nil, []string{"tls ca", "no PEM certificate", "empty"}},
		{"cert without key", Consul{}, env{"CONSUL_CLIENT_CERT": cert}, []string{"tls", "cert", "key"}},
		{"cert by config, key by environment", Consul{TLS: &TLS{Cert: cert}}, env{"CONSUL_CLIENT_CERT": cert, "CONSUL_CLIENT_KEY": key}, []string{"tls", "cert", "key"}},
		{"cert without its own key", Consul{TLS: &TLS{Cert: cert, Key: empty}}, nil, []string{"tls cert", "one.pem", "empty"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			repl := caddy.NewEmptyReplacer()
			repl.Set("empty", "")
			_, err := tc.config.resolve(repl, tc.env.get)
			wantError(t, err, tc.want...)
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in the error: %v", err)
			}
		})
	}
}

func TestResolvePlaceholders(t *testing.T) {
	clearConsulEnv(t)
	dir := t.TempDir()
	cert, key := writePair(t, dir, "one")
	for name, value := range map[string]string{"ADDR": "127.10.0.1:8500", "TOKEN": "hunter2", "NAME": "n", "CERT": cert, "KEY": key} {
		t.Setenv("VR_"+name, value)
	}
	c := &Consul{
		Address: "https://{env.VR_ADDR}", Service: "{env.VR_NAME}-s", Tag: "{env.VR_NAME}-t", CheckID: "{env.VR_NAME}-c", Token: new("{env.VR_TOKEN}"),
		Datacenter: "{env.VR_NAME}-d", Namespace: "{env.VR_NAME}-n", Partition: "{env.VR_NAME}-p", Peer: "{env.VR_NAME}-e",
		TLS: &TLS{CA: "{env.VR_CERT}", Cert: "{env.VR_CERT}", Key: "{env.VR_KEY}", ServerName: "{env.VR_NAME}"},
	}
	before, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	if after, err := json.Marshal(c); err != nil || string(after) != string(before) {
		t.Errorf("error %v: the config was %s and is %s", err, before, after)
	}
	s := c.resolved
	got := []string{s.Service, s.Tag, s.CheckID, s.token, s.Datacenter, s.Namespace, s.Partition, s.Peer, c.Endpoint(), s.endpoint.Scheme, s.tls.ServerName, s.tlsSettings.Key}
	if want := []string{"n-s", "n-t", "n-c", "hunter2", "n-d", "n-n", "n-p", "n-e", "127.10.0.1:8500", "https", "n", key}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if want := (discovery.Selection{Mode: "auto", Tag: "n-t", CheckID: "n-c", Service: "n-s"}); c.Selection() != want {
		t.Errorf("selection %+v", c.Selection())
	}
	tokenFile := writeFile(t, dir, "token", "hunter3\n")
	for _, c := range []*Consul{{TokenFile: tokenFile}, {Token: new("{file." + tokenFile + "}")}} {
		if err := c.Provision(caddy.Context{}); err != nil || c.MaxWait() != 30*time.Second || strings.Contains(fmt.Sprintf("%+v", *c), "hunter3") {
			t.Errorf("error %v, interval %s, config %+v", err, c.MaxWait(), *c)
		}
	}
}
