// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// proxied are clients that read and write through a proxy, and try nothing twice. Each of the writers has a secret of its own, of
// which it writes one version after the other by check-and-set: a write that is carried out twice fails.
type proxied struct {
	*testing.T
	c    *cluster.Cluster
	site string

	over          chan struct{}
	group         sync.WaitGroup
	mu            sync.Mutex
	reads, writes int
	slowest       time.Duration
	failed        []failedCall
}

// failedCall is a request that failed, and whether Vault has carried it out nevertheless.
type failedCall struct {
	method, answer string
	carriedOut     bool
}

const (
	proxiedReaders = 4
	proxiedWriters = 8
)

func secretOf(writer int) string { return fmt.Sprintf("writer-%d", writer) }

// start starts the clients.
func (p *proxied) start() {
	p.over = make(chan struct{})
	for i := range proxiedReaders + proxiedWriters {
		transport := &http.Transport{}
		p.Cleanup(transport.CloseIdleConnections)
		client := &http.Client{Timeout: time.Minute, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		do := func() { p.read(client) }
		if writer := i - proxiedReaders; writer >= 0 {
			done := p.version(secretOf(writer))
			do = func() { done = p.write(client, writer, done) }
		}
		p.group.Go(func() {
			for {
				select {
				case <-p.over:
					return
				default:
					do()
				}
			}
		})
	}
}

// read reads a secret.
func (p *proxied) read(client *http.Client) {
	began := time.Now()
	code, text := p.call(client, "GET", "/v1/secret/data/x", "")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reads++
	p.slowest = max(p.slowest, time.Since(began))
	if code != http.StatusOK {
		p.failed = append(p.failed, failedCall{"GET", fmt.Sprint(code, " ", text), false})
	}
}

// write writes the next version of a secret, and returns how many there are then.
func (p *proxied) write(client *http.Client, writer, done int) int {
	began := time.Now()
	code, text := p.call(client, "POST", "/v1/secret/data/"+secretOf(writer), fmt.Sprintf(`{"options":{"cas":%d},"data":{"n":%d}}`, done, done+1))
	took := time.Since(began)
	now := done + 1
	if code != http.StatusOK {
		now = p.version(secretOf(writer))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes++
	p.slowest = max(p.slowest, took)
	if code != http.StatusOK {
		p.failed = append(p.failed, failedCall{"POST", fmt.Sprint(code, " ", text), now > done})
	}
	return now
}

func (p *proxied) call(client *http.Client, method, path, body string) (code int, text string) {
	req, err := http.NewRequestWithContext(p.Context(), method, p.site+path, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("X-Vault-Token", p.c.RootToken)
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(answer))
}

// version asks Vault how many versions a secret has.
func (p *proxied) version(secret string) (n int) {
	wait.Until(p, "the versions of a secret", func() bool {
		var d struct {
			Data struct {
				CurrentVersion int `json:"current_version"`
			}
		}
		err := p.c.Do(p.Context(), nil, "GET", "/v1/secret/metadata/"+secret, nil, &d)
		n = d.Data.CurrentVersion
		return err == nil || strings.Contains(err.Error(), "404")
	})
	return n
}

// more waits until there have been n more writes.
func (p *proxied) more(n int) {
	p.mu.Lock()
	until := p.writes + n
	p.mu.Unlock()
	wait.Until(p, "more writes", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.writes >= until })
}

// stop ends the clients, and returns what has failed since the last time.
func (p *proxied) stop(what string) []failedCall {
	close(p.over)
	p.group.Wait()
	p.Logf("%s: %d reads and %d writes, %d failed; the slowest took %s", what, p.reads, p.writes, len(p.failed), p.slowest.Round(time.Millisecond))
	failed := p.failed
	p.failed, p.reads, p.writes, p.slowest = nil, 0, 0, 0
	return failed
}

// check fails unless each version of each secret is the write that made it.
func (p *proxied) check() {
	p.Helper()
	for writer := range proxiedWriters {
		for n := range p.version(secretOf(writer)) {
			var d struct {
				Data struct{ Data struct{ N int } }
			}
			if err := p.c.Do(timeout(p.T), nil, "GET", fmt.Sprintf("/v1/secret/data/%s?version=%d", secretOf(writer), n+1), nil, &d); err != nil || d.Data.Data.N != n+1 {
				p.Errorf("version %d of %s is %d, %v", n+1, secretOf(writer), d.Data.Data.N, err)
			}
		}
	}
}

// Through proxy all, in the midst of many writes, a step-down costs no request, a stop only writes that Vault itself has answered that it
// is sealed, or has not answered before its end, and a kill -9 only writes that had been sent, and answers in the midst of which
// the node died: what has begun is streamed, and cannot be taken back. What Vault has answered is there once, and
// nothing is there twice.
func TestProxyAllThroughFailovers(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		options cluster.Options
		site    func(*cluster.Cluster) string
	}{
		"plain": {cluster.Options{}, func(c *cluster.Cluster) string {
			return "http://{ip}:8080 {\n\tvault_redirect " + c.Consuls[0].HTTPAddr + " {\n\t\tscheme http\n\t\tproxy all\n\t}\n}"
		}},
		"TLS": {cluster.Options{TLS: true}, func(c *cluster.Cluster) string {
			return "http://{ip}:8080 {\n\tvault_redirect " + c.Consuls[0].HTTPAddr + " {\n\t\tprobe {\n\t\t\ttls {\n\t\t\t\tca " + c.VaultCA +
				"\n\t\t\t}\n\t\t}\n\t\tproxy all\n\t}\n}"
		}},
		"without Consul": {cluster.Options{NoConsul: true}, func(c *cluster.Cluster) string { return byVaults(c, "\t\tscheme http\n\t\tproxy all") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cluster.Run(t, row.options)
			proxyAll(t, c, row.site(c))
		})
	}
}

// The same with OpenBao, where there is one.
func TestProxyAllThroughFailoversOfOpenBao(t *testing.T) {
	t.Parallel()
	cluster.Needed(t)
	if _, err := cluster.Bao(); err != nil {
		t.Skip(err)
	}
	c := cluster.Run(t, cluster.Options{NoConsul: true, OpenBao: true})
	proxyAll(t, c, byVaults(c, "\t\tscheme http\n\t\tproxy all"))
}

func proxyAll(t *testing.T, c *cluster.Cluster, site string) {
	mountKV(t, c)
	if err := c.Do(timeout(t), nil, "POST", "/v1/secret/config", map[string]any{"max_versions": 10000}, nil); err != nil {
		t.Fatal(err)
	}
	caddy := runCaddy(t, "debug", site)
	p := &proxied{T: t, c: c, site: "http://" + caddy.IP + ":8080"}
	caddy.await("healthy", func() bool { return readHealth(t, p.site).Healthy })
	const broken = "0 unexpected EOF"
	const sealed, unanswered = `503 {"errors":["Vault is sealed"]}`, `502 {"errors":["the active Vault node broke the connection before it answered, and may have carried out the request`
	for _, event := range []struct {
		name   string
		do     func(*cluster.Vault) error
		writes []string // how writes may fail
	}{
		{"step-down", func(v *cluster.Vault) error { return v.StepDown(timeout(t)) }, nil},
		{"stop", func(v *cluster.Vault) error { return v.Stop(timeout(t)) }, []string{sealed, unanswered}},
		{"kill -9", (*cluster.Vault).Kill, []string{unanswered, broken}},
	} {
		old, err := c.WaitActive(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		p.start()
		p.more(100)
		if err := event.do(old); err != nil {
			t.Fatalf("%s: %v", event.name, err)
		}
		p.more(100)
		for _, f := range p.stop(event.name) {
			if (f.method == "POST" || f.answer == broken) && slices.ContainsFunc(event.writes, func(how string) bool { return strings.HasPrefix(f.answer, how) }) {
				t.Logf("%s: %+v", event.name, f)
			} else {
				t.Errorf("%s: %+v", event.name, f)
			}
		}
		if !old.Running() {
			if err := old.Restart(timeout(t)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WaitHealthy(timeout(t)); err != nil {
			t.Fatal(err)
		}
	}
	p.check()
	if strings.Contains(caddy.Log(), c.RootToken) {
		t.Error("the token is logged at DEBUG")
	}
	metrics, err := caddy.Metrics(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "caddy_vault_redirect_proxy_retries_total") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// Over each version of HTTP, what was refused is sent again in one piece, if it was read before it was sent on.
func TestRefusalsOverAllOfHTTP(t *testing.T) {
	t.Parallel()
	const refusal = `{"errors":["local node not active but active cluster node not found"]}`
	var mu sync.Mutex
	times := map[string]int{}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if times[r.URL.Path]++; times[r.URL.Path] == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, refusal)
			return
		}
		fmt.Fprintf(w, "%s %s", r.Method, body)
	}))
	t.Cleanup(node.Close)
	at := node.Listener.Addr().(*net.TCPAddr)
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address(at.IP.String()), standin.Port(at.Port)))
	options := consul.Addr() + " {\n\t\tscheme http\n\t\tprobe off\n\t\tproxy all\n\t}\n}\n"
	caddy := runCaddy(t, "\tskip_install_trust\n\tauto_https disable_redirects", "\nhttps://{ip}:8443 {\n\ttls internal\n\tvault_redirect "+options+"http://{ip}:8080 {\n\tvault_redirect "+options)
	caddy.await("healthy", func() bool { return readHealth(t, "http://"+caddy.IP+":8080").Healthy })
	for proto, client := range clientsOf(t, caddy) {
		site := "https://" + caddy.IP + ":8443"
		if proto == "HTTP/1.1" {
			site = "http://" + caddy.IP + ":8080"
		}
		wait.Until(t, proto+" works", func() bool {
			req, err := http.NewRequestWithContext(t.Context(), "GET", site+ownPath, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.RoundTrip(req)
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
		for i, row := range []struct {
			method string
			body   io.Reader
			code   int
			want   string
		}{
			{"GET", nil, http.StatusOK, "GET "},
			{"LIST", nil, http.StatusOK, "LIST "},
			{"DELETE", nil, http.StatusOK, "DELETE "},
			{"PUT", strings.NewReader("a body"), http.StatusOK, "PUT a body"},
			{"PUT", io.MultiReader(strings.NewReader("a body")), http.StatusInternalServerError, refusal},
		} {
			req, err := http.NewRequestWithContext(t.Context(), row.method, fmt.Sprintf("%s/v1/%s/%d", site, proto[5:], i), row.body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s %s: %v", proto, row.method, err)
			}
			body := readAll(t, resp)
			if resp.Proto != proto || resp.StatusCode != row.code || body != row.want {
				t.Errorf("%s %s %d: %s, status %d: %s", proto, row.method, i, resp.Proto, resp.StatusCode, body)
			}
		}
	}
}
