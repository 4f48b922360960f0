// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// front is what clients ask for Vault.
type front struct {
	name      string
	note      string // what it is, for the table
	key       string // part of paths
	url       string
	redirects bool // it redirects, else it passes requests on
	direct    bool // clients find the node by themselves
	newClient func() *http.Client

	lookClient func() *http.Client                                              // for look
	look       func(context.Context, *http.Client) (nodes []string, right bool) // where it sends requests to
	tally      tally
}

// newFront adds a front that listens on a port of its own, unless it is not wanted.
func (b *bench) newFront(name, note string) *front {
	if !b.only.MatchString(name) {
		return nil
	}
	f := &front{
		name: name, note: note, key: fmt.Sprintf("front%d", len(b.fronts)),
		newClient: b.newHTTPClient, lookClient: b.newHTTPClient,
	}
	f.url = fmt.Sprintf("%s://%s:%d", b.scheme(), b.cluster.IP(cluster.FirstFreeHost), 8001+len(b.fronts))
	b.fronts = append(b.fronts, f)
	return f
}

func (f *front) address() string { _, address, _ := strings.Cut(f.url, "://"); return address }

func (b *bench) scheme() string {
	if b.tls {
		return "https"
	}
	return "http"
}

func (b *bench) consul() string { return b.cluster.Consuls[0].HTTPAddr }

// withConsul reports whether there is a Consul, on which most fronts rely.
func (b *bench) withConsul() bool { return len(b.cluster.Consuls) > 0 }

// startFronts returns when every front answers right.
func (b *bench) startFronts(ctx context.Context) error {
	starts := []func(context.Context) error{b.startPlugin, b.startHAProxies}
	if b.withConsul() {
		starts = append(starts, b.startNginx, b.startDNS, b.startOriginal)
	}
	for _, start := range starts {
		if err := start(ctx); err != nil {
			return err
		}
	}
	active, err := b.cluster.WaitActive(ctx)
	if err != nil {
		return err
	}
	client := b.newHTTPClient()
	defer client.CloseIdleConnections()
	for _, f := range b.fronts {
		err := b.await(ctx, f.name, func() bool {
			nodes, right := f.look(ctx, client)
			return right && nodes[0] == active.Addr
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// variant of the plugin, by what its block says besides discovery and scheme.
type variant struct{ name, note, block string }

// variants returns those of this cluster.
func (b *bench) variants() []variant {
	if !b.withConsul() {
		return []variant{{"this plugin, `vault <url>...`", "the nodes are named, no other option is set", ""}}
	}
	return []variant{
		{"this plugin, `vault_redirect`", "the default: no option is set", ""},
		{"this plugin, `probe off`, `hold 5s`", "relies on Consul alone, and requests wait for 5 s at most", "probe off\nhold 5s"},
	}
}

// discovery returns how the plugin finds the nodes, and to which scheme it redirects.
func (b *bench) discovery() string {
	if b.withConsul() {
		return "consul " + b.consul() + "\nscheme " + b.scheme()
	}
	line := "vault"
	for _, v := range b.cluster.Vaults {
		line += " " + v.URL
	}
	return line
}

// startPlugin starts one Caddy for all variants.
func (b *bench) startPlugin(ctx context.Context) error {
	var file strings.Builder
	file.WriteString("{\npersist_config off\nauto_https disable_redirects\ndefault_bind {ip}\n}\n")
	sites := 0
	for _, v := range b.variants() {
		f := b.newFront(v.name, v.note)
		if f == nil {
			continue
		}
		sites++
		f.redirects, f.look = true, lookRedirect(f)
		certificate := ""
		if b.tls {
			cert, key, err := b.cluster.Cert(b.cluster.IP(cluster.FirstFreeHost))
			if err != nil {
				return err
			}
			certificate = "tls " + cert + " " + key + "\n"
		}
		fmt.Fprintf(&file, "%s {\n%svault_redirect {\n%s\n%s\n}\n}\n", f.url, certificate, b.discovery(), v.block)
	}
	if sites == 0 {
		return nil
	}
	caddy, err := harness.Start(ctx, harness.Options{IP: b.cluster.IP(cluster.FirstFreeHost), Caddyfile: file.String()})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, func() error { return errors.Join(caddy.Ended(), caddy.Close()) })
	return nil
}

// originalPoll is how often the original asks Consul.
const originalPoll = 5 * time.Second

// startOriginal plays vault-redirector: it takes the first node that has the tag and passes its checks, every 5 seconds.
func (b *bench) startOriginal(ctx context.Context) error {
	f := b.newFront("vault-redirector (simulated)", "the active node that Consul calls passing, asked for every 5 s")
	if f == nil {
		return nil
	}
	f.redirects, f.look = true, lookRedirect(f)
	client, err := api.NewClient(&api.Config{Address: b.consul()})
	if err != nil {
		return err
	}
	var active atomic.Pointer[string]
	polling, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			url := ""
			entries, _, err := client.Health().Service("vault", "active", true, (&api.QueryOptions{}).WithContext(polling))
			if err == nil && len(entries) > 0 {
				url = b.scheme() + "://" + net.JoinHostPort(entries[0].Service.Address, fmt.Sprint(entries[0].Service.Port))
			}
			active.Store(&url)
			if wait.Sleep(polling, originalPoll) != nil {
				return
			}
		}
	}()
	listener, err := net.Listen("tcp", f.address())
	if err != nil {
		cancel()
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if url := active.Load(); url != nil && *url != "" {
			w.Header().Set("Location", *url+r.URL.RequestURI())
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})}
	if b.tls {
		cert, key, err := b.cluster.Cert(b.cluster.IP(cluster.FirstFreeHost))
		if err != nil {
			cancel()
			return errors.Join(err, listener.Close())
		}
		go func() { _ = server.ServeTLS(listener, cert, key) }()
	} else {
		go func() { _ = server.Serve(listener) }()
	}
	b.closers = append(b.closers, func() error {
		cancel()
		<-done
		return server.Close()
	})
	return nil
}

// drain reads what is left of an answer, so that its connection can be used again.
func drain(res *http.Response) {
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}
