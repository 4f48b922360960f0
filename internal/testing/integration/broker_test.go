// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// service is a program that was written for one Vault at one address. It follows redirects as Go's client does by itself,
// and tries nothing twice.
type service struct {
	t       *testing.T
	address string
	token   string
	http    *http.Client
}

func newService(t *testing.T, address, token string) *service {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &service{t, address, token, &http.Client{Timeout: time.Minute, Transport: transport}}
}

// vaultAnswer is what of Vault's answers these services use.
type vaultAnswer struct {
	Data     map[string]any
	WrapInfo *struct{ Token string } `json:"wrap_info"`
	Auth     *struct {
		ClientToken string `json:"client_token"`
		Policies    []string
	}
	Errors []string
}

// ask sends a request, and fails the test unless it succeeds. wrap is the TTL of a wrapped answer, "" for none.
func (s *service) ask(method, path, wrap string, body any) vaultAnswer {
	s.t.Helper()
	status, a := s.try(method, path, wrap, body)
	if status >= 300 {
		s.t.Fatalf("%s %s: status %d: %v", method, path, status, a.Errors)
	}
	return a
}

func (s *service) try(method, path, wrap string, body any) (status int, a vaultAnswer) {
	s.t.Helper()
	text := []byte(nil)
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			s.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.address+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.token != "" {
		req.Header.Set("X-Vault-Token", s.token)
	}
	if wrap != "" {
		req.Header.Set("X-Vault-Wrap-TTL", wrap)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	if text := readAll(s.t, resp); text != "" {
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			s.t.Fatalf("%s %s: %v in %q", method, path, err, text)
		}
	}
	return resp.StatusCode, a
}

// failovers takes the active node away, once by each kind, with what is to be done before and after. After is as soon as the
// redirector at site has noticed, whether there is another active node or not.
func failovers(t *testing.T, c *cluster.Cluster, site string, before func(), after func(kind string)) {
	t.Helper()
	for _, fault := range []struct {
		name string
		do   func(*cluster.Vault) error
	}{
		{"step-down", func(v *cluster.Vault) error { return v.StepDown(timeout(t)) }},
		{"normal stop", func(v *cluster.Vault) error { return v.Stop(timeout(t)) }},
		{"kill -9", (*cluster.Vault).Kill},
	} {
		v, err := c.WaitActive(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		before()
		if err := fault.do(v); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "it is noticed", func() bool {
			h := readHealth(t, site)
			return !h.Healthy || h.RedirectTo != v.URL
		})
		after(fault.name)
		if !v.Running() {
			if err := v.Restart(timeout(t)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WaitHealthy(timeout(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// A broker, as vault-gatekeeper was one: it makes a token for a task, and hands out nothing but a wrapped one, which the task
// unwraps, once. All of them know Vault by the redirector's address; the failover comes in between.
func TestTokenBroker(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{})
	mountKV(t, c)
	site := redirectorOf(t, c)
	admin := newService(t, site, c.RootToken)
	admin.ask("POST", "sys/policies/acl/task", "", map[string]any{"policy": `path "secret/data/x" { capabilities = ["read"] }`})
	admin.ask("POST", "sys/policies/acl/broker", "", map[string]any{"policy": `path "auth/token/create/task" { capabilities = ["update"] }`})
	admin.ask("POST", "auth/token/roles/task", "", map[string]any{"allowed_policies": []string{"task"}, "orphan": true})
	broker := newService(t, site, admin.ask("POST", "auth/token/create", "", map[string]any{"policies": []string{"broker"}}).Auth.ClientToken)

	var wrapped string
	failovers(t, c, site, func() {
		a := broker.ask("POST", "auth/token/create/task", "5m", map[string]any{"ttl": "10m"})
		if a.WrapInfo == nil || a.Auth != nil {
			t.Fatalf("not a wrapped token: %+v", a)
		}
		wrapped = a.WrapInfo.Token
	}, func(kind string) {
		task := newService(t, site, wrapped)
		a := task.ask("POST", "sys/wrapping/unwrap", "", nil)
		if a.Auth == nil || a.Auth.ClientToken == "" {
			t.Fatalf("%s: no token was wrapped: %+v", kind, a)
		}
		if status, _ := task.try("POST", "sys/wrapping/unwrap", "", nil); status != http.StatusBadRequest && status != http.StatusForbidden {
			t.Errorf("%s: unwrapped for the second time: status %d", kind, status)
		}
		task.token = a.Auth.ClientToken
		if got := fmt.Sprint(task.ask("GET", "secret/data/x", "", nil).Data["data"]); got != "map[a:b]" {
			t.Errorf("%s: the task reads %s", kind, got)
		}
		if status, _ := task.try("POST", "auth/token/create/task", "", map[string]any{}); status != http.StatusForbidden {
			t.Errorf("%s: the task may do what only the broker may: status %d", kind, status)
		}
	})
}

// A service that logs in by AppRole and renews its token, right before and right after a failover.
func TestAppRoleOfASingleAddress(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{})
	mountKV(t, c)
	site := redirectorOf(t, c)
	admin := newService(t, site, c.RootToken)
	admin.ask("POST", "sys/policies/acl/app", "", map[string]any{"policy": `path "secret/data/x" { capabilities = ["read", "update"] }`})
	admin.ask("POST", "sys/auth/approle", "", map[string]any{"type": "approle"})
	admin.ask("POST", "auth/approle/role/app", "", map[string]any{"token_policies": []string{"app"}, "token_ttl": "10m"})
	role := admin.ask("GET", "auth/approle/role/app/role-id", "", nil).Data["role_id"]
	secret := admin.ask("POST", "auth/approle/role/app/secret-id", "", map[string]any{}).Data["secret_id"]

	login := func() *service {
		s := newService(t, site, "")
		s.token = s.ask("POST", "auth/approle/login", "", map[string]any{"role_id": role, "secret_id": secret}).Auth.ClientToken
		return s
	}
	var early *service
	failovers(t, c, site, func() { early = login() }, func(kind string) {
		late := login()
		late.ask("POST", "secret/data/x", "", map[string]any{"data": map[string]any{"by": kind}})
		early.ask("POST", "auth/token/renew-self", "", map[string]any{})
		if got := fmt.Sprint(early.ask("GET", "secret/data/x", "", nil).Data["data"]); got != "map[by:"+kind+"]" {
			t.Errorf("%s: %s is read", kind, got)
		}
	})
}

// redirectorOf returns the address of a redirector in front of a cluster, with the defaults.
func redirectorOf(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	caddy := runCaddy(t, "", `
http://{ip}:8080 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		scheme http
	}
}`)
	site := "http://" + caddy.IP + ":8080"
	caddy.await("healthy", func() bool { return readHealth(t, site).Healthy })
	return site
}
