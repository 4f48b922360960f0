// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// twoSites is a Caddyfile with this handler on one port and Caddy's own respond on another.
func twoSites(consul *standin.Consul, change int) string {
	return fmt.Sprintf(`{
	default_bind {ip}
}
http://{ip}:8001 {
	vault_redirect %s {
		retry_after %ds
	}
}
http://{ip}:8002 {
	respond "%d"
}
`, consul.Addr(), 1+change, change)
}

// losses counts what became of the connections to one site.
type losses struct {
	mu       sync.Mutex
	answered int
	lost     int            // connections that ended before an answer
	wrong    map[string]int // answers other than the one wanted
}

// ask opens a connection and sends one request.
func (l *losses) ask(url string, want int) {
	transport := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 30 * time.Second}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		panic(err) // the URL is this test's own
	}
	resp, err := transport.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.lost++
	case resp.StatusCode != want:
		l.wrong[resp.Status]++
	default:
		l.answered++
	}
}

func (l *losses) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered
}

// TestReloadsLoseNoMoreThanCaddyItself goes through 40 reloads while clients open new connections to two sites in turn,
// one with this handler and one with Caddy's respond. Some are reset: the kernel resets what waits in the queue of a
// socket that Caddy closes, and Go's server closes a connection whose first request it reads after its end has begun.
// That is so with any handler (see examples/sysctl.d), and must not be worse with this one.
func TestReloadsLoseNoMoreThanCaddyItself(t *testing.T) {
	t.Parallel()
	const reloads, clients = 40, 4
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	caddy := run(t, harness.Options{Caddyfile: twoSites(consul, 0)})
	site := "http://" + caddy.IP
	caddy.awaitTarget(site+":8001", "https://127.10.0.1:8200")

	ours, theirs := &losses{wrong: map[string]int{}}, &losses{wrong: map[string]int{}}
	over := make(chan struct{})
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				ours.ask(site+":8001/v1/x", http.StatusTemporaryRedirect)
				theirs.ask(site+":8002/v1/x", http.StatusOK)
			}
		})
	}
	stop := sync.OnceFunc(func() { close(over); group.Wait() })
	defer stop()
	for i := range reloads {
		// Each reload meets traffic, however busy the machine is.
		before := ours.count() + theirs.count()
		caddy.await("traffic", func() bool { return ours.count()+theirs.count() >= before+2*clients })
		if err := caddy.Load(t.Context(), twoSites(consul, 1+i)); err != nil {
			t.Fatalf("reload %d: %v", i, err)
		}
	}
	stop()

	t.Logf("%d reloads: this handler lost %d of %d connections, respond %d of %d",
		reloads, ours.lost, ours.lost+ours.answered, theirs.lost, theirs.lost+theirs.answered)
	for name, l := range map[string]*losses{"vault_redirect": ours, "respond": theirs} {
		if len(l.wrong) > 0 {
			t.Errorf("%s: wrong answers %v", name, l.wrong)
		}
	}
	// Both counts are of events with the same mean, independent of each other and at most one for a client in each
	// reload. So their difference is 0, give or take the root of their sum; five times that happens once in three million
	// runs. What is left of the margin, 5, is for small numbers.
	margin := 5 + 5*math.Sqrt(float64(ours.lost+theirs.lost))
	if float64(ours.lost-theirs.lost) > margin {
		t.Errorf("this handler lost %d connections, respond %d: want at most %.0f more", ours.lost, theirs.lost, margin)
	}
}
