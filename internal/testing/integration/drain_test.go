// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// draining is a Caddyfile of a copy that drains for some time. It answers for every host, as a balancer needs it.
func draining(consul *standin.Consul, delay string) string {
	return "{\n\tdefault_bind {ip}\n\tshutdown_delay " + delay + "\n\tgrace_period 5s\n}\n:8080 {\n\tvault_redirect " + consul.Addr() +
		" {\n\t\tname prod\n\t\tprobe off\n\t}\n}\n"
}

// checkAnswer is what the health endpoints say.
type checkAnswer struct {
	Healthy, Ready, Live, Draining *bool
	Reason                         string
	ShutdownIn                     string `json:"shutdown_in"`
}

// drainingCopy is a copy of the redirector that is to drain.
type drainingCopy struct {
	*server
	site string
}

func (d *drainingCopy) ask(path string) (*http.Response, checkAnswer) {
	d.t.Helper()
	resp, err := client.Get(d.site + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var a checkAnswer
	if text := readAll(d.t, resp); strings.HasPrefix(path, harness.HealthPath) && json.Unmarshal([]byte(text), &a) != nil {
		d.t.Errorf("%s: %s", path, text)
	}
	return resp, a
}

// wantUnready checks what the health endpoints say while it drains.
func (d *drainingCopy) wantUnready() {
	d.t.Helper()
	yes := func(b *bool) bool { return b != nil && *b }
	resp, a := d.ask(harness.HealthPath)
	if left, err := time.ParseDuration(a.ShutdownIn); yes(a.Healthy) || !yes(a.Draining) || a.Reason != "ok" || err != nil || left <= 0 || left > 5*time.Second {
		d.t.Errorf("health: status %d, %+v", resp.StatusCode, a)
	}
	if resp, a := d.ask(harness.HealthPath + "/ready"); resp.StatusCode != 503 || yes(a.Ready) || !yes(a.Draining) || a.ShutdownIn == "" {
		d.t.Errorf("ready: status %d, %+v", resp.StatusCode, a)
	}
	if resp, a := d.ask(harness.HealthPath + "/live"); resp.StatusCode != 200 || !yes(a.Live) {
		d.t.Errorf("live: status %d, %+v", resp.StatusCode, a)
	}
}

// wantAskedToLeave checks that a client that would keep its connection is redirected, and asked to leave.
func (d *drainingCopy) wantAskedToLeave() {
	d.t.Helper()
	kept := &http.Transport{}
	defer kept.CloseIdleConnections()
	req, err := http.NewRequestWithContext(d.t.Context(), "GET", d.site+"/v1/x", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if resp, err := kept.RoundTrip(req); err != nil || resp.StatusCode != http.StatusTemporaryRedirect || !resp.Close {
		d.t.Errorf("a redirect: %v, %+v", err, resp)
	} else {
		resp.Body.Close()
	}
}

// wantTold checks what status and metrics say while it drains.
func (d *drainingCopy) wantTold() {
	d.t.Helper()
	_, status := d.admin("GET", "/vault_redirect/status", "", "")
	if !strings.Contains(status, `"draining": true`) || strings.Contains(status, `"shutdown_at": null`) || !strings.Contains(status, `"cluster": "prod"`) {
		d.t.Errorf("status: %s", status)
	}
	_, metrics := d.admin("GET", "/metrics", "", "")
	for _, want := range []string{"caddy_vault_redirect_draining 1\n", "caddy_vault_redirect_active{cluster=\"prod\"} 1\n"} {
		if !strings.Contains(metrics, want) {
			d.t.Errorf("there is no %s", want)
		}
	}
}

// TestDraining looks at everything while one copy drains.
func TestDraining(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := run(t, harness.Options{Caddyfile: draining(consul, "5s")})
	d := &drainingCopy{server: caddy, site: "http://" + caddy.IP + ":8080"}
	d.await("it redirects", func() bool { code, _, _ := get(t, d.site+"/v1/x"); return code == http.StatusTemporaryRedirect })
	for path, code := range map[string]int{"": 200, "/ready": 200, "/live": 200} {
		if resp, a := d.ask(harness.HealthPath + path); resp.StatusCode != code || a.Draining != nil || resp.Close != false && resp.Header.Get("Connection") == "close" {
			t.Errorf("before: %q: status %d, %+v", path, resp.StatusCode, a)
		}
	}

	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.await("it drains", func() bool {
		resp, _ := d.ask(harness.HealthPath)
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	d.wantUnready()
	d.wantAskedToLeave()
	d.wantTold()
	code, err := d.Wait(timeout(t))
	if err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	if n := strings.Count(d.Log(), `"msg":"draining: `); n != 1 {
		t.Errorf("%d lines on draining", n)
	}
}

// TestDrainingOverAllOfHTTP: while a copy drains, clients of every version of HTTP are redirected. HTTP/3 knows no header
// Connection, and its clients refuse an answer that has one.
func TestDrainingOverAllOfHTTP(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	config := strings.Replace(draining(consul, "5s"), "{\n", "{\n\tskip_install_trust\n\tauto_https disable_redirects\n", 1)
	caddy := run(t, harness.Options{Caddyfile: config + strings.Replace(config[strings.Index(config, ":8080"):], ":8080 {", "https://{ip}:8443 {\n\ttls internal", 1)})
	plain := "http://" + caddy.IP + ":8080"
	caddy.awaitTarget(plain, "https://127.10.0.1:8200")
	ask := func(proto string, client http.RoundTripper) (int, error) {
		site := "https://" + caddy.IP + ":8443"
		if proto == "HTTP/1.1" {
			site = plain
		}
		req, err := http.NewRequestWithContext(timeout(t), "GET", site+"/v1/x", nil)
		if err != nil {
			return 0, err
		}
		resp, err := client.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		if resp.Proto != proto {
			t.Errorf("%s, want %s", resp.Proto, proto)
		}
		return resp.StatusCode, nil
	}
	clients := clientsOf(t, caddy)
	for proto, client := range clients {
		wait.Until(t, proto+" works", func() bool { code, _ := ask(proto, client); return code == http.StatusTemporaryRedirect })
	}
	if err := caddy.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	caddy.await("it drains", func() bool {
		code, _, _ := get(t, plain+harness.HealthPath)
		return code == http.StatusServiceUnavailable
	})
	for proto, client := range clients {
		if code, err := ask(proto, client); code != http.StatusTemporaryRedirect {
			t.Errorf("%s: status %d, %v", proto, code, err)
		}
	}
}

// TestNoDraining: a reload does not drain, and neither does an end without shutdown_delay.
func TestNoDraining(t *testing.T) {
	t.Parallel()
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := run(t, harness.Options{Caddyfile: draining(consul, "5s")})
	site := "http://" + caddy.IP + ":8080"
	caddy.await("it redirects", func() bool { code, _, _ := get(t, site+"/v1/x"); return code == http.StatusTemporaryRedirect })
	if err := caddy.Load(timeout(t), strings.Replace(draining(consul, "0s"), "probe off", "probe off\n\t\tretry_after 2s", 1)); err != nil {
		t.Fatal(err)
	}
	if code, _, body := get(t, site+harness.HealthPath+"/ready"); code != http.StatusOK {
		t.Errorf("after a reload: status %d: %s", code, body)
	}
	if err := caddy.Stop(timeout(t)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(caddy.Log(), "draining") {
		t.Error("it says that it drains")
	}
}
