// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/load"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// ip is the address of everything. The certificate has a name, too, since nginx verifies no address.
const ip, serverName = "127.0.0.1", "vault.example.com"

// bench is what all settings have in common.
type bench struct {
	options
	dir       string
	ca        string         // file
	cert, key string         // files, of the fronts
	both      string         // file with both
	nodes     map[bool]*node // by whether they speak TLS
	trust     *tls.Config    // of clients
	consul    *standin.Consul
	missing   []string // programs that are not installed
	closers   []func() error
}

// setting is how clients, fronts and the node are connected.
type setting struct {
	delay time.Duration // of each link, there and back
	tls   bool
}

func (s setting) scheme() string {
	if s.tls {
		return "https"
	}
	return "http"
}

func (s setting) String() string { return fmt.Sprintf("%s, links of %s", s.scheme(), s.delay) }

// newBench starts the nodes. What it returns is to be closed also after an error.
func newBench(o options) (b *bench, err error) {
	b = &bench{options: o, nodes: map[bool]*node{}}
	if b.dir, err = os.MkdirTemp("", "benchlatency-"); err != nil {
		return b, err
	}
	b.closers = append(b.closers, func() error { return os.RemoveAll(b.dir) })
	authority := certs.New("benchlatency")
	pair := authority.Issue(time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour), "front", ip, serverName)
	b.ca, b.both = filepath.Join(b.dir, "ca.pem"), filepath.Join(b.dir, "both.pem")
	if b.cert, b.key, err = pair.Write(b.dir, "front"); err != nil {
		return b, err
	}
	if err := errors.Join(os.WriteFile(b.ca, authority.CertPEM(), 0o600), os.WriteFile(b.both, append(pair.CertPEM(), pair.KeyPEM()...), 0o600)); err != nil {
		return b, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Cert)
	b.trust = &tls.Config{RootCAs: roots, ServerName: ip, NextProtos: []string{"http/1.1"}}
	server := pair.Server()
	server.NextProtos = []string{"http/1.1"}
	for secure, config := range map[bool]*tls.Config{false: nil, true: server} {
		n, err := newNode(config)
		if err != nil {
			return b, err
		}
		b.nodes[secure] = n
		b.closers = append(b.closers, n.close)
	}
	if b.consul, err = standin.NewConsul(""); err != nil {
		return b, err
	}
	b.closers = append(b.closers, func() error { b.consul.Close(); return nil })
	return b, nil
}

// close ends what was started, the last one first.
func (b *bench) close() error { return closeAll(b.closers) }

func closeAll(closers []func() error) (err error) {
	for i := len(closers) - 1; i >= 0; i-- {
		err = errors.Join(err, closers[i]())
	}
	return err
}

// front is a way from clients to the node.
type front struct {
	name    string
	proxies bool
	address string           // host:port at which it listens
	entry   string           // host:port to which clients connect: that of their link to it
	process *process.Process // nil for the direct way
}

// stage is the fronts of one setting.
type stage struct {
	*bench
	setting
	node    string // host:port at which fronts and clients find the node: that of their link to it
	fronts  []*front
	closers []func() error
}

// newStage starts the fronts of a setting. What it returns is to be closed also after an error.
func (b *bench) newStage(ctx context.Context, s setting) (*stage, error) {
	g := &stage{bench: b, setting: s}
	var err error
	if g.node, err = g.link(b.nodes[s.tls].addr()); err != nil {
		return g, err
	}
	_, text, _ := net.SplitHostPort(g.node)
	port, err := strconv.Atoi(text)
	if err != nil {
		return g, err
	}
	b.consul.Set("vault", standin.Active("vault-1", standin.ServiceAddress(ip), standin.Port(port)))
	g.fronts = []*front{{name: "directly", entry: g.node}}
	for _, start := range []func(context.Context) error{g.startCaddies, g.startHAProxy, g.startNginx} {
		if err := start(ctx); err != nil {
			return g, err
		}
	}
	for _, f := range g.fronts {
		if err := g.await(ctx, f); err != nil {
			return g, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return g, nil
}

func (g *stage) close() error { return closeAll(g.closers) }

// link returns the address of a link to a target: that of the target itself if there is no delay.
func (g *stage) link(target string) (string, error) {
	if g.delay == 0 {
		return target, nil
	}
	relay, err := load.NewRelay(target, g.delay)
	if err != nil {
		return "", err
	}
	g.closers = append(g.closers, relay.Close)
	return relay.Addr(), nil
}

// newFront adds a front with a port of its own.
func (g *stage) newFront(name string, proxies bool) (*front, error) {
	port, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	f := &front{name: name, proxies: proxies, address: net.JoinHostPort(ip, port)}
	if f.entry, err = g.link(f.address); err != nil {
		return nil, err
	}
	g.fronts = append(g.fronts, f)
	return f, nil
}

// startCaddies starts a Caddy for each of its fronts.
func (g *stage) startCaddies(ctx context.Context) error {
	trust, transport := "", ""
	if g.tls {
		trust = "proxy_tls {\nca " + g.ca + "\n}\n"
		transport = "transport http {\ntls_trust_pool file " + g.ca + "\n}\n"
	}
	discovery := "consul " + g.consul.Addr() + "\nscheme " + g.scheme() + "\n"
	for _, c := range []struct {
		name, directive string
		proxies         bool
	}{
		{"this plugin, `vault_redirect`", "vault_redirect {\n" + discovery + "}", false},
		{"this plugin, `proxy all`", "vault_redirect {\n" + discovery + "proxy all\n" + trust + "}", true},
		{
			"Caddy's `reverse_proxy`",
			"reverse_proxy " + g.scheme() + "://" + g.node + " {\nhealth_uri /v1/sys/health\nhealth_status 200\nhealth_interval 1s\n" + transport + "}", true,
		},
	} {
		f, err := g.newFront(c.name, c.proxies)
		if err != nil {
			return err
		}
		certificate := ""
		if g.tls {
			certificate = "tls " + g.cert + " " + g.key + "\n"
		}
		caddy, err := harness.New(harness.Options{IP: ip, Caddyfile: fmt.Sprintf(
			"{\npersist_config off\nauto_https off\ndefault_sni %s\n}\n%s://%s {\n%s%s\n}\n", ip, g.scheme(), f.address, certificate, c.directive)})
		if err != nil {
			return err
		}
		f.process = caddy.Process
		load.OnServerCore(f.process)
		g.closers = append(g.closers, caddy.Close)
		if err := caddy.Start(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// startHAProxy starts HAProxy with one thread.
func (g *stage) startHAProxy(context.Context) error {
	return g.startPeer("haproxy", "HAProxy", func(f *front) (string, []string) {
		bind, server := f.address, g.node+" check inter 1s"
		if g.tls {
			bind, server = bind+" ssl crt "+g.both, server+" ssl ca-file "+g.ca
		}
		return fmt.Sprintf(`global
  maxconn 8000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend clients
  bind %s
  default_backend vault
backend vault
  option httpchk GET /v1/sys/health
  http-check expect status 200
  server vault-1 %s
`, bind, server), []string{"-db", "-f"}
	})
}

// startNginx starts nginx as one process.
func (g *stage) startNginx(context.Context) error {
	return g.startPeer("nginx", "nginx", func(f *front) (string, []string) {
		listen, trust := f.address, ""
		if g.tls {
			listen += " ssl; ssl_certificate " + g.cert + "; ssl_certificate_key " + g.key
			trust = "proxy_ssl_verify on; proxy_ssl_trusted_certificate " + g.ca + "; proxy_ssl_name " + serverName + ";"
		}
		dir := filepath.Join(g.dir, "nginx")
		return fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s.pid;
events { worker_connections 8000; }
http {
  access_log off; error_log stderr; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  upstream vault { server %[2]s; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen %[3]s;
    location / { proxy_pass %[4]s://vault; proxy_http_version 1.1; proxy_set_header Connection ""; %[5]s }
  }
}
`, dir, g.node, listen, g.scheme(), trust), []string{"-p", g.dir, "-e", "stderr", "-c"}
	})
}

// startPeer starts a program, if it is installed, with a config whose file is the last of its arguments.
func (g *stage) startPeer(program, name string, configure func(*front) (config string, args []string)) error {
	path, err := exec.LookPath(program)
	if err != nil {
		g.leaveOut(program)
		return nil
	}
	f, err := g.newFront(name, true)
	if err != nil {
		return err
	}
	config, args := configure(f)
	if f.process, err = load.NewPeer(program, path, g.dir, config, args); err != nil {
		return err
	}
	g.closers = append(g.closers, func() error { _ = f.process.StopOrKill(5 * time.Second); return nil })
	return f.process.Start()
}

// await waits until a read through a front succeeds.
func (g *stage) await(ctx context.Context, f *front) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return wait.Poll(ctx, 50*time.Millisecond, "wait for a read", func(context.Context) error {
		if f.process != nil {
			if err := f.process.Ended(); err != nil {
				return wait.Fatal(err)
			}
		}
		c, err := g.newClient(f)
		if err != nil {
			return err
		}
		defer c.close()
		return c.read()
	})
}
