// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/load"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// front is a server that redirects, without TLS at one port and with TLS at another.
type front struct {
	name       string
	http1      bool   // it speaks no HTTP/2, also over TLS
	plain, tls string // host:port
	process    *process.Process
}

// bench is the fronts and what they need.
type bench struct {
	options
	dir       string
	cert, key string
	consul    *standin.Consul
	fronts    []*front
	missing   []string // programs that are not installed
	closers   []func() error
}

// serverName is the name of the sites, and where clients are redirected to is elsewhere.
const serverName, target = "vault.example.com", "https://vault-1.example.com:8200"

// newBench starts all fronts.
func newBench(ctx context.Context, o options) (*bench, error) {
	b := &bench{options: o}
	if err := b.start(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// start starts all fronts, and returns when each redirects as it should.
func (b *bench) start(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "benchfront-"); err != nil {
		return err
	}
	b.closers = append(b.closers, func() error { return os.RemoveAll(b.dir) })
	if err := b.certify(); err != nil {
		return err
	}
	if b.consul, err = standin.NewConsul(""); err != nil {
		return err
	}
	b.closers = append(b.closers, func() error { b.consul.Close(); return nil })
	b.consul.Set("vault", standin.Active("vault-1", standin.ServiceAddress("vault-1.example.com")))
	directive := fmt.Sprintf("vault_redirect %s {\nprobe off\n}", b.consul.Addr())
	lane := "listener_wrappers {\nvault_redirect\n}\n"
	for _, c := range []struct {
		name, server, directive string
		http1                   bool
	}{
		{"this plugin", "", directive, false},
		{"this plugin, fast lane", lane, directive, false},
		{"the same, `protocols h1`", lane + "protocols h1\n", directive, true},
		{"Caddy `redir`", "", "redir " + target + "{uri} 307", false},
	} {
		f, err := b.startCaddy(ctx, c.name, c.server, c.directive)
		if err != nil {
			return err
		}
		f.http1 = c.http1
	}
	for _, start := range []func() error{b.startNginx, b.startHAProxy} {
		if err := start(); err != nil {
			return err
		}
	}
	for _, f := range b.fronts {
		if err := b.await(ctx, f); err != nil {
			return fmt.Errorf("%s: %w; the end of its log:\n%s", f.name, err, f.process.Tail(20))
		}
	}
	return nil
}

// close ends what was started, the last one first.
func (b *bench) close() (err error) {
	for i := len(b.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, b.closers[i]())
	}
	return err
}

// certify makes a certificate for all fronts: of an elliptic curve, as Caddy makes its own.
func (b *bench) certify() error {
	pair := certs.New(serverName, serverName)
	var err error
	b.cert, b.key, err = pair.Write(b.dir, "cert")
	return errors.Join(err, os.WriteFile(filepath.Join(b.dir, "both.pem"), append(pair.CertPEM(), pair.KeyPEM()...), 0o600))
}

// newFront adds a front with ports of its own.
func (b *bench) newFront(name string) (*front, error) {
	plain, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	tls, err := harness.FreePort()
	if err != nil {
		return nil, err
	}
	f := &front{name: name, plain: net.JoinHostPort("127.0.0.1", plain), tls: net.JoinHostPort("127.0.0.1", tls)}
	b.fronts = append(b.fronts, f)
	return f, nil
}

// startCaddy starts a Caddy with one site twice, and options of its server.
func (b *bench) startCaddy(ctx context.Context, name, server, directive string) (*front, error) {
	f, err := b.newFront(name)
	if err != nil {
		return nil, err
	}
	caddy, err := harness.New(harness.Options{IP: "127.0.0.1", Caddyfile: fmt.Sprintf(
		"{\npersist_config off\nauto_https off\ndefault_sni %[6]s\nservers {\n%[1]s}\n}\nhttp://%[2]s {\n%[3]s\n}\nhttps://%[4]s {\ntls %[5]s\n%[3]s\n}\n",
		server, ":"+port(f.plain), directive, ":"+port(f.tls), b.cert+" "+b.key, serverName)})
	if err != nil {
		return nil, err
	}
	f.process = caddy.Process
	load.OnServerCore(f.process)
	b.closers = append(b.closers, caddy.Close)
	return f, caddy.Start(ctx)
}

func port(address string) string { _, port, _ := net.SplitHostPort(address); return port }

// startNginx starts nginx as one process.
func (b *bench) startNginx() error {
	return b.startPeer("nginx", "nginx `return 307`", func(f *front) (string, []string) {
		return fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/nginx.pid;
events { worker_connections 8000; }
http {
  access_log off; error_log stderr; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  ssl_certificate %[2]s; ssl_certificate_key %[3]s; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:10m;
  server { listen %[4]s; add_header Cache-Control no-store always; return 307 %[6]s$request_uri; }
  server { listen %[5]s ssl http2; add_header Cache-Control no-store always; return 307 %[6]s$request_uri; }
}
`, b.dir, b.cert, b.key, f.plain, f.tls, target), []string{"-p", b.dir, "-e", "stderr", "-c"}
	})
}

// startHAProxy starts HAProxy with one thread.
func (b *bench) startHAProxy() error {
	return b.startPeer("haproxy", "HAProxy `redirect`", func(f *front) (string, []string) {
		return fmt.Sprintf(`global
  maxconn 8000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
frontend clients
  bind %s
  bind %s ssl crt %s alpn h2,http/1.1
  http-after-response set-header Cache-Control no-store
  http-request redirect prefix %s code 307
`, f.plain, f.tls, filepath.Join(b.dir, "both.pem"), target), []string{"-db", "-f"}
	})
}

// startPeer starts a program, if it is installed, with a config whose file is the last of its arguments.
func (b *bench) startPeer(program, name string, configure func(*front) (config string, args []string)) error {
	path, err := exec.LookPath(program)
	if err != nil {
		b.missing = append(b.missing, program)
		return nil
	}
	f, err := b.newFront(name)
	if err != nil {
		return err
	}
	config, args := configure(f)
	if f.process, err = load.NewPeer(program, path, b.dir, config, args); err != nil {
		return err
	}
	b.closers = append(b.closers, func() error { _ = f.process.StopOrKill(5 * time.Second); return nil })
	return f.process.Start()
}

// await waits until a front redirects as it should, both ways.
func (b *bench) await(ctx context.Context, f *front) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return wait.Poll(ctx, 50*time.Millisecond, "wait for a redirect", func(context.Context) error {
		if err := f.process.Ended(); err != nil {
			return wait.Fatal(err)
		}
		for _, config := range []*tls.Config{nil, clientTLS} {
			c, err := connect(f, config)
			if err != nil {
				return err
			}
			location, err := c.ask()
			_ = c.Close()
			if err == nil && location != target+path {
				err = fmt.Errorf("it redirects to %q", location)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
