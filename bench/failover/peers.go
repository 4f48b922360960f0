// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// upstreamHeader is where the proxies say which node they have asked.
const upstreamHeader = "X-Upstream"

// peer returns the path of a program and the front that it is to be, nil if it is not installed or not wanted.
func (b *bench) peer(program, name, note string) (string, *front) {
	path, err := exec.LookPath(program)
	if err != nil {
		if b.only.MatchString(name) && !slices.Contains(b.left, program) {
			b.left = append(b.left, program)
		}
		return "", nil
	}
	f := b.newFront(name, note)
	if f != nil {
		f.look = lookProxy(f)
	}
	return path, f
}

// startNginx starts nginx, and what consul-template would do for it.
func (b *bench) startNginx(ctx context.Context) error {
	path, f := b.peer("nginx", "nginx with consul-template (simulated)", "nginx is real; the benchmark writes its upstream file and reloads it")
	if f == nil {
		return nil
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // the folder is not another user's
	}
	upstreams := filepath.Join(b.dir, "upstream.conf")
	listen := f.address()
	if b.tls {
		cert, key, err := b.cluster.Cert(b.cluster.IP(cluster.FirstFreeHost))
		if err != nil {
			return err
		}
		listen += fmt.Sprintf(" ssl;\n    ssl_certificate %s;\n    ssl_certificate_key %s", cert, key)
	}
	config := fmt.Sprintf(`daemon off;
%s
worker_processes 1;
pid %[2]s/nginx.pid;
error_log stderr error;
events {}
http {
  access_log off;
  client_body_temp_path %[2]s/body;
  proxy_temp_path %[2]s/proxy;
  fastcgi_temp_path %[2]s/fastcgi;
  uwsgi_temp_path %[2]s/uwsgi;
  scgi_temp_path %[2]s/scgi;
  include %[3]s;
  server {
    listen %[4]s;
    location / {
      proxy_pass %[6]s://vault;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      add_header %[5]s $upstream_addr always;
    }
  }
}
`, user, b.dir, upstreams, listen, upstreamHeader, b.scheme())
	file := filepath.Join(b.dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	client, err := api.NewClient(&api.Config{Address: b.consul()})
	if err != nil {
		return err
	}
	written, index, err := render(ctx, client, upstreams, "", 0)
	if err != nil {
		return err
	}
	nginx, err := b.start("nginx", path, "-p", b.dir, "-e", "stderr", "-c", file)
	if err != nil {
		return err
	}
	rendering, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for rendering.Err() == nil {
			text, next, err := render(rendering, client, upstreams, written, index)
			if err != nil {
				_ = wait.Sleep(rendering, 250*time.Millisecond)
				continue
			}
			if index = next; text != written {
				written = text
				_ = nginx.Signal(syscall.SIGHUP) // what `nginx -s reload` does
			}
		}
	}()
	b.closers = append(b.closers, func() error {
		cancel()
		<-done
		return nil
	})
	return nil
}

// render waits for a change and writes the file of this template, as Vault's users have it:
//
//	upstream vault { {{ range service "active.vault" }} server {{ .Address }}:{{ .Port }}; {{ else }} ... {{ end }} }
func render(ctx context.Context, client *api.Client, file, written string, index uint64) (text string, next uint64, err error) {
	query := (&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute, AllowStale: true}).WithContext(ctx)
	entries, meta, err := client.Health().Service("vault", "active", true, query)
	if err != nil {
		return "", 0, err
	}
	text = "upstream vault {\n  keepalive 32;\n"
	for _, e := range entries {
		text += fmt.Sprintf("  server %s:%d;\n", e.Service.Address, e.Service.Port)
	}
	if len(entries) == 0 {
		text += "  server 127.0.0.1:65535; # none: force a 502\n"
	}
	text += "}\n"
	if text == written {
		return text, meta.LastIndex, nil
	}
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return "", 0, err
	}
	return text, meta.LastIndex, os.Rename(file+".new", file)
}

// startDNS makes clients look up Consul's name for the active node before each operation, as its TTL of 0 asks for.
func (b *bench) startDNS(context.Context) error {
	f := b.newFront("Consul DNS", "active.vault.service.consul, looked up for each operation")
	if f == nil {
		return nil
	}
	const host = "active.vault.service.consul."
	server := net.JoinHostPort(b.cluster.Consuls[0].IP, "8600")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
	dialer := &net.Dialer{Resolver: resolver}
	f.url, f.direct = b.scheme()+"://"+host+":8200", true
	f.newClient = func() *http.Client {
		c := b.newHTTPClient()
		transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
		if b.tls {
			transport.TLSClientConfig = b.trust.Clone()
			transport.TLSClientConfig.ServerName = "localhost" // the nodes' certificates do not have the name in Consul
		}
		c.Transport = transport
		return c
	}
	f.look = func(ctx context.Context, _ *http.Client) (nodes []string, right bool) {
		ips, err := resolver.LookupHost(ctx, host)
		for _, ip := range ips {
			nodes = append(nodes, net.JoinHostPort(ip, "8200"))
		}
		return nodes, err == nil && len(nodes) > 0
	}
	return nil
}
