// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// datacenters checks that the second of two clusters answers until the first one has an active node.
func datacenters(t *testing.T, text string) {
	setFiles(t)
	caddyfile(t, text)
	one, two := newNode(t), newNode(t)
	trustNode(t, one)
	dc1, dc2 := standin.RunConsul(t), standin.RunConsul(t, entryOf(t, "vault-2", two))
	t.Setenv("VAULT_REDIRECT_CONSUL", dc2.Addr())
	const consul = "consul {$VAULT_REDIRECT_CONSUL:127.0.0.1:8500} {\n\t\t\tdatacenter dc1"
	if !strings.Contains(text, consul) {
		t.Fatal("the Consul of dc1 is not found")
	}
	site := "https://" + runExample(t, strings.Replace(text, consul, "consul "+dc1.Addr()+" {\n\t\t\tdatacenter dc1", 1))
	client := newClient()
	location := func() string {
		resp, err := client.Get(site + "/v1/x")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get("Location")
	}
	if got := location(); got != two.URL+"/v1/x" {
		t.Errorf("without a node in dc1: Location %q", got)
	}
	dc1.Set("vault", entryOf(t, "vault-1", one))
	for deadline := time.Now().Add(time.Minute); location() != one.URL+"/v1/x"; {
		if time.Now().After(deadline) {
			t.Fatal("dc1 has a node, and is not redirected to")
		}
	}
}

// errorPage has programs and browsers get their texts.
func errorPage(t *testing.T, text string) {
	caddyfile(t, text)
	t.Setenv("VAULT_REDIRECT_CONSUL", standin.RunConsul(t).Addr())
	site := "http://" + runExample(t, text)
	for accept, kind := range map[string]string{"": "application/json", "text/html,*/*": "text/html; charset=utf-8"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", site+"/v1/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := newClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Content-Type") != kind || resp.Header.Get("Retry-After") != "5" {
			t.Errorf("Accept %q: status %d, %v, %v", accept, resp.StatusCode, resp.Header, err)
		}
		var document struct{ Errors []string }
		if kind == "application/json" && (json.Unmarshal(body, &document) != nil || len(document.Errors) != 1 || !strings.Contains(document.Errors[0], "(no_service)")) {
			t.Errorf("the body is not as Vault's errors are: %s", body)
		}
	}
}
