// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the time between the signal to end and the end, with a real HAProxy.

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
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

// TestDraining looks at everything while one copy drains.
func TestDraining(t *testing.T) {
	t.Parallel()
	consul := standinConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := run(t, harness.Options{Caddyfile: draining(consul, "5s")})
	site := "http://" + caddy.IP + ":8080"
	caddy.await("it redirects", func() bool { code, _, _ := get(t, site+"/v1/x"); return code == http.StatusTemporaryRedirect })
	ask := func(path string) (*http.Response, checkAnswer) {
		t.Helper()
		resp, err := client.Get(site + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var a checkAnswer
		if text := readAll(t, resp); strings.HasPrefix(path, harness.HealthPath) && json.Unmarshal([]byte(text), &a) != nil {
			t.Errorf("%s: %s", path, text)
		}
		return resp, a
	}
	yes := func(b *bool) bool { return b != nil && *b }
	for path, code := range map[string]int{"": 200, "/ready": 200, "/live": 200} {
		if resp, a := ask(harness.HealthPath + path); resp.StatusCode != code || a.Draining != nil || resp.Close != false && resp.Header.Get("Connection") == "close" {
			t.Errorf("before: %q: status %d, %+v", path, resp.StatusCode, a)
		}
	}

	if err := caddy.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	caddy.await("it drains", func() bool {
		resp, _ := ask(harness.HealthPath)
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	resp, a := ask(harness.HealthPath)
	if left, err := time.ParseDuration(a.ShutdownIn); yes(a.Healthy) || !yes(a.Draining) || a.Reason != "ok" || err != nil || left <= 0 || left > 5*time.Second {
		t.Errorf("health: status %d, %+v", resp.StatusCode, a)
	}
	if resp, a := ask(harness.HealthPath + "/ready"); resp.StatusCode != 503 || yes(a.Ready) || !yes(a.Draining) || a.ShutdownIn == "" {
		t.Errorf("ready: status %d, %+v", resp.StatusCode, a)
	}
	if resp, a := ask(harness.HealthPath + "/live"); resp.StatusCode != 200 || !yes(a.Live) {
		t.Errorf("live: status %d, %+v", resp.StatusCode, a)
	}
	// A client that would keep its connection is asked to leave.
	kept := &http.Transport{}
	defer kept.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", site+"/v1/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := kept.RoundTrip(req); err != nil || resp.StatusCode != http.StatusTemporaryRedirect || !resp.Close {
		t.Errorf("a redirect: %v, %+v", err, resp)
	} else {
		resp.Body.Close()
	}
	_, status := caddy.admin("GET", "/vault_redirect/status", "", "")
	if !strings.Contains(status, `"draining": true`) || strings.Contains(status, `"shutdown_at": null`) || !strings.Contains(status, `"cluster": "prod"`) {
		t.Errorf("status: %s", status)
	}
	_, metrics := caddy.admin("GET", "/metrics", "", "")
	for _, want := range []string{"caddy_vault_redirect_draining 1\n", "caddy_vault_redirect_active{cluster=\"prod\"} 1\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("there is no %s", want)
		}
	}
	code, err := caddy.Wait(timeout(t))
	if err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	if n := strings.Count(caddy.Log(), `"msg":"draining: `); n != 1 {
		t.Errorf("%d lines on draining", n)
	}
}

// TestNoDraining: a reload does not drain, and neither does an end without shutdown_delay.
func TestNoDraining(t *testing.T) {
	t.Parallel()
	consul := standinConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
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

// restarts is how many restarts TestRestartsBehindHAProxy does; the environment may ask for more.
func restarts(t *testing.T) int {
	text := os.Getenv("VAULT_REDIRECT_RESTARTS")
	if text == "" {
		return 10
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 10000 {
		t.Fatalf("VAULT_REDIRECT_RESTARTS is %q", text)
	}
	return n
}

// haproxy runs HAProxy in front of copies, without retries: what fails is seen.
func haproxy(t *testing.T, copies ...*server) (ip string) {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("there is no haproxy on PATH (Debian's package haproxy): drained restarts behind it are not tested")
	}
	if ip, err = harness.Loopback(); err != nil {
		t.Skip(err)
	}
	var config strings.Builder
	fmt.Fprintf(&config, `global
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout check 5s
  retries 0
frontend clients
  bind %[1]s:8080
  default_backend copies
frontend stats
  bind %[1]s:8081
  stats enable
  stats uri /
backend copies
  balance roundrobin
  option httpchk GET %[2]s/ready
  http-check expect status 200
  default-server check inter 200ms fall 2 rise 2
`, ip, harness.HealthPath)
	for i, c := range copies {
		fmt.Fprintf(&config, "  server copy-%d %s:8080\n", i, c.IP)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process.Process{Name: "haproxy", Path: path, Args: []string{"-db", "-f", file}, LogFile: filepath.Join(t.TempDir(), "haproxy.log")}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.StopOrKill(10 * time.Second); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("HAProxy's log:\n%s", p.Tail(40))
		}
	})
	return ip
}

// TestRestartsBehindHAProxy restarts one of two copies after another under load. Each drains for longer than HAProxy takes
// to see that it is not ready: no request fails.
func TestRestartsBehindHAProxy(t *testing.T) {
	n := restarts(t)
	if testing.Short() {
		n = min(n, 2)
	}
	consul := standinConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	copies := make([]*server, 2)
	for i := range copies {
		copies[i] = run(t, harness.Options{Caddyfile: draining(consul, "1500ms")})
	}
	ip := haproxy(t, copies...)
	up := func(i int) bool {
		resp, err := client.Get("http://" + ip + ":8081/;csv")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		for line := range strings.Lines(readAll(t, resp)) {
			if fields := strings.Split(line, ","); strings.HasPrefix(line, fmt.Sprintf("copies,copy-%d,", i)) && len(fields) > 17 {
				return fields[17] == "UP"
			}
		}
		return false
	}
	for i := range copies {
		copies[i].await("HAProxy takes it for ready", func() bool { return up(i) })
	}
	var (
		group    sync.WaitGroup
		stop     atomic.Bool
		answered atomic.Int64
		failures sync.Map
	)
	for i := range 4 {
		group.Go(func() {
			rt := &http.Transport{DisableKeepAlives: i%2 == 1}
			defer rt.CloseIdleConnections()
			for !stop.Load() {
				what := oneRequest(rt, "http://"+ip+":8080/v1/x")
				if what != "307 https://127.10.0.1:8200/v1/x" {
					count, _ := failures.LoadOrStore(what, new(atomic.Int64))
					count.(*atomic.Int64).Add(1)
				}
				answered.Add(1)
				time.Sleep(time.Millisecond) // a load, not a flood: other tests have the machine, too
			}
		})
	}
	began := time.Now()
	for round := range n {
		i := round % len(copies)
		if err := copies[i].Stop(timeout(t)); err != nil {
			t.Fatal(err)
		}
		if err := copies[i].Start(timeout(t)); err != nil {
			t.Fatal(err)
		}
		copies[i].await("HAProxy takes it for ready again", func() bool { return up(i) })
	}
	stop.Store(true)
	group.Wait()
	failures.Range(func(what, count any) bool {
		t.Errorf("%d times %s", count.(*atomic.Int64).Load(), what)
		return true
	})
	t.Logf("%d restarts in %s, %d requests", n, time.Since(began).Round(time.Millisecond), answered.Load())
}

// oneRequest returns how a request was answered.
func oneRequest(rt http.RoundTripper, url string) string {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return err.Error()
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err.Error()
	}
	return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location"))
}
