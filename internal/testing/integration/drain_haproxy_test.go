// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// haproxy runs HAProxy in front of copies, without retries: what fails is seen.
func haproxy(t *testing.T, copies ...*server) (ip string) {
	t.Helper()
	return runInFront(t, "haproxy", func(ip, _ string) string {
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
		return config.String()
	}, "-db", "-f")
}

// up tells whether an HAProxy takes a copy for ready, by its table of statistics.
func up(t *testing.T, haproxy string, i int) bool {
	t.Helper()
	resp, err := client.Get("http://" + haproxy + ":8081/;csv")
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

// steadyLoad makes four clients ask for a URL until stop, half of them with a new connection for each request. stop checks
// that each answer was the one wanted, and returns how many there were.
func steadyLoad(t *testing.T, url, want string) (stop func() int64) {
	t.Helper()
	var (
		group    sync.WaitGroup
		over     atomic.Bool
		answered atomic.Int64
		failures sync.Map
	)
	for i := range 4 {
		group.Go(func() {
			rt := &http.Transport{DisableKeepAlives: i%2 == 1}
			defer rt.CloseIdleConnections()
			for !over.Load() {
				what := oneRequest(rt, url)
				if what != want {
					count, _ := failures.LoadOrStore(what, new(atomic.Int64))
					count.(*atomic.Int64).Add(1)
				}
				answered.Add(1)
				time.Sleep(time.Millisecond) // a load, not a flood: other tests have the machine, too
			}
		})
	}
	return func() int64 {
		t.Helper()
		over.Store(true)
		group.Wait()
		failures.Range(func(what, count any) bool {
			t.Errorf("%d times %s", count.(*atomic.Int64).Load(), what)
			return true
		})
		return answered.Load()
	}
}

// TestRestartsBehindHAProxy restarts one of two copies after another under load. Each drains for longer than HAProxy takes
// to see that it is not ready: no request fails.
func TestRestartsBehindHAProxy(t *testing.T) {
	n := countFromEnv(t, "VAULT_REDIRECT_RESTARTS", 10)
	if testing.Short() {
		n = min(n, 2)
	}
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	copies := make([]*server, 2)
	for i := range copies {
		copies[i] = run(t, harness.Options{Caddyfile: draining(consul, "1500ms")})
	}
	ip := haproxy(t, copies...)
	for i := range copies {
		copies[i].await("HAProxy takes it for ready", func() bool { return up(t, ip, i) })
	}
	stop := steadyLoad(t, "http://"+ip+":8080/v1/x", "307 https://127.10.0.1:8200/v1/x")
	began := time.Now()
	for round := range n {
		i := round % len(copies)
		if err := copies[i].Stop(timeout(t)); err != nil {
			t.Fatal(err)
		}
		if err := copies[i].Start(timeout(t)); err != nil {
			t.Fatal(err)
		}
		copies[i].await("HAProxy takes it for ready again", func() bool { return up(t, ip, i) })
	}
	answered := stop()
	t.Logf("%d restarts in %s, %d requests", n, time.Since(began).Round(time.Millisecond), answered)
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
