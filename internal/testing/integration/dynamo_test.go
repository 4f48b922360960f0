// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// Two nodes that share a table, and a client that goes on when the active one is stopped, and when it is killed. A client
// sees an error only of a request that was under way at the node that ended, or was sent to it before the redirector could
// know; all others are answered, after a wait for the next node.
func TestDiscoveryOnDynamoDB(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{NoConsul: true, Vaults: 2, Storage: cluster.DynamoStorage})
	mountKV(t, c)
	caddy := runCaddy(t, "", byVaults(c, ""))
	site := "http://" + caddy.IP + ":8080"
	for _, fault := range []struct {
		name string
		do   func(*cluster.Vault) error
	}{
		{"normal stop", func(v *cluster.Vault) error { return v.Stop(timeout(t)) }},
		{"kill -9", (*cluster.Vault).Kill},
	} {
		old, err := c.WaitActive(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		caddy.awaitTarget(site, old.URL)
		l := startClients(t, site, c.RootToken)
		l.await("some operations", 20)
		began := time.Now()
		if err := fault.do(old); err != nil {
			t.Fatal(err)
		}
		next, err := c.WaitActive(timeout(t), old)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: the next node is active after %s", fault.name, time.Since(began).Round(100*time.Millisecond))
		caddy.awaitTarget(site, next.URL)
		l.await("more operations", 20)
		for _, o := range l.end() {
			// The prober asks every 250 ms; a normal stop of Vault closes its listener first, and ends later.
			if o.err != nil && (o.node != old.Addr || o.began.After(began.Add(3*time.Second))) {
				t.Errorf("%s: an operation at %s, begun %s after: %v", fault.name, o.node, o.began.Sub(began), o.err)
			}
		}
		if err := old.Restart(timeout(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitHealthy(timeout(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// clientLoad is two clients that read and write, one operation after the other.
type clientLoad struct {
	t     *testing.T
	over  chan struct{}
	group sync.WaitGroup

	mu   sync.Mutex
	done []operated
}

// operated is an operation that is over.
type operated struct {
	began time.Time
	node  string
	err   error
}

func startClients(t *testing.T, site, token string) *clientLoad {
	t.Helper()
	l := &clientLoad{t: t, over: make(chan struct{})}
	for i := range 2 {
		l.group.Go(func() {
			client := oneRedirect(t)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for n := i; ; n++ {
				select {
				case <-l.over:
					return
				case <-tick.C:
				}
				o := operated{began: time.Now()}
				o.node, o.err = operation(client, site, token, n%2 == 0)
				l.mu.Lock()
				l.done = append(l.done, o)
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { l.end() })
	return l
}

// await waits for n more operations that succeed.
func (l *clientLoad) await(what string, n int) {
	l.t.Helper()
	succeeded := func() (n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, o := range l.done {
			if o.err == nil {
				n++
			}
		}
		return n
	}
	want := succeeded() + n
	wait.Until(l.t, what, func() bool { return succeeded() >= want })
}

// end ends the load, and returns all operations.
func (l *clientLoad) end() []operated {
	select {
	case <-l.over:
	default:
		close(l.over)
	}
	l.group.Wait()
	return l.done
}
