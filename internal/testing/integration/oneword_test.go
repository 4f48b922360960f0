// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// readers read a secret in a loop, half of them on connections that they keep, and note what became of it.
type readers struct {
	group  sync.WaitGroup
	over   chan struct{}
	count  atomic.Int64
	worst  atomic.Int64 // the longest time, in ns, for which the machine kept a ticking goroutine waiting since lull
	mu     sync.Mutex
	failed []failedRead
}

type failedRead struct {
	began, ended time.Time
	node         string // host:port of what was asked last: a node, or the redirector
	err          error
}

func startReaders(t *testing.T, c *cluster.Cluster, site string) *readers {
	r := &readers{over: make(chan struct{})}
	for i := range 6 {
		client := oneRedirect(t)
		transport := client.Transport.(*http.Transport)
		transport.DisableKeepAlives = i%2 == 0
		if c.VaultCA != "" {
			transport.TLSClientConfig = &tls.Config{RootCAs: certificates(t, c.VaultCA)}
		}
		r.loop(20*time.Millisecond, func() {
			began := time.Now()
			node, err := operation(client, site, c.RootToken, false)
			r.count.Add(1)
			if err != nil {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.failed = append(r.failed, failedRead{began, time.Now(), node, err})
			}
		})
	}
	last := time.Now()
	r.loop(5*time.Millisecond, func() {
		late := int64(time.Since(last) - 5*time.Millisecond)
		last = time.Now()
		for old := r.worst.Load(); late > old && !r.worst.CompareAndSwap(old, late); old = r.worst.Load() {
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *readers) loop(every time.Duration, do func()) {
	r.group.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-r.over:
				return
			case <-tick.C:
				do()
			}
		}
	})
}

func (r *readers) stop() {
	select {
	case <-r.over:
	default:
		close(r.over)
	}
	r.group.Wait()
}

// more waits for n more reads, whatever becomes of them.
func (r *readers) more(t *testing.T, n int64) {
	t.Helper()
	until := r.count.Load() + n
	wait.Until(t, "more reads", func() bool { return r.count.Load() >= until })
}

// take returns the failures so far and forgets them.
func (r *readers) take() []failedRead {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := r.failed
	r.failed = nil
	return failed
}

func certificates(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(file)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatalf("no certificate in %s: %v", file, err)
	}
	return pool
}

// goneAfter does something to the active node and returns when it was gone for new requests.
type goneAfter func(context.Context, *cluster.Vault) (time.Time, error)

// steppedDown: gone when the node first says that it is not active.
func steppedDown(ctx context.Context, v *cluster.Vault) (gone time.Time, err error) {
	if err := v.StepDown(ctx); err != nil {
		return gone, err
	}
	return gone, wait.Poll(ctx, 5*time.Millisecond, "the end of its role", func(ctx context.Context) error {
		if code, err := v.Health(ctx); err == nil && code == http.StatusOK {
			return errors.New("it is active")
		}
		gone = time.Now()
		return nil
	})
}

// stopped: gone when the listener is closed. Vault goes on answering on the connections that it has.
func stopped(ctx context.Context, v *cluster.Vault) (gone time.Time, err error) {
	if err := v.Signal(syscall.SIGTERM); err != nil {
		return gone, err
	}
	return gone, wait.Poll(ctx, time.Millisecond, "the end of its listener", func(context.Context) error {
		conn, err := net.DialTimeout("tcp", v.Addr, time.Second)
		if err == nil {
			conn.Close()
			return errors.New("it takes connections")
		}
		gone = time.Now()
		return nil
	})
}

// killed: gone when the process is.
func killed(_ context.Context, v *cluster.Vault) (time.Time, error) {
	err := v.Kill()
	return time.Now(), err
}

func TestOneWordLosesOnlyWhatIsInFlight(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		name, scheme := "plain", "{\n\t\tscheme http\n\t}"
		if secure {
			name, scheme = "TLS, untrusted CA", ""
		}
		t.Run(name, func(t *testing.T) {
			c := cluster.Run(t, cluster.Options{TLS: secure})
			mountKV(t, c)
			caddy := runCaddy(t, "", "http://{ip}:8080 {\n\tvault_redirect "+c.Consuls[0].HTTPAddr+" "+scheme+"\n}")
			site := "http://" + caddy.IP + ":8080"
			oneWordFailover(t, c, caddy, site, "step-down", 500*time.Millisecond, steppedDown)
			oneWordFailover(t, c, caddy, site, "stop", 600*time.Millisecond, stopped)
			oneWordFailover(t, c, caddy, site, "kill -9", 500*time.Millisecond, killed)
		})
	}
}

// readSteadily starts readers once every node votes and the site redirects to the active one, which it returns.
func readSteadily(t *testing.T, c *cluster.Cluster, caddy *server, site string) (active *cluster.Vault, r *readers) {
	t.Helper()
	if err := c.WaitHealthy(timeout(t)); err != nil {
		t.Fatal(err)
	}
	active, err := c.WaitActive(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	caddy.awaitTarget(site, active.URL)
	r = startReaders(t, c, site)
	r.more(t, 60)
	return active, r
}

// oneWordFailover makes one failover under load. A read may fail only if it was in flight at the node that went away: sent
// to that node, and begun before it was gone, or so soon afterwards that it could not be known yet. A machine that delays
// all processes gets that time added: a process that is not run notices nothing.
func oneWordFailover(t *testing.T, c *cluster.Cluster, caddy *server, site, name string, bound time.Duration, fault goneAfter) {
	t.Helper()
	old, r := readSteadily(t, c, caddy, site)
	if failed := r.take(); len(failed) > 0 {
		t.Errorf("%s: %d reads failed before: %v", name, len(failed), failed[0].err)
	}
	r.worst.Store(0)
	event := time.Now()
	gone, err := fault(timeout(t), old)
	if err != nil {
		t.Fatal(err)
	}
	next, err := c.WaitActive(timeout(t), old)
	if err != nil {
		t.Fatal(err)
	}
	seen := time.Now()
	caddy.awaitTarget(site, next.URL)
	stall := time.Duration(r.worst.Load())
	r.more(t, 200)
	r.stop()
	failed := r.take()
	late, last := 0, time.Duration(0)
	for _, f := range failed {
		if after := f.began.Sub(gone); after > 0 {
			late, last = late+1, max(last, after)
		}
		if f.node != old.Addr || f.ended.Before(event) || f.began.After(gone.Add(bound+2*stall)) {
			t.Errorf("%s: a read at %s, begun %s and ended %s after the old node %s was gone (%s was seen as the next after %s): %v",
				name, f.node, f.began.Sub(gone), f.ended.Sub(gone), old.Addr, next.Addr, seen.Sub(gone), f.err)
		}
	}
	t.Logf("%s: %d of %d reads failed, %d of them begun after the node was gone, the last %s; gone after %s, longest stall %s",
		name, len(failed), r.count.Load(), late, last, gone.Sub(event), stall)
	if name != "step-down" {
		if err := old.Restart(timeout(t)); err != nil {
			t.Fatal(err)
		}
		return
	}
	// Vault keeps a node that stepped down from its role for 10 seconds.
	if err := wait.Sleep(t.Context(), time.Until(event.Add(11*time.Second))); err != nil {
		t.Fatal(err)
	}
}

func TestOneWordWithoutConsulsAgents(t *testing.T) {
	t.Parallel()
	c := cluster.Run(t, cluster.Options{AgentPerNode: true})
	mountKV(t, c)
	caddy := runCaddy(t, "", "http://{ip}:8080 {\n\tvault_redirect "+c.Consuls[0].HTTPAddr+" {\n\t\tscheme http\n\t}\n}")
	site := "http://" + caddy.IP + ":8080"
	active, err := c.WaitActive(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	caddy.awaitTarget(site, active.URL)
	r := startReaders(t, c, site)
	r.more(t, 60)
	if err := active.Agent.Kill(); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "consul has noticed that the agent is dead", func() bool {
		entries, _, err := c.Consuls[0].API().Health().Service("vault", "", false, (&api.QueryOptions{}).WithContext(t.Context()))
		for _, e := range entries {
			if e.Node.Node == active.Node {
				return err == nil && e.Checks.AggregatedStatus() == api.HealthCritical
			}
		}
		return false
	})
	r.more(t, 600)
	if h := readHealth(t, site); h.RedirectTo != active.URL {
		t.Errorf("without the agent of the active node: %+v", h)
	}
	if err := c.Consuls[0].Kill(); err != nil {
		t.Fatal(err)
	}
	caddy.awaitReason(site, "consul_unreachable")
	r.more(t, 600)
	if h := readHealth(t, site); h.RedirectTo != active.URL {
		t.Errorf("without consul: %+v", h)
	}
	r.stop()
	for _, f := range r.take() {
		t.Errorf("a read at %s failed: %v", f.node, f.err)
	}
}
