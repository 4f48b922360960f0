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
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
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
		b.lookThrough(f)
	}
	return path, f
}

// startNginx starts nginx, and consul-template, which writes its upstreams and has it read them again.
func (b *bench) startNginx(ctx context.Context) error {
	path, f := b.peer("nginx", "nginx with consul-template", "the upstream is the passing service `active.vault`; nginx is reloaded whenever it changes")
	if f == nil {
		return nil
	}
	renderer, err := cluster.Program(ctx, "consul-template", func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	if err != nil {
		return err
	}
	config, err := b.nginxConfig(f)
	if err != nil {
		return err
	}
	template := filepath.Join(b.dir, "upstream.ctmpl")
	if err := os.WriteFile(template, []byte(upstreamTemplate), 0o600); err != nil {
		return err
	}
	nginx := []string{"-p", b.dir, "-e", "stderr", "-c", config}
	flags := []string{"-consul-addr=" + b.consul(), "-template=" + template + ":" + filepath.Join(b.dir, upstreamFile)}
	first := exec.CommandContext(ctx, renderer, append([]string{"-once"}, flags...)...)
	first.Env = process.Environ(nil, "CONSUL_", "VAULT_")
	if out, err := first.CombinedOutput(); err != nil {
		return fmt.Errorf("consul-template: %w: %s", err, out)
	}
	if _, err := b.start("nginx", path, nginx...); err != nil {
		return err
	}
	flags[1] += ":" + strings.Join(append([]string{path}, append(nginx, "-s", "reload")...), " ")
	_, err = b.start("consul-template", renderer, flags...)
	return err
}

// upstreamFile is what consul-template writes, by a template as Vault's users have it.
const (
	upstreamFile     = "upstream.conf"
	upstreamTemplate = `upstream vault {
  keepalive 32;
{{ range service "active.vault" }}  server {{ .Address }}:{{ .Port }};
{{ else }}  server 127.0.0.1:65535; # there is none: 502
{{ end }}}
`
)

// nginxConfig returns the file of nginx's configuration.
func (b *bench) nginxConfig(f *front) (string, error) {
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // the folder is not another user's
	}
	listen := f.address()
	if b.tls {
		cert, key, err := b.certificate()
		if err != nil {
			return "", err
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
`, user, b.dir, filepath.Join(b.dir, upstreamFile), listen, upstreamHeader, b.scheme())
	file := filepath.Join(b.dir, "nginx.conf")
	return file, os.WriteFile(file, []byte(config), 0o600)
}

// startDNS makes clients look up Consul's name for the active node: those without retries before each operation, as its TTL of 0
// asks for, and Vault's own whenever it connects.
func (b *bench) startDNS(context.Context) error {
	f := b.newFront("Consul DNS", "`active.vault.service.consul`; Vault's own client looks it up when it connects, the other one each time")
	if f == nil {
		return nil
	}
	const host = "active.vault.service.consul."
	server := net.JoinHostPort(b.cluster.Consuls[0].IP, "8600")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}}
	f.url, f.dial = b.scheme()+"://"+host+":8200", (&net.Dialer{Resolver: resolver, Timeout: 30 * time.Second}).DialContext
	f.serverName = "localhost" // the nodes' certificates do not have the name in Consul
	f.look = func(ctx context.Context, _ *http.Client) (nodes []string, right bool) {
		ips, err := resolver.LookupHost(ctx, host)
		for _, ip := range ips {
			nodes = append(nodes, net.JoinHostPort(ip, "8200"))
		}
		return nodes, err == nil && len(nodes) > 0
	}
	return nil
}
