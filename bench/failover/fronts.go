// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// front is what clients ask for Vault.
type front struct {
	name       string
	note       string // what it is, for the table
	key        string // part of paths
	url        string
	proxies    bool                                                                 // it passes requests on, and so hides the node
	dial       func(ctx context.Context, network, address string) (net.Conn, error) // of clients that find the node by themselves, else nil
	serverName string                                                               // that clients expect over TLS; "" for that of the URL
	look       func(context.Context, *http.Client) (nodes []string, right bool)     // where it sends requests to
	lookEvery  time.Duration
}

// newFront adds a front that listens on a port of its own, unless it is not wanted.
func (b *bench) newFront(name, note string) *front {
	if !b.only.MatchString(name) {
		return nil
	}
	f := &front{name: name, note: note, key: fmt.Sprintf("front%d", len(b.fronts)), lookEvery: watchEvery}
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
	starts := []func(context.Context) error{b.startPlugins, b.startReverseProxies, b.startHAProxies}
	if b.withConsul() {
		starts = append(starts, b.startNginx, b.startDNS, b.startOriginal)
	}
	for _, start := range starts {
		if err := start(ctx); err != nil {
			return err
		}
	}
	if len(b.fronts) == 0 {
		return fmt.Errorf("no front is left")
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

// originalPoll is how often the original asks Consul.
const originalPoll = 5 * time.Second

// startOriginal plays vault-redirector: it takes the first node that has the tag and passes its checks, every 5 seconds.
func (b *bench) startOriginal(ctx context.Context) error {
	f := b.newFront("vault-redirector (simulated)", "the active node that Consul calls passing, asked for every 5 s")
	if f == nil {
		return nil
	}
	b.lookAtRedirects(f)
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
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if url := active.Load(); url != nil && *url != "" {
			w.Header().Set("Location", *url+r.URL.RequestURI())
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})}
	b.closers = append(b.closers, func() error {
		cancel()
		<-done
		return server.Close()
	})
	listener, err := net.Listen("tcp", f.address())
	if err != nil {
		return err
	}
	if !b.tls {
		go func() { _ = server.Serve(listener) }()
		return nil
	}
	cert, key, err := b.certificate()
	if err != nil {
		return err
	}
	go func() { _ = server.ServeTLS(listener, cert, key) }()
	return nil
}

// certificate returns the files of a certificate of the fronts' address.
func (b *bench) certificate() (cert, key string, err error) {
	return b.cluster.Cert(b.cluster.IP(cluster.FirstFreeHost))
}

// drain reads what is left of an answer, so that its connection can be used again.
func drain(res *http.Response) {
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}
