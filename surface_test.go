// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

func init() {
	caddy.RegisterModule(new(scripted))
}

// script is the discovery of a test, which finds it in scripts.
type script struct {
	standin.Given
	name string
}

var scripts sync.Map

// newScript returns a script that knows nodes.
func newScript(t testing.TB, name string, nodes ...discovery.Node) *script {
	s := &script{Given: standin.Given{Nodes: nodes}, name: name}
	scripts.Store(name, s)
	t.Cleanup(func() { scripts.Delete(name) })
	return s
}

// scripted is the discovery module of a script.
type scripted struct {
	standin.Given `json:"-"`

	Script string `json:"script"`
}

func (*scripted) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.vault_redirect.discovery.test_script", New: func() caddy.Module { return new(scripted) }}
}

func (s *scripted) Key() string      { return "test_script:" + s.Script }
func (s *scripted) Cluster() string  { return "test_script " + s.Script }
func (*scripted) SourceName() string { return "test_script" }
func (*scripted) Endpoint() string   { return "127.0.0.1:1" }
func (*scripted) Selection() discovery.Selection {
	return discovery.Selection{Mode: discovery.ByTag, Tag: "active", Service: "vault"}
}

func (s *scripted) Open() (discovery.Source, error) {
	if found, ok := scripts.Load(s.Script); ok {
		return found.(*script), nil
	}
	return nil, errors.New("no such script")
}

// unreachable is the failure of a discovery.
var unreachable = &discovery.Error{Reason: discovery.ReasonConsulUnreachable, Err: errors.New("as told")}

// node returns a node, marked as active or not. Its address is one that nothing answers at.
func node(name string, active bool) discovery.Node {
	n := discovery.Node{Name: name, ID: "id-" + name, Address: "127.0.0.9", ServiceAddress: "vault.invalid", Port: 8200, Tags: []string{"standby"}}
	if active {
		n.Tags = []string{"active"}
	}
	return n
}

// at returns a node at another address.
func at(n discovery.Node, host string) discovery.Node {
	n.ServiceAddress = host
	return n
}

// testCaddy is the Caddy of this process.
type testCaddy struct {
	t     testing.TB
	admin string // unix socket
	site  string // host:port
	http  *http.Client
}

var oneCaddy sync.Mutex

// newTestCaddy returns the Caddy of this process, which no other test uses meanwhile.
func newTestCaddy(t testing.TB) *testCaddy {
	t.Helper()
	oneCaddy.Lock()
	c := &testCaddy{t: t, admin: filepath.Join(t.TempDir(), "admin.sock"), site: "127.0.0.1:" + harness.Port(t)}
	dialer := new(net.Dialer)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "admin") {
			return dialer.DialContext(ctx, "unix", c.admin)
		}
		return dialer.DialContext(ctx, "tcp", address)
	}}
	c.http = &http.Client{
		Timeout: 20 * time.Second, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	log.SetOutput(io.Discard)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
		oneCaddy.Unlock()
	})
	return c
}

// config returns a config whose one server has handlers. More is merged into the apps.
func (c *testCaddy) config(more map[string]any, handlers ...any) map[string]any {
	apps := map[string]any{"http": map[string]any{"servers": map[string]any{"srv0": map[string]any{
		"listen": []string{c.site}, "automatic_https": map[string]any{"disable": true},
		"routes": []any{map[string]any{"handle": handlers}},
	}}}}
	maps.Copy(apps, more)
	return map[string]any{
		"admin":   map[string]any{"listen": "unix/" + c.admin, "config": map[string]any{"persist": false}},
		"storage": map[string]any{"module": "file_system", "root": c.t.TempDir()},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"writer": map[string]any{"output": "discard"}}}},
		"apps":    apps,
	}
}

// redirector returns a handler on a script, with more options.
func redirector(s *script, more map[string]any) map[string]any {
	h := map[string]any{
		"handler": "vault_redirect", "discovery": map[string]any{"source": "test_script", "script": s.name},
		"probe": map[string]any{"mode": "off"}, "hold": 0,
	}
	maps.Copy(h, more)
	return h
}

// load runs a config.
func (c *testCaddy) load(config map[string]any) error {
	c.t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		c.t.Fatal(err)
	}
	return caddy.Load(text, true)
}

func (c *testCaddy) mustLoad(config map[string]any) {
	c.t.Helper()
	if err := c.load(config); err != nil {
		c.t.Fatal(err)
	}
}

// do sends a request to http://admin/... or to the site. The admin server is replaced by each reload: one that ends is
// asked again.
func (c *testCaddy) do(method, url string, header ...string) (*http.Response, string) {
	c.t.Helper()
	var err error
	for range 20 {
		var req *http.Request
		if req, err = http.NewRequest(method, url, nil); err != nil {
			c.t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		var resp *http.Response
		if resp, err = c.http.Do(req); err != nil {
			continue
		}
		var body bytes.Buffer
		_, err = body.ReadFrom(resp.Body)
		resp.Body.Close()
		if err == nil {
			return resp, body.String()
		}
	}
	c.t.Fatal(err)
	return nil, ""
}

// status returns the status document.
func (c *testCaddy) status() (d status.Document) {
	c.t.Helper()
	_, body := c.do("GET", "http://admin/vault_redirect/status")
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		c.t.Fatalf("%v: %s", err, body)
	}
	return d
}
