// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// fleetName is what clients look up.
const fleetName = "vault-redirect.service.consul"

// fleet is two redirectors, a cluster, and clients that know nothing but a name and Consul's DNS.
type fleet struct {
	t        *testing.T
	cluster  *cluster.Cluster
	copies   []*server
	resolver *net.Resolver
}

// startFleet starts two copies of examples/fleet.Caddyfile, each with a Consul agent beside it.
func startFleet(t *testing.T) *fleet {
	t.Helper()
	c := cluster.Run(t, cluster.Options{TLS: true, ConsulTLS: true, AgentPerNode: true})
	cert, key, err := c.Cert(fleetName)
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("../../../examples/fleet.Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	// Its own address, so that both can have the same ports; and this Consul wants to see a certificate of its clients.
	adapted := strings.Replace(string(config), "\n{\n", "\n{\n\tdefault_bind {ip}\n", 1)
	adapted = strings.Replace(adapted, "\t\t\t\tca {$VAULT_REDIRECT_CONSUL_CA:", "\t\t\t\tcert "+c.ConsulCert+"\n\t\t\t\tkey "+c.ConsulKey+"\n\t\t\t\tca {$VAULT_REDIRECT_CONSUL_CA:", 1)
	token := filepath.Join(t.TempDir(), "token") // without ACLs, Consul takes any
	if err := os.WriteFile(token, []byte("00000000-0000-0000-0000-000000000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, cluster: c, resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(c.Consuls[0].IP, "8600"))
	}}}
	for i := range 2 {
		dir, err := os.MkdirTemp("", "fleet-") // short enough for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		socket := "unix/" + filepath.Join(dir, "admin.sock")
		f.copies = append(f.copies, run(t, harness.Options{
			Caddyfile: adapted, Dir: dir, Admin: socket,
			Env: []string{
				"VAULT_REDIRECT_PORT=8443", "VAULT_REDIRECT_ADMIN=" + socket, "VAULT_REDIRECT_CERT=" + cert, "VAULT_REDIRECT_KEY=" + key,
				"VAULT_REDIRECT_CONSUL=https://" + c.Agents[i].HTTPSAddr, "VAULT_REDIRECT_CONSUL_TOKEN_FILE=" + token,
				"VAULT_REDIRECT_CONSUL_CA=" + c.ConsulCA, "VAULT_REDIRECT_VAULT_CA=" + c.VaultCA,
			},
		}))
		f.register(i)
	}
	return f
}

// register registers a copy with the agent beside it, as the documentation says.
func (f *fleet) register(i int) {
	f.t.Helper()
	text, err := os.ReadFile("../../../examples/redirector-service.json")
	if err != nil {
		f.t.Fatal(err)
	}
	ip := f.copies[i].IP
	adapted := strings.NewReplacer("10.0.0.11", ip, "https://127.0.0.1:443/", "https://"+ip+":8443/", `"port": 443`, `"port": 8443`).Replace(string(text))
	file := filepath.Join(f.t.TempDir(), "redirector-service.json")
	if err := os.WriteFile(file, []byte(adapted), 0o600); err != nil {
		f.t.Fatal(err)
	}
	consul, err := cluster.Program(f.t.Context(), "consul", f.t.Logf)
	if err != nil {
		f.t.Fatal(err)
	}
	agent := f.cluster.Agents[i].HTTPAddr
	if out, err := exec.CommandContext(f.t.Context(), consul, "services", "register", "-http-addr="+agent, file).CombinedOutput(); err != nil {
		f.t.Fatalf("consul services register: %v\n%s", err, out)
	}
}

// awaitDNS waits until Consul's DNS lists these copies and no others.
func (f *fleet) awaitDNS(what string, copies ...int) {
	f.t.Helper()
	var want []string
	for _, i := range copies {
		want = append(want, f.copies[i].IP)
	}
	slices.Sort(want)
	wait.Until(f.t, "Consul DNS lists "+what, func() bool {
		got, err := f.resolver.LookupHost(f.t.Context(), fleetName+".")
		slices.Sort(got)
		return err == nil && slices.Equal(got, want)
	})
}

// fleetLoad is clients that ask for the active node by the fleet's name, each on a new connection, and follow the redirect.
type fleetLoad struct {
	group    sync.WaitGroup
	stop     atomic.Bool
	answered atomic.Int64
	mu       sync.Mutex
	failures []string
}

const fleetClients = 4

// start returns clients that ask until they are stopped.
func (f *fleet) start() *fleetLoad {
	roots := trusting(f.t, f.cluster.VaultCA).Transport.(*http.Transport).TLSClientConfig.RootCAs
	l := &fleetLoad{}
	for range fleetClients {
		transport := &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			DialContext:       (&net.Dialer{Resolver: f.resolver}).DialContext, // tries one address after the other
		}
		asking := &http.Client{Transport: transport, Timeout: time.Minute}
		l.group.Go(func() {
			for !l.stop.Load() {
				if what := f.ask(asking); what != "" {
					l.mu.Lock()
					l.failures = append(l.failures, what)
					l.mu.Unlock()
				}
				l.answered.Add(1)
				time.Sleep(5 * time.Millisecond) // a load, not a flood
			}
		})
	}
	f.t.Cleanup(func() { l.stop.Store(true); l.group.Wait() })
	return l
}

// ask returns what is wrong with the answer to one request.
func (f *fleet) ask(client *http.Client) string {
	resp, err := client.Get("https://" + fleetName + ":8443/v1/sys/health")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	// Only the active node answers its health with 200.
	if resp.StatusCode != http.StatusOK || resp.Request.URL.Hostname() == fleetName {
		return fmt.Sprint(resp.StatusCode, " from ", resp.Request.URL.Host)
	}
	return ""
}

// more waits until each client has been answered some more times.
func (l *fleetLoad) more(t *testing.T) {
	t.Helper()
	from := l.answered.Load()
	wait.Until(t, "the clients go on", func() bool { return l.answered.Load() > from+10*fleetClients })
}

// took returns the failures since it was last called.
func (l *fleetLoad) took() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	failures := l.failures
	l.failures = nil
	return failures
}

// TestFleetByConsulDNS kills one of two redirectors that clients find by Consul DNS: nothing fails but what was under way
// there. Then it ends the other one as an operator does, and nothing fails at all.
func TestFleetByConsulDNS(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.awaitDNS("both", 0, 1)
	clients := f.start()
	clients.more(t)
	if failures := clients.took(); len(failures) > 0 {
		t.Fatalf("before anything happens: %q", failures)
	}

	if err := f.copies[0].Kill(); err != nil {
		t.Fatal(err)
	}
	clients.more(t) // while DNS still lists the dead one
	f.awaitDNS("the one that is left", 1)
	clients.more(t)
	failures := clients.took()
	t.Logf("kill -9: %d requests under way failed: %q", len(failures), failures)
	if len(failures) > fleetClients {
		t.Errorf("%d requests failed, want at most the one that each client had under way: %q", len(failures), failures)
	}

	if err := f.copies[0].Start(timeout(t)); err != nil {
		t.Fatal(err)
	}
	f.awaitDNS("both again", 0, 1)
	if err := f.copies[1].Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	f.awaitDNS("the one that does not drain", 0)
	if !f.copies[1].Running() {
		t.Error("it has ended before it was taken out of the DNS")
	}
	clients.more(t)
	if code, err := f.copies[1].Wait(timeout(t)); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	clients.more(t)
	if failures := clients.took(); len(failures) > 0 {
		t.Errorf("%d requests failed while one copy drained: %q", len(failures), failures)
	}
	t.Logf("%d requests", clients.answered.Load())
	// Not as an operator does: this test has seen that already.
	if err := errors.Join(f.copies[0].Kill(), f.copies[1].Close()); err != nil {
		t.Error(err)
	}
}
