// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Every file in this folder is loaded here, as far as that is possible without a network: an example that does not work is
// worse than none. A new file needs a row in checks.

package examples_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/spf13/cobra"

	vaultredirect "github.com/vault-redirector/caddy-vault-redirect"
)

// checks has a check for each file in this folder.
var checks = map[string]func(t *testing.T, text string){
	"minimal.Caddyfile":        caddyfile,
	"production.Caddyfile":     production,
	"without-consul.Caddyfile": withoutConsul,
	"proxy.Caddyfile":          proxy,
	"status.Caddyfile":         status,
	"events-exec.Caddyfile":    eventsCaddyfile,
	"events-webhook.Caddyfile": eventsCaddyfile,
	"config.json":              config,
	"vault-redirector.service": service,
	"consul-policy.hcl":        consulPolicy,
	"vault-service.json":       vaultService,
}

// TestMain takes away what the caller's environment would put into the configs.
func TestMain(m *testing.M) {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "CONSUL_") || strings.HasPrefix(name, "VAULT_REDIRECT_") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

func TestExamples(t *testing.T) {
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			check(t, string(text))
		})
	}
}

// TestAllAreChecked fails for a file that nobody loads.
func TestAllAreChecked(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasSuffix(e.Name(), "_test.go") { // a folder has tests of its own
			continue
		}
		if checks[e.Name()] == nil {
			t.Errorf("%s has no row in checks", e.Name())
		}
	}
}

// caddyfile loads a Caddyfile that is an example.
func caddyfile(t *testing.T, text string) {
	if !strings.HasPrefix(text, "# ") {
		t.Error("it does not begin with a comment that says what it shows")
	}
	adapt(t, text)
}

// adapt adapts a Caddyfile, without a warning, and validates the outcome.
func adapt(t *testing.T, text string) {
	t.Helper()
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Errorf("line %d: %s", w.Line, w.Message)
	}
	validate(t, adapted)
}

// validate does what caddy validate does: every module is provisioned, nothing is started.
func validate(t *testing.T, text []byte) {
	var c caddy.Config
	if err := caddy.StrictUnmarshalJSON(text, &c); err != nil {
		t.Fatal(err)
	}
	// What Caddy keeps goes here rather than into the home folder.
	c.StorageRaw = json.RawMessage(`{"module": "file_system", "root": ` + quote(t.TempDir()) + `}`)
	if err := caddy.Validate(&c); err != nil {
		t.Fatal(err)
	}
}

func quote(s string) string {
	text, _ := json.Marshal(s) // a string can always be encoded
	return string(text)
}

// setFiles lets the Caddyfiles that take them from the environment find files.
func setFiles(t *testing.T) files {
	t.Helper()
	f := newFiles(t)
	for name, path := range map[string]string{
		"CERT": f.cert, "KEY": f.key, "CONSUL_CA": f.cert, "CONSUL_TOKEN_FILE": f.token, "VAULT_CA": f.cert,
	} {
		t.Setenv("VAULT_REDIRECT_"+name, path)
	}
	return f
}

// filtered fails for a Caddyfile whose logs would have tokens.
func filtered(t *testing.T, text string) {
	t.Helper()
	for _, header := range []string{"X-Vault-Token", "X-Consul-Token", "X-Vault-Mfa", "Authorization", "Cookie"} {
		if !strings.Contains(text, "request>headers>"+header+" delete") {
			t.Errorf("%s is not filtered from the logs", header)
		}
	}
}

func withoutConsul(t *testing.T, text string) {
	setFiles(t)
	caddyfile(t, text)
	filtered(t, text)
	// What is commented out is to be true as well.
	leader := strings.Replace(text, "#   redirect_to leader", "redirect_to leader", 1)
	if leader == text {
		t.Fatal("redirect_to leader is not found")
	}
	caddyfile(t, leader)
	for _, nodes := range []string{"https://vault-internal.vault.svc:8200", "https://10.0.0.1:8200 https://10.0.0.2:8200"} {
		t.Setenv("VAULT_REDIRECT_NODES", nodes)
		caddyfile(t, text)
	}
}

func proxy(t *testing.T, text string) {
	setFiles(t)
	caddyfile(t, text)
	named := strings.Replace(text, "# server_name ", "server_name ", 1)
	if named == text {
		t.Fatal("server_name is not found")
	}
	caddyfile(t, named)
}

func status(t *testing.T, text string) {
	if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil); err == nil {
		t.Error("it is served without a password")
	}
	t.Setenv("VAULT_REDIRECT_PASSWORD_HASH", "$2a$14$g4VWYh4L2fAc1aP3fLFzjuHpX1iK/OAn2bzdrWFRqpIbxMsRqGvsG")
	caddyfile(t, text)
	t.Setenv("VAULT_REDIRECT_OPERATORS", "10.0.0.0/8")
	caddyfile(t, text)
}

func production(t *testing.T, text string) {
	f := setFiles(t)
	caddyfile(t, text)
	filtered(t, text)
	// What is commented out is to be true as well.
	for _, comment := range []string{"\t# admin unix", "\t# log\n", "\t\t\t\t# server_name "} {
		with := strings.Replace(text, comment, strings.Replace(comment, "# ", "", 1), 1)
		if with == text {
			t.Fatalf("%q is not found", comment)
		}
		caddyfile(t, with)
	}
	const plain = "# http:// {\n# \timport redirect\n# }\n"
	if !strings.Contains(text, plain) {
		t.Fatal("the http site is not found")
	}
	caddyfile(t, strings.Replace(text, plain, strings.ReplaceAll(plain, "# ", ""), 1))
	// The alternative that is commented out is loaded in place of the site before it.
	site := regexp.MustCompile(`(?ms)^https:// \{.*?^\}\n`)
	commented := regexp.MustCompile(`(?ms)^# https://vault\.example\.com \{\n.*?^# \}\n`)
	acme := regexp.MustCompile(`(?m)^# `).ReplaceAllString(commented.FindString(text), "")
	if acme == "" || !site.MatchString(text) {
		t.Fatal("the two https sites are not found")
	}
	acme = strings.ReplaceAll(acme, "/etc/vault-redirect/acme-ca.pem", f.cert)
	caddyfile(t, site.ReplaceAllLiteralString(commented.ReplaceAllLiteralString(text, ""), acme))
}

func config(t *testing.T, text string) {
	f := newFiles(t)
	paths := strings.NewReplacer(
		`"/etc/vault-redirect/consul-token"`, quote(f.token),
		`"/etc/vault-redirect/consul-ca.pem"`, quote(f.cert),
		`"/etc/vault-redirect/consul-client.pem"`, quote(f.cert),
		`"/etc/vault-redirect/consul-client-key.pem"`, quote(f.key),
		`"/etc/vault-redirect/vault-ca.pem"`, quote(f.cert),
	)
	validate(t, []byte(paths.Replace(text)))

	var c struct {
		Apps struct {
			HTTP struct {
				Servers struct {
					Vault struct {
						Routes []struct{ Handle []map[string]any }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	handler := c.Apps.HTTP.Servers.Vault.Routes[0].Handle[0]
	discovery, _ := handler["discovery"].(map[string]any)
	tls, _ := discovery["tls"].(map[string]any)
	probe, _ := handler["probe"].(map[string]any)
	complete(t, "handler", handler, vaultredirect.Handler{})
	complete(t, "probe", probe, vaultredirect.Probe{})
	complete(t, "discovery", discovery, vaultredirect.Consul{})
	complete(t, "tls", tls, vaultredirect.TLS{})
}

// complete fails for each field of a module that its object in the config does not have.
func complete(t *testing.T, where string, object map[string]any, module any) {
	t.Helper()
	for _, name := range optionsOf(module) {
		if name == "token" { // excludes token_file
			continue
		}
		if _, ok := object[name]; !ok {
			t.Errorf("%s: the option %q is missing", where, name)
		}
	}
}

// optionsOf returns the names of a module's options.
func optionsOf(module any) (names []string) {
	for _, field := range reflect.VisibleFields(reflect.TypeOf(module)) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// service checks the unit with systemd's own tool, where there is one, and its command line with the command.
func service(t *testing.T, text string) {
	start := regexp.MustCompile(`(?m)^ExecStart=(\S+) (\S+) (.*)$`).FindStringSubmatch(text)
	if start == nil {
		t.Fatal("ExecStart has no program, command and arguments")
	}
	program, name, args := start[1], start[2], strings.Fields(start[3])
	command, ok := caddycmd.Commands()[name]
	if !ok {
		t.Fatalf("there is no command %s", name)
	}
	cmd := &cobra.Command{Use: name}
	command.CobraFunc(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Error(err)
	}
	if rest := cmd.Flags().Args(); len(rest) != 1 {
		t.Errorf("arguments of ExecStart besides flags: %q, want the address of Consul", rest)
	}

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here: the unit itself is not checked")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "vault-redirector.service")
	write(t, unit, strings.Replace(text, program, self, 1))
	// It fails where the unit cannot be loaded, and merely writes where a line is ignored.
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func consulPolicy(t *testing.T, text string) {
	rules := regexp.MustCompile(`(?m)^(\w+) "(.*)" \{\s*policy = "(\w+)"\s*\}$`).FindAllStringSubmatch(text, -1)
	var got []string
	for _, r := range rules {
		got = append(got, r[1]+" "+quote(r[2])+" "+r[3])
	}
	if want := []string{`service "vault" read`, `node_prefix "" read`}; !slices.Equal(got, want) {
		t.Errorf("rules %q, want %q and no more", got, want)
	}
}

func vaultService(t *testing.T, text string) {
	var file struct {
		Service struct {
			Name, Address string
			Port          int
			Tags          []string
			Check         struct {
				ID, Name, Notes, HTTP, Interval, Timeout string
				ServerName                               string `json:"tls_server_name"`
			}
		}
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	s := file.Service
	if u, err := url.Parse(s.Check.HTTP); err != nil || u.Path != "/v1/sys/health" {
		t.Errorf("the check asks %q: %v", s.Check.HTTP, err)
	}
	if s.Name != "vault" || s.Port == 0 || s.Check.ID != "api" || len(s.Tags) > 0 {
		t.Errorf("service %+v: the check api of the service vault is to mark the active node, tags are not", s)
	}
	if s.Address == "" || s.Address != s.Check.ServerName || s.Check.Notes == "" {
		t.Errorf("service %+v: redirects lead to its address, which is a name in the certificate; a note says so", s)
	}
	for _, text := range []string{s.Check.Interval, s.Check.Timeout} {
		if _, err := time.ParseDuration(text); err != nil {
			t.Error(err)
		}
	}
}

// files are those that the examples name: a certificate, its key, a token.
type files struct{ cert, key, token string }

func newFiles(t *testing.T) files {
	t.Helper()
	dir := t.TempDir()
	f := files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "token")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vault.example.com"}, DNSNames: []string{"vault.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f.cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, f.key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	write(t, f.token, "00000000-0000-0000-0000-000000000000\n")
	return f
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
