// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// proxying runs a Caddy that proxies what a matcher matches to a cluster of stand-ins, and logs at DEBUG.
func proxying(t *testing.T, c *standin.Cluster, matcher, more string) *liveCaddy {
	t.Helper()
	return run(t, `, "logs": {}`, func(int) string {
		return fmt.Sprintf(`{"handler": "vault_redirect", "scheme": "http", "discovery": {"source": "consul", "address": %q},
			"probe": {"interval": "50ms", "timeout": "500ms"}, "proxy": {"match": [%s]} %s}`, c.Consul.Addr(), matcher, more)
	})
}

// send sends a request with a token, and returns the status, the headers and the body.
func (r *liveCaddy) send(t *testing.T, method, path, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", plantedToken)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

const plantedToken = "hvs.planted-in-a-proxied-request"

func TestProxyOnlyWhatMatches(t *testing.T) {
	c := standin.RunCluster(t, 2)
	r := proxying(t, c, `{"path": ["/v1/secret/*"]}, {"header": {"X-Vault-Proxy": ["yes"]}}`, "")
	if code, _, body := r.send(t, "PUT", "/v1/secret/data/x", `{"data":{"a":"b"}}`); code >= 300 {
		t.Fatalf("write: status %d: %s", code, body)
	}
	if code, _, body := r.send(t, "GET", "/v1/secret/data/x", ""); code != http.StatusOK || !strings.Contains(body, `"a"`) {
		t.Errorf("read: status %d: %s", code, body)
	}
	if code, header, _ := r.send(t, "GET", "/v1/sys/health", ""); code != http.StatusTemporaryRedirect || header.Get("Location") == "" {
		t.Errorf("what does not match: status %d", code)
	}
	if code, _, _ := r.send(t, "GET", defaultHealthPath, ""); code != http.StatusOK {
		t.Errorf("health: status %d", code)
	}
	arrived := false
	for _, q := range c.Vaults[0].Requests() {
		arrived = arrived || q.Token && q.Path == "/v1/secret/data/x"
	}
	if !arrived {
		t.Error("the token did not arrive at Vault")
	}
}

// The health endpoints are this handler's, even where everything is proxied.
func TestProxyOfEverything(t *testing.T) {
	for name, proxy := range map[string]string{"all": `{"all": true}`, "path": `{"match": [{"path": ["*"]}]}`} {
		t.Run(name, func(t *testing.T) { proxyOfEverything(t, proxy) })
	}
}

func proxyOfEverything(t *testing.T, proxy string) {
	c := standin.RunCluster(t, 1)
	r := run(t, `, "logs": {}`, func(int) string {
		return fmt.Sprintf(`{"handler": "vault_redirect", "scheme": "http", "discovery": {"source": "consul", "address": %q},
			"probe": {"interval": "50ms", "timeout": "500ms"}, "proxy": %s}`, c.Consul.Addr(), proxy)
	})
	for _, path := range []string{defaultHealthPath, defaultHealthPath + "/ready", defaultHealthPath + "/live"} {
		if code, header, body := r.send(t, "GET", path, ""); code != http.StatusOK || header.Get("Via") != "" {
			t.Errorf("%s: status %d, Via %q: %s", path, code, header.Get("Via"), body)
		}
	}
	if code, header, _ := r.send(t, "GET", "/v1/sys/health", ""); code != http.StatusOK || header.Get("Via") == "" {
		t.Errorf("status %d, Via %q: not proxied", code, header.Get("Via"))
	}
}

// A matcher with the path of the health endpoint changes nothing there: not for other methods, nor below it.
func TestProxyOfTheHealthPath(t *testing.T) {
	c := standin.RunCluster(t, 1)
	r := proxying(t, c, fmt.Sprintf(`{"path": [%q, %q]}`, defaultHealthPath, defaultHealthPath+"/*"), "")
	if code, header, body := r.send(t, "GET", defaultHealthPath, ""); code != http.StatusOK || header.Get("Via") != "" || !strings.Contains(body, `"healthy": true`) {
		t.Errorf("status %d, Via %q: %s", code, header.Get("Via"), body)
	}
	if code, header, _ := r.send(t, "POST", defaultHealthPath, "x"); code != http.StatusMethodNotAllowed || header.Get("Via") != "" {
		t.Errorf("POST: status %d, Via %q", code, header.Get("Via"))
	}
	// This is no path of the health endpoints, so it is Vault's, which has none either.
	if code, header, _ := r.send(t, "GET", defaultHealthPath+"/else", ""); code != http.StatusNotFound || header.Get("Via") == "" {
		t.Errorf("below it: status %d, Via %q", code, header.Get("Via"))
	}
}

// A proxied request waits for the next node as one that is redirected does.
func TestProxyWaitsForTheNextNode(t *testing.T) {
	c := standin.RunCluster(t, 2)
	r := proxying(t, c, `{"path": ["/v1/*"]}`, `, "hold": "1m"`)
	if code, _, _ := r.send(t, "GET", "/v1/sys/health", ""); code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	for _, v := range c.Vaults {
		v.SetActive(false)
		v.Kill()
	}
	answered := make(chan int, 1)
	go func() {
		code, _, _ := r.send(t, "GET", "/v1/sys/health", "")
		answered <- code
	}()
	if err := c.Vaults[1].Start(); err != nil {
		t.Fatal(err)
	}
	c.Vaults[1].SetActive(true)
	if code := <-answered; code != http.StatusOK {
		t.Errorf("status %d", code)
	}
}

// Whatever goes wrong is said in Vault's form, and no log has the token in it, at DEBUG either.
func TestProxyErrorsShowNoToken(t *testing.T) {
	c := standin.RunCluster(t, 1)
	r := run(t, "", func(int) string {
		return fmt.Sprintf(`{"handler": "vault_redirect", "scheme": "http", "hold": 0, "discovery": {"source": "consul", "address": %q},
			"probe": {"mode": "off"}, "proxy": {"match": [{"path": ["/v1/*"]}]}}`, c.Consul.Addr())
	})
	c.Vaults[0].Kill()
	code, header, body := r.send(t, "GET", "/v1/secret/data/x", "")
	if code != http.StatusBadGateway || header.Get("Content-Type") != "application/json" || !strings.Contains(body, `{"errors":["the active Vault node could not be reached`) {
		t.Errorf("dead: status %d, %v: %s", code, header, body)
	}
	c.Consul.Set("vault")
	for range 100 {
		if code, _, body = r.send(t, "GET", "/v1/secret/data/x", ""); code == http.StatusServiceUnavailable {
			break
		}
	}
	if code != http.StatusServiceUnavailable || !strings.Contains(body, `"no active Vault node: `) {
		t.Errorf("none: status %d: %s", code, body)
	}
	if lines := r.logged(t, plantedToken); len(lines) > 0 {
		t.Errorf("the token is logged: %s", lines[0])
	}
}

// A node that is registered with the address of the redirector is named, not proxied to.
func TestProxyLoop(t *testing.T) {
	consul := standin.RunConsul(t)
	r := run(t, "", func(port int) string {
		consul.Set("vault", standin.Active("vault-1", standin.Address("127.0.0.1"), standin.Port(port)))
		return fmt.Sprintf(`{"handler": "vault_redirect", "scheme": "http", "discovery": {"source": "consul", "address": %q},
			"probe": {"mode": "off"}, "proxy": {"match": [{"path": ["/v1/*"]}]}}`, consul.Addr())
	})
	if code, _, body := r.send(t, "GET", "/v1/x", ""); code != http.StatusLoopDetected || !strings.Contains(body, "api_addr") {
		t.Errorf("status %d: %s", code, body)
	}
}

func TestProxyCaddyfile(t *testing.T) {
	got, err := adaptDirective("vault_redirect {\n\tproxy path /v1/sys/storage/raft/snapshot*\n\tproxy header X-Vault-Proxy yes\n\tproxy_tls {\n\t\tserver_name v\n\t}\n}")
	want := `{"discovery":{"source":"consul"},"handler":"vault_redirect","proxy":{"match":[{"path":["/v1/sys/storage/raft/snapshot*"]},` +
		`{"header":{"X-Vault-Proxy":["yes"]}}],"tls":{"server_name":"v"}}}`
	if err != nil || got != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
	got, err = adaptDirective("vault_redirect {\n\tproxy all\n\tproxy_tls {\n\t\tserver_name v\n\t}\n}")
	want = `{"discovery":{"source":"consul"},"handler":"vault_redirect","proxy":{"all":true,"tls":{"server_name":"v"}}}`
	if err != nil || got != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
	for text, want := range map[string]string{
		"proxy":                             "a request matcher is missing",
		"proxy nonsense":                    `"nonsense" is not one of Caddy's request matchers`,
		"proxy path":                        "path: arguments are missing",
		"proxy all /x":                      `all: unexpected argument "/x"`,
		"proxy all\nproxy all":              "all is given twice",
		"proxy all\nproxy path /x":          "all already proxies every request",
		"proxy path /x\nproxy all":          "all already proxies every request",
		"proxy all {\nserver_name a\n}":     "does not take a block",
		"proxy_tls x":                       "its settings go in a block",
		"proxy_tls {\n}\nproxy_tls {\n}":    "proxy_tls is given twice",
		"proxy path /x {\ntls {\n}\n}":      "blocks are not supported",
		"proxy path /x {\nserver_name a\n}": "blocks are not supported",
	} {
		if _, err := adaptDirective("vault_redirect {\n" + text + "\n}"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The trust of the proxy is one for all that it proxies; without a matcher there is nothing to proxy.
func TestProxyMistakesInJSON(t *testing.T) {
	for config, want := range map[string]string{
		`{}`:                            "match: a request matcher is missing",
		`{"tls": {"server_name": "a"}}`: "match: a request matcher is missing",
		`{"match": []}`:                 "match: a request matcher is missing",
		`{"match": [{"nonsense": {}}]}`: "http.matchers.nonsense",
		`{"match": [{"path_regexp": {"pattern": "["}}]}`: "error parsing regexp",
		`{"all": true, "match": [{"path": ["/x"]}]}`:     "all already proxies every request",
		`{"all": false}`: "match: a request matcher is missing",
		`{"match": [{"path": ["/x"]}], "tls": {"ca": "/not/there"}}`:   "/not/there",
		`{"match": [{"path": ["/x"]}], "tls": {"cert": "/not/there"}}`: "tls",
	} {
		ctx, cancel := newContext(t)
		_, err := ctx.LoadModuleByID(handlerID, fmt.Appendf(nil, `{"proxy": %s}`, config))
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "proxy") {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
	}
}

// Two handlers of one site have each their own matchers and their own trust.
func TestProxyOfTwoHandlers(t *testing.T) {
	const site = "vault_redirect /v1/a/* {\nproxy path /v1/a/*\nproxy_tls {\nserver_name a\n}\n}\n" +
		"vault_redirect {\nproxy path /v1/b/*\nproxy_tls {\nserver_name b\n}\n}"
	got, err := adaptDirective(site)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"proxy":{"match":[{"path":["/v1/a/*"]}],"tls":{"server_name":"a"}}`, `"proxy":{"match":[{"path":["/v1/b/*"]}],"tls":{"server_name":"b"}}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}
