// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

func init() { caddy.RegisterModule(nextHandler{}) }

// nextHandler is a handler that answers with what it gets.
type nextHandler struct{}

func (nextHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_next", New: func() caddy.Module { return new(nextHandler) }}
}

func (nextHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("X-Next", fmt.Sprintf("%s %s %d %v %s", r.Method, r.RequestURI, len(body), err, r.Header.Get("X-Vault-Token")))
	w.WriteHeader(http.StatusTeapot)
	return nil
}

const nextJSON = `{"handler": "test_next"}`

// passing is the config of a handler that passes requests on, and of one that gets them. more begins with a comma.
func passing(consul *standin.Consul, more string) string {
	return strings.TrimSuffix(handlerJSON(consul.Addr(), unprobed(more)), "}") + `, "pass_thru": true}, ` + nextJSON
}

// TestPassThru: what would get 503 goes to the next handler, untouched, and nothing else does.
func TestPassThru(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	for _, row := range []struct {
		name, more     string // of the handler
		method, target string
		body           string
		header         string // of the request, with its value
		code           int
		next           string // what the next handler gets; empty: nothing
	}{
		{name: "a read", target: "/v1/a%2Fb//c?x=%20", code: 418, next: "GET /v1/a%2Fb//c?x=%20 0 <nil> token"},
		{name: "a write", method: "PUT", target: "/v1/a", body: "secret", code: 418, next: "PUT /v1/a 6 <nil> token"},
		{name: "an upload", method: "POST", target: "/v1/a", body: long, code: 418, next: fmt.Sprint("POST /v1/a ", len(long), " <nil> token")},
		{name: "an upload that waits to be asked for", method: "POST", target: "/v1/a", body: long, header: "Expect 100-continue", code: 418, next: fmt.Sprint("POST /v1/a ", len(long), " <nil> token")},
		{name: "what would be proxied", more: `, "proxy": {"match": [{"path": ["*"]}]}`, method: "PUT", target: "/v1/a", body: "secret", code: 418, next: "PUT /v1/a 6 <nil> token"},
		{name: "health", target: "/vault-redirector-health", code: 503},
		{name: "ready", target: "/vault-redirector-health/ready", code: 200},
		{name: "a probe of another redirector", target: "/v1/sys/health", header: "Vault-Redirect-Probe 1", code: 508},
	} {
		t.Run(row.name, func(t *testing.T) {
			consul := standin.RunConsul(t)
			site := run(t, `, "protocols": ["h1", "h2c"]`, func(int) string { return passing(consul, row.more) })
			wait.Until(t, "Consul has answered", func() bool { return strings.Contains(site.health(t), "no_service") })
			for _, h2 := range []bool{false, true} {
				if h2 && strings.HasPrefix(row.header, "Expect") {
					continue
				}
				resp := site.sendBy(t, h2, row.method, row.target, row.body, row.header)
				if got := resp.Header.Get("X-Next"); resp.StatusCode != row.code || got != row.next {
					t.Errorf("%s: status %d, the next handler got %q", resp.Proto, resp.StatusCode, got)
				}
			}
		})
	}
}

// sendBy sends a request with a token over HTTP/1.1 or 2.
func (r *liveCaddy) sendBy(t *testing.T, h2 bool, method, target, body, header string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.addr+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", "token")
	if name, value, ok := strings.Cut(header, " "); ok {
		req.Header.Set(name, value)
	}
	transport := &http.Transport{Protocols: new(http.Protocols), ExpectContinueTimeout: time.Minute}
	transport.Protocols.SetHTTP1(!h2)
	transport.Protocols.SetUnencryptedHTTP2(h2)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

// TestPassThruAfterHold: requests wait first, with their bodies unread, and are redirected if a node becomes active meanwhile.
func TestPassThruAfterHold(t *testing.T) {
	for name, proxied := range map[string]string{"redirected": "", "proxied": `, "proxy": {"match": [{"path": ["*"]}]}`} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(name, h2), func(t *testing.T) {
				consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
				site := run(t, `, "protocols": ["h1", "h2c"]`, func(int) string { return passing(consul, `, "hold": "1s"`+proxied) })
				wait.Until(t, "a node is active", func() bool { return strings.Contains(site.health(t), `"healthy": true`) })
				began := time.Now()
				consul.Set("vault", standin.Standby("vault-1", standin.Address("127.10.0.1")))
				wait.Until(t, "no node is active", func() bool { return strings.Contains(site.health(t), `"healthy": false`) })
				resp := site.sendBy(t, h2, "PUT", "/v1/a", strings.Repeat("x", 20<<10), "")
				if got := resp.Header.Get("X-Next"); resp.StatusCode != http.StatusTeapot || got != "PUT /v1/a 20480 <nil> token" {
					t.Errorf("status %d, the next handler got %q", resp.StatusCode, got)
				}
				if took := time.Since(began); took < time.Second {
					t.Errorf("it was passed on after %s", took)
				}
			})
		}
	}
}

// TestPassThruReleases: a request that waited for a node with its body unread is redirected, or proxied with all of it.
func TestPassThruReleases(t *testing.T) {
	c := standin.RunCluster(t, 1)
	site := run(t, `, "protocols": ["h1", "h2c"]`, func(int) string {
		return fmt.Sprintf(`{"handler": "vault_redirect", "scheme": "http", "hold": "1m", "discovery": {"source": "consul", "address": %q},
			"proxy": {"match": [{"path": ["/v1/secret/p*"]}]}, "pass_thru": true}, `, c.Consul.Addr()) + nextJSON
	})
	wait.Until(t, "a node is active", func() bool { return strings.Contains(site.health(t), `"healthy": true`) })
	for path, want := range map[string]int{"/v1/secret/r": http.StatusTemporaryRedirect, "/v1/secret/p": http.StatusNoContent} {
		for _, h2 := range []bool{false, true} {
			c.Vaults[0].SetSealed(true)
			wait.Until(t, "no node is active", func() bool { return strings.Contains(site.health(t), `"healthy": false`) })
			restored := make(chan struct{})
			time.AfterFunc(200*time.Millisecond, func() {
				c.Vaults[0].SetSealed(false)
				close(restored)
			})
			if resp := site.sendBy(t, h2, "PUT", path, `{"a": "`+strings.Repeat("x", 20<<10)+`"}`, ""); resp.StatusCode != want {
				t.Errorf("%s over %s: status %d, %s", path, resp.Proto, resp.StatusCode, resp.Header.Get("X-Next"))
			}
			<-restored
		}
	}
}

// health returns the health document.
func (r *liveCaddy) health(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + r.addr + defaultHealthPath)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// TestPassThruOfLoops: a loop is named, here as everywhere.
func TestPassThruOfLoops(t *testing.T) {
	consul := standin.RunConsul(t)
	site := run(t, "", func(port int) string {
		consul.Set("vault", standin.Active("vault-1", standin.Address("127.0.0.1"), standin.Port(port)))
		return passing(consul, "")
	})
	if resp, _ := site.get(t, "vault.example.com"); resp.StatusCode != http.StatusLoopDetected {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// TestPassThruErrors: what the next handler returns is returned.
func TestPassThruErrors(t *testing.T) {
	h := provision(t, standin.RunConsul(t), `, "pass_thru": true`)
	want := caddyhttp.Error(http.StatusBadGateway, errors.New("of the next handler"))
	rec, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/x", nil)
	err := h.ServeHTTP(rec, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return want }))
	if !errors.Is(err, want) || rec.Body.Len() > 0 {
		t.Errorf("error %v, answer %s", err, rec.Body)
	}
	if resp := serve(t, h, httptest.NewRequest("CONNECT", "vault.example.com:443", nil)); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("what is no path: status %d", resp.StatusCode)
	}
	if got := h.redirector.View.Stats().Answers.Count(engine.Passed); got != 1 {
		t.Errorf("%d passed", got)
	}
}

// TestPassThruToNobody: without another handler, clients get 503 rather than Caddy's empty 200, and the log says so at the start, unless
// there is one whose matchers do not match.
func TestPassThruToNobody(t *testing.T) {
	const atStart, atRequest = "no handler comes after this one", "no other handler has answered"
	consul := standin.RunConsul(t)
	handler := strings.TrimSuffix(passing(consul, ""), ", "+nextJSON)
	sub := func(handlers string) string {
		return `{"handler": "subroute", "routes": [{"handle": [` + handlers + `]}]}`
	}
	for _, row := range []struct {
		name, handlers, routes string
		starts                 int // lines at the start
	}{
		{"nothing", handler, "", 1},
		{"nothing further down", sub(handler), "", 1},
		{"a handler before", `{"handler": "headers"}, ` + handler, "", 1},
		{"two that pass on", handler + ", " + handler, "", 1},
		{"a route that does not match", handler, `, {"match": [{"path": ["/other"]}], "handle": [` + nextJSON + `]}`, 0},
		{"a handler that passes everything on", sub(handler) + `, {"handler": "headers"}`, "", 0},
		{"a route that is empty", handler, `, {}`, 1},
		{"a route of the same group", handler + `], "group": "a"}, {"group": "a", "handle": [` + nextJSON, "", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			site := run(t, "", func(int) string { return row.handlers + "]}" + row.routes + `, {"handle": [` })
			for range 2 {
				if resp, body := site.get(t, "x"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "no active Vault node") {
					t.Errorf("status %d: %s", resp.StatusCode, body)
				}
			}
			if got := len(site.logged(t, atStart)); got != row.starts {
				t.Errorf("%d lines at the start, want %d", got, row.starts)
			}
			if got := len(site.logged(t, atRequest)); got != 1 {
				t.Errorf("%d lines at requests", got)
			}
		})
	}
}

// TestPassThruDatacenters: the second of two clusters answers while the first has no active node, and is left as soon as it has one.
func TestPassThruDatacenters(t *testing.T) {
	const first, second = "https://127.10.0.1:8200/v1/sys/health", "https://127.20.0.1:8200/v1/sys/health"
	active := standin.Active("vault-1", standin.Address("127.10.0.1"))
	a, b := standin.RunConsul(t, active), standin.RunConsul(t, standin.Active("vault-2", standin.Address("127.20.0.1")))
	site := run(t, `, "logs": {}`, func(int) string {
		handler := strings.TrimSuffix(handlerJSON(a.Addr(), `, "name": "a", "hold": 0, "probe": {"mode": "off"}`), "}") + `, "pass_thru": true}, `
		return `{"handler": "headers", "response": {"deferred": true, "set": {"X-By": ["{http.vault_redirect.cluster} {http.vault_redirect.result}"]}}}, ` +
			handler + handlerJSON(b.Addr(), `, "name": "b", "probe": {"mode": "off"}`)
	})
	locations := func(want, by string) {
		t.Helper()
		wait.Until(t, "redirects lead to "+want, func() bool {
			resp, _ := site.get(t, "x")
			if got := resp.Header.Get("Location"); got != first && got != second {
				t.Fatalf("status %d, Location %q", resp.StatusCode, got)
			} else if got != want {
				return false
			}
			if got := resp.Header.Get("X-By"); got != by {
				t.Errorf("placeholders %q, want %q", got, by)
			}
			return true
		})
	}
	locations(first, "a redirected")
	var slowest time.Duration
	for range 5 {
		a.Set("vault", standin.Standby("vault-1", standin.Address("127.10.0.1")))
		locations(second, "b redirected")
		began := time.Now()
		a.Set("vault", active)
		locations(first, "a redirected")
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("back after %s at most", slowest)
	if slowest > 5*time.Second {
		t.Errorf("back only after %s", slowest)
	}
	wait.Until(t, "the log names the node", func() bool {
		return len(site.logged(t, `"vault_result":"redirected","vault_node":"vault-2"`)) >= 5 && len(site.logged(t, `"vault_result":"passed"`)) == 0
	})
}

// TestPassThruOnTheFastLane: the lane redirects as ever, and leaves what is passed on to Caddy's server.
func TestPassThruOnTheFastLane(t *testing.T) {
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	site := run(t, ", "+laneWrapper, func(int) string { return passing(consul, `, "hold": 0`) })
	wait.Until(t, "a node is active", func() bool { return strings.Contains(site.health(t), `"healthy": true`) })
	if resp, _ := site.get(t, "x"); resp.Header.Get("Location") != "https://127.10.0.1:8200/v1/sys/health" {
		t.Errorf("status %d", resp.StatusCode)
	}
	consul.Set("vault")
	wait.Until(t, "no node is active", func() bool { return strings.Contains(site.health(t), `"healthy": false`) })
	if resp, _ := site.get(t, "x"); resp.StatusCode != http.StatusTeapot {
		t.Errorf("status %d", resp.StatusCode)
	}
}
