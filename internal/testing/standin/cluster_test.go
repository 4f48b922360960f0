// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// ask sends one request, follows no redirect, and returns status, header and body.
func ask(t *testing.T, method, url, body string) (int, http.Header, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", "s.test")
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(got)
}

func testCluster(t *testing.T, n int) *Cluster {
	t.Helper()
	c, err := NewCluster(n, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestVaultHealth(t *testing.T) {
	v, err := NewVault("", "vault-1")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, tt := range []struct {
		name   string
		set    func()
		code   int
		sealed bool
	}{
		{"standby", func() {}, 429, false},
		{"active", func() { v.SetActive(true) }, 200, false},
		{"sealed", func() { v.SetSealed(true) }, 503, true},
		{"uninitialised", func() { v.SetHealth(501) }, 501, true},
		{"disaster recovery", func() { v.SetHealth(472) }, 472, false},
		{"performance standby", func() { v.SetHealth(473) }, 473, false},
		{"removed", func() { v.SetHealth(530) }, 530, false},
		{"own again", func() { v.SetHealth(0); v.SetSealed(false) }, 200, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.set()
			code, h, body := ask(t, "GET", v.URL()+"/v1/sys/health", "")
			var document struct{ Sealed bool }
			if err := json.Unmarshal([]byte(body), &document); err != nil {
				t.Fatal(err)
			}
			if code != tt.code || document.Sealed != tt.sealed || h.Get("X-Vault-Stand-In") != "vault-1" {
				t.Errorf("%d %s %v", code, body, h)
			}
			if code, _, body := ask(t, "HEAD", v.URL()+"/v1/sys/health", ""); code != tt.code || body != "" {
				t.Errorf("HEAD: %d %q", code, body)
			}
		})
	}
}

func TestVaultHangKillStart(t *testing.T) {
	v, err := NewVault("", "vault-1")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	addr := v.Addr()
	v.Hang(true)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", v.URL()+"/v1/sys/health", nil)
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		gone <- err
	}()
	await(t, v, func() bool { return len(v.Requests()) == 1 })
	cancel()
	if err := <-gone; err == nil {
		t.Error("a hanging node answered")
	}
	await(t, v, func() bool { return v.Connections() == 0 })
	v.Hang(false)
	v.Kill()
	if err := v.Start(); err != nil || v.Addr() != addr {
		t.Fatal(err, v.Addr())
	}
	if code, _, _ := ask(t, "GET", v.URL()+"/v1/sys/health", ""); code != 429 {
		t.Error(code)
	}
}

func TestSecrets(t *testing.T) {
	c := testCluster(t, 2)
	active, standby := c.Vaults[0], c.Vaults[1]
	path := "/v1/secret/app/db%2Fx"
	code, h, _ := ask(t, "PUT", standby.URL()+path+"?a=b", `{"k":"v"}`)
	if code != 307 || h.Get("Location") != active.URL()+path+"?a=b" {
		t.Errorf("%d %v", code, h)
	}
	if code, _, body := ask(t, "PUT", active.URL()+"/v1/secret/app/db", `{"k":"v"}`); code != 204 {
		t.Error(code, body)
	}
	if r := active.Requests()[0]; !r.Token || r.Method != "PUT" || r.Path != "/v1/secret/app/db" {
		t.Errorf("%+v", r)
	}
	if code, _, _ := ask(t, "PUT", active.URL()+"/v1/sys/step-down", ""); code != 204 || c.Active() != standby {
		t.Error(code, c.Active().Name())
	}
	for _, tt := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "app/db", 200, `"data":{"k":"v"}`},
		{"LIST", "", 200, `"data":{"keys":["app/"]}`},
		{"GET", "app?list=true", 200, `"data":{"keys":["db"]}`},
		{"POST", "app/db", 400, "missing data fields"},
		{"DELETE", "app/db", 204, ""},
		{"GET", "app/db", 404, `{"errors":[]}`},
		{"LIST", "", 404, `{"errors":[]}`},
	} {
		body := ""
		if tt.method == "POST" {
			body = "{}"
		}
		if code, _, got := ask(t, tt.method, standby.URL()+secretPath+tt.path, body); code != tt.code || !strings.Contains(got, tt.body) {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, code, got)
		}
	}
	if _, _, body := ask(t, "GET", active.URL()+"/v1/sys/leader", ""); !strings.Contains(body, standby.URL()) || !strings.Contains(body, `"is_self":false`) {
		t.Error(body)
	}
	standby.SetSealed(true)
	if code, _, body := ask(t, "GET", standby.URL()+path, ""); code != 503 || body != `{"errors":["Vault is sealed"]}`+"\n" {
		t.Error(code, body)
	}
	if code, _, _ := ask(t, "GET", active.URL()+path, ""); code != 500 {
		t.Errorf("no leader: %d", code)
	}
}

// shown puts a Consul answer in one line: a node's tag, ! when it is critical.
func shown(entries []*api.ServiceEntry) string {
	var out []string
	for _, e := range entries {
		s := e.Service.Tags[0]
		if e.Checks.AggregatedStatus() == api.HealthCritical {
			s += "!"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// follow collects n answers, each as it comes.
func follow(t *testing.T, client *api.Client, n int) <-chan []string {
	ch := make(chan []string, 1)
	go func() {
		var seen []string
		for index := uint64(0); len(seen) < n; {
			r := <-query(t.Context(), client, index, time.Minute)
			if r.err != nil {
				t.Error(r.err)
				break
			}
			seen, index = append(seen, shown(r.entries)), r.meta.LastIndex
		}
		ch <- seen
	}()
	return ch
}

func TestClusterChangesOfLeadership(t *testing.T) {
	for _, tt := range []struct {
		name string
		act  func(c *Cluster) *Vault
		want []string
	}{
		{"step-down", (*Cluster).StepDown, []string{
			"active standby standby", "standby standby standby", "standby active standby",
		}},
		{"kill", func(c *Cluster) *Vault { _, next := c.Kill(); return next }, []string{
			"active standby standby", "active active standby", "active! active standby",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testCluster(t, 3)
			seen := follow(t, testClient(t, c.Consul.URL()), len(tt.want))
			watched := func(queries int) {
				await(t, c.Consul, func() bool { return c.Consul.Queries() == queries && c.Consul.Open() == 1 })
			}
			watched(2)
			c.pause = func() { watched(3) }
			if next := tt.act(c); next != c.Vaults[1] || c.Active() != next {
				t.Errorf("%s leads", next.Name())
			}
			if got := <-seen; strings.Join(got, "; ") != strings.Join(tt.want, "; ") {
				t.Errorf("seen %q, want %q", got, tt.want)
			}
		})
	}
}

func TestClusterKillAll(t *testing.T) {
	c := testCluster(t, 2)
	client := testClient(t, c.Consul.URL())
	first, second := c.Kill()
	if old, next := c.Kill(); old != second || next != nil || c.Active() != nil {
		t.Error(old, next)
	}
	if old, next := c.Kill(); old != nil || next != nil {
		t.Error(old, next)
	}
	if c.StepDown() != nil {
		t.Error("a dead cluster has a leader")
	}
	for _, v := range []*Vault{first, second, second} {
		if err := c.Restart(v); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-query(t.Context(), client, 0, 0); c.Active() != first || shown(r.entries) != "active standby" {
		t.Error(shown(r.entries))
	}
}

func TestCloseEndsAllGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	c, err := NewCluster(2, "")
	if err != nil {
		t.Fatal(err)
	}
	ask(t, "GET", c.Vaults[0].URL()+"/v1/sys/health", "")
	c.Close()
	if _, err := NewCluster(0, ""); err == nil {
		t.Error("a cluster of nothing")
	}
	// A goroutine that has reported its end may still be counted for a moment.
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
