// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// readLoad is clients that read and write, each with a token of its own, and try nothing twice.
type readLoad struct {
	t     *testing.T
	site  string
	over  chan struct{}
	group sync.WaitGroup

	mu     sync.Mutex
	done   int
	reads  map[string]int // by the host that has answered
	writes map[string]int
	failed []failedOperation
}

type failedOperation struct {
	began time.Time
	host  string // that was asked last
	err   error
}

func startReadLoad(t *testing.T, site string) *readLoad {
	l := &readLoad{t: t, site: site, over: make(chan struct{})}
	l.forget()
	for i := range 12 {
		client := oneRedirect(t)
		l.group.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-l.over:
					return
				case <-time.After(10 * time.Millisecond):
				}
				l.ask(client, fmt.Sprint("token-", i), n%4 == 0)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// ask reads or writes once.
func (l *readLoad) ask(client *http.Client, token string, write bool) {
	method, body := http.MethodGet, ""
	if write {
		method, body = http.MethodPost, `{"a": "b"}`
	}
	began := time.Now()
	req, err := http.NewRequest(method, l.site+"/v1/secret/x", strings.NewReader(body))
	if err != nil {
		l.t.Error(err)
		return
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := client.Do(req)
	host := ""
	if err != nil {
		_, host, _ = strings.Cut(lastURL(err), "://")
	} else {
		host = resp.Request.URL.Host
		if readAll(l.t, resp); resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
			err = fmt.Errorf("status %d", resp.StatusCode)
		}
		resp.Body.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.done++; {
	case err != nil:
		l.failed = append(l.failed, failedOperation{began, host, err})
	case write:
		l.writes[host]++
	default:
		l.reads[host]++
	}
}

// forget begins to count anew.
func (l *readLoad) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads, l.writes, l.failed = map[string]int{}, map[string]int{}, nil
}

// more waits for n more operations.
func (l *readLoad) more(n int) {
	l.t.Helper()
	l.mu.Lock()
	until := l.done + n
	l.mu.Unlock()
	wait.Until(l.t, "more operations", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.done >= until })
}

func (l *readLoad) stop() {
	select {
	case <-l.over:
	default:
		close(l.over)
	}
	l.group.Wait()
}

// TestReadsOnStandbys has scripted standbys serve reads under load, while a standby dies, another node becomes active, and the active
// node dies. What was under way at the node that died or stepped down is lost, or begun before that was noticed, and nothing else.
func TestReadsOnStandbys(t *testing.T) {
	t.Parallel()
	c := standin.RunCluster(t, 3)
	for _, v := range c.Vaults {
		v.SetServesReads(true)
	}
	caddy := runCaddy(t, "", `
http://{ip}:8080 {
	vault_redirect `+c.Consul.Addr()+` {
		scheme http
		standby method GET LIST
	}
}`)
	site := "http://" + caddy.IP + ":8080"
	awaitReads := func(n int) {
		t.Helper()
		caddy.await(fmt.Sprintf("%d nodes get reads", n), func() bool { reading, _ := nodesBy(caddy, ""); return reading == n })
	}
	awaitReads(2)
	load := startReadLoad(t, site)
	load.more(50) // the first read may come before the first write
	for _, fault := range []struct {
		name string
		do   func() (lost *standin.Vault, dies bool)
	}{
		{"a standby dies", func() (*standin.Vault, bool) { v := c.Vaults[2]; v.Kill(); return v, true }},
		{"step-down", func() (*standin.Vault, bool) { old := c.Active(); c.StepDown(); return old, false }},
		{"the active node dies", func() (*standin.Vault, bool) { old, _ := c.Kill(); return old, true }},
	} {
		load.forget()
		load.more(200)
		load.mu.Lock()
		t.Logf("before %s: reads %v, writes %v", fault.name, load.reads, load.writes)
		if active := c.Active().Addr(); load.reads[active] > 0 || len(load.reads) != 2 || len(load.writes) != 1 || load.writes[active] == 0 || len(load.failed) > 0 {
			t.Errorf("reads %v, writes %v, failed %v", load.reads, load.writes, load.failed)
		}
		load.mu.Unlock()
		event := time.Now()
		lost, dies := fault.do()
		load.more(300)
		load.mu.Lock()
		last := time.Duration(0)
		for _, f := range load.failed {
			last = max(last, f.began.Sub(event))
			if f.host != lost.Addr() || f.began.Sub(event) > time.Second {
				t.Errorf("%s: begun %s after it, at %s: %v", fault.name, f.began.Sub(event), f.host, f.err)
			}
		}
		t.Logf("%s: %d failed, the last one begun %s after it", fault.name, len(load.failed), last)
		load.mu.Unlock()
		if dies {
			if err := c.Restart(lost); err != nil {
				t.Fatal(err)
			}
		}
		awaitReads(2)
	}
}
