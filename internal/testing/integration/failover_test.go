// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// operation reads or writes a secret with one redirect at most, and says which node it was sent to in the end.
func operation(c *http.Client, site, token string, write bool) (node string, err error) {
	method, body := "GET", ""
	if write {
		method, body = "POST", `{"data":{"a":"b"}}`
	}
	req, err := http.NewRequest(method, site+"/v1/secret/data/x", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := c.Do(req)
	if err != nil {
		_, node, _ = strings.Cut(lastURL(err), "://")
		return node, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	node = resp.Request.URL.Host
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	if err == nil && !json.Valid(text) {
		err = fmt.Errorf("answer %q", text)
	}
	return node, err
}

// lastURL is the part of a client's error that says where the request was sent.
func lastURL(err error) string {
	text := err.Error()
	if _, after, ok := strings.Cut(text, `"`); ok {
		text, _, _ = strings.Cut(after, "/v1/")
	}
	return text
}

// oneRedirect follows one redirect, as Vault's client does, and tries nothing twice.
func oneRedirect(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: time.Minute, Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > 1 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// mountKV mounts a key-value store and waits until it takes writes.
func mountKV(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	if err := c.Do(timeout(t), nil, "POST", "/v1/sys/mounts/secret", map[string]any{"type": "kv-v2"}, nil); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "kv-v2 is ready", func() bool {
		return c.Do(t.Context(), nil, "POST", "/v1/secret/data/x", map[string]any{"data": map[string]any{"a": "b"}}, nil) == nil
	})
}

// operations are reads and writes by clients that try nothing twice, through one failover.
type operations struct {
	t                 *testing.T
	name, site, token string
	old               *cluster.Vault // the active node that goes
	quick             time.Duration  // how long after the event operations may still be sent to it

	over  chan struct{}
	group sync.WaitGroup
	mu    sync.Mutex
	total int
	nodes map[string]bool // that have answered
	event time.Time
}

// start starts four clients that read and write.
func (o *operations) start() {
	o.over, o.nodes = make(chan struct{}), map[string]bool{}
	for i := range 4 {
		o.group.Go(func() {
			client := oneRedirect(o.t)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for n := i; ; n++ {
				select {
				case <-o.over:
					return
				case <-tick.C:
				}
				began := time.Now()
				node, err := operation(client, o.site, o.token, n%2 == 0)
				o.add(began, node, err)
			}
		})
	}
}

// add counts an operation. What was under way at the dying node is lost; nothing else is.
func (o *operations) add(began time.Time, node string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.total++
	if err == nil {
		o.nodes[node] = true
	}
	if err != nil && (node != o.old.Addr || !o.event.IsZero() && began.After(o.event.Add(o.quick))) {
		o.t.Errorf("%s: an operation at %s, begun %s after the event: %v", o.name, node, began.Sub(o.event), err)
	}
}

// more waits until there have been more than n operations from now on.
func (o *operations) more(what string, n int) {
	o.t.Helper()
	o.mu.Lock()
	after := o.total + n
	o.mu.Unlock()
	wait.Until(o.t, what, func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.total > after })
}

// happens notes that the event is about to be.
func (o *operations) happens() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.event = time.Now()
}

// stop ends the clients.
func (o *operations) stop() {
	close(o.over)
	o.group.Wait()
	o.t.Logf("%s: %d operations", o.name, o.total)
}

// TestFailoverWithoutAFailedRequest also names all reads by standby: those of Vault forward, so the active node gets the reads, too.
func TestFailoverWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{})
	mountKV(t, c)
	const probe = 250 * time.Millisecond
	caddy := runCaddy(t, "", `
http://{ip}:8080 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		scheme http
		probe 250ms {
			timeout 250ms
		}
		hold 30s
		standby method GET LIST
	}
}`)
	site := "http://" + caddy.IP + ":8080"
	caddy.await("healthy", func() bool { return readHealth(t, site).Healthy })

	standbyOf := func(active *cluster.Vault) *cluster.Vault {
		return c.Vaults[slices.IndexFunc(c.Vaults, func(v *cluster.Vault) bool { return v != active })]
	}
	for _, fault := range []struct {
		name string
		do   func(*cluster.Vault) error
	}{
		{"kill -9 of a standby", nil},
		{"step-down", func(v *cluster.Vault) error { return v.StepDown(timeout(t)) }},
		{"kill -9", (*cluster.Vault).Kill},
	} {
		old, err := c.WaitActive(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		caddy.awaitTarget(site, old.URL)
		caddy.await("the standbys have said that they forward reads", func() bool {
			reading, forwarding := nodesBy(caddy, engine.ForwardsReads)
			return reading == 0 && forwarding == 2
		})
		o := &operations{t: t, name: fault.name, site: site, token: c.RootToken, old: old, quick: 2*probe + time.Second}
		next, victim := old, old
		if fault.do == nil {
			victim = standbyOf(old)
		}
		o.start()
		o.more("some operations", 20)
		o.happens()
		if fault.do == nil {
			err = victim.Kill()
		} else if err = fault.do(old); err == nil {
			next, err = c.WaitActive(timeout(t), old)
		}
		if err != nil {
			t.Fatal(err)
		}
		caddy.awaitTarget(site, next.URL)
		o.more("more operations", 40)
		o.stop()
		for node := range o.nodes {
			if node != old.Addr && node != next.Addr {
				t.Errorf("%s: an operation at %s, which was not active", fault.name, node)
			}
		}
		if !victim.Running() {
			if err := victim.Restart(timeout(t)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WaitHealthy(timeout(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// nodesBy returns how many nodes get reads, and how many do not for a reason, as the status of the only cluster says.
func nodesBy(caddy *server, why string) (reading, because int) {
	caddy.t.Helper()
	var status struct {
		Clusters []struct {
			Nodes []struct {
				Reads      bool
				WhyNoReads string `json:"why_no_reads"`
			}
		}
	}
	code, text := caddy.admin("GET", "/vault_redirect/status", "", "")
	if err := json.Unmarshal([]byte(text), &status); code != http.StatusOK || err != nil || len(status.Clusters) != 1 {
		caddy.t.Fatalf("%d %v: %s", code, err, text)
	}
	for _, n := range status.Clusters[0].Nodes {
		if n.Reads {
			reading++
		}
		if n.WhyNoReads == why {
			because++
		}
	}
	return reading, because
}

func TestProxyForClientsThatCannotFollow(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{})
	mountKV(t, c)
	caddy := runCaddy(t, "", `
http://{ip}:8080 {
	vault_redirect `+c.Consuls[0].HTTPAddr+` {
		scheme http
		hold 30s
		proxy header X-Requested-With XMLHttpRequest
	}
}`)
	site := "http://" + caddy.IP + ":8080"
	read := func() (int, string) {
		t.Helper()
		req, err := http.NewRequest("GET", site+"/v1/secret/data/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", c.RootToken)
		req.Header.Set("X-Requested-With", "XMLHttpRequest")
		resp, err := client.Do(req) // follows nothing
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, readAll(t, resp)
	}
	for range 2 {
		v, err := c.WaitActive(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		caddy.awaitTarget(site, v.URL)
		if code, body := read(); code != http.StatusOK || !strings.Contains(body, `"a":"b"`) {
			t.Errorf("status %d: %s", code, body)
		}
		if code, location, _ := get(t, site+"/v1/secret/data/x"); code != http.StatusTemporaryRedirect || location != v.URL+"/v1/secret/data/x" {
			t.Errorf("others: status %d, Location %s", code, location)
		}
		if err := v.StepDown(timeout(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.WaitActive(timeout(t), v); err != nil {
			t.Fatal(err)
		}
	}
}
