// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// TestReady: a copy is ready unless another may do better, and live while it answers.
func TestReady(t *testing.T) {
	c, s := newTestCaddy(t), newScript(t, "ready")
	s.Say(unreachable)
	c.mustLoad(c.config(nil, redirector(s, map[string]any{"max_stale": 0})))
	ask := func(path string) (code int, keys string, document map[string]any) {
		t.Helper()
		resp, body := c.do("GET", "http://"+c.site+defaultHealthPath+path)
		if err := json.Unmarshal([]byte(body), &document); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: headers %v", path, resp.Header)
		}
		return resp.StatusCode, strings.Join(slices.Sorted(maps.Keys(document)), " "), document
	}
	for _, step := range []struct {
		reason        discovery.Reason
		ready, health int
		do            func()
	}{
		{discovery.ReasonConsulUnreachable, 503, 503, func() {}},
		{discovery.ReasonNoService, 200, 503, func() { s.Say(nil) }},
		{discovery.ReasonNoActive, 200, 503, func() { s.Say(nil, node("vault-0", false)) }},
		{discovery.ReasonBadAddress, 200, 503, func() { s.Say(nil, at(node("vault-0", true), "no host")) }},
		{discovery.ReasonOK, 200, 200, func() { s.Say(nil, node("vault-0", true)) }},
		{discovery.ReasonStaleExpired, 503, 503, func() { s.Say(unreachable) }},
	} {
		step.do()
		c.awaitReason(step.reason)
		if code, _, _ := ask(""); code != step.health {
			t.Errorf("%s: health %d, want %d", step.reason, code, step.health)
		}
		code, keys, document := ask("/ready")
		want := "ready"
		if step.ready != 200 {
			want = "detail ready reason"
		}
		if code != step.ready || keys != want || document["ready"] != (code == 200) || code != 200 && document["reason"] != string(step.reason) {
			t.Errorf("%s: ready %d, want %d: %v", step.reason, code, step.ready, document)
		}
		if code, keys, document := ask("/live"); code != 200 || keys != "live" || document["live"] != true {
			t.Errorf("%s: live %d: %v", step.reason, code, document)
		}
	}
	for _, method := range []string{"POST", "DELETE"} {
		if resp, _ := c.do(method, "http://"+c.site+defaultHealthPath+"/ready"); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: status %d", method, resp.StatusCode)
		}
	}
	// What is not quite an endpoint is a path like others.
	for _, path := range []string{"/readyz", "/ready/", "x", "/live/x"} {
		if resp, body := c.do("GET", "http://"+c.site+defaultHealthPath+path); strings.Contains(body, `"ready"`) || resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: status %d: %s", path, resp.StatusCode, body)
		}
	}
}
