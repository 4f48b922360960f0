// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// watchEvery is how often nodes and fronts are looked at during a failover; proxiesEvery is that of proxies, where each look is a
// request at a node.
const (
	watchEvery   = 5 * time.Millisecond
	proxiesEvery = 20 * time.Millisecond
)

// looking calls look again and again.
func looking(ctx context.Context, every time.Duration, look func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			look()
		case <-ctx.Done():
			return
		}
	}
}

// nodeWatch asks one node for its health.
type nodeWatch struct {
	vault  *cluster.Vault
	client *http.Client

	mu       sync.Mutex
	first200 time.Time   // the first of its present spell of 200s; zero: it is not active
	losses   []time.Time // the first answer after each such spell
}

func (n *nodeWatch) run(ctx context.Context) {
	defer n.client.CloseIdleConnections()
	looking(ctx, watchEvery, func() {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		code := 0
		if res, _, err := get(ctx, n.client, n.vault.URL+"/v1/sys/health"); err == nil {
			code = res.StatusCode
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		switch active := code == http.StatusOK; {
		case active && n.first200.IsZero():
			n.first200 = time.Now()
		case !active && !n.first200.IsZero():
			n.first200, n.losses = time.Time{}, append(n.losses, time.Now())
		}
	})
}

func (n *nodeWatch) seen() (first200 time.Time, losses []time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.first200, slices.Clone(n.losses)
}

// span is from when to when a front named a node.
type span struct{ first, last time.Time }

// sight is what was seen of one front during a failover.
type sight struct {
	mu    sync.Mutex
	named map[string]span // answers that named the node, by its host:port
	right map[string]span // those of them that would have served a client if that is the active node
}

func (s *sight) add(at time.Time, nodes []string, right bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, node := range nodes {
		extend(s.named, node, at)
		if right {
			extend(s.right, node, at)
		}
	}
}

func extend(spans map[string]span, node string, at time.Time) {
	s, ok := spans[node]
	if !ok {
		s.first = at
	}
	s.last = at
	spans[node] = s
}

// firstRight is when the front first named the node; zero: it did not.
func (s *sight) firstRight(node string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.right[node].first
}

// lastNamed is when the front last named the node.
func (s *sight) lastNamed(node string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named[node].last
}

// watch looks where the front sends requests to.
func (b *bench) watch(ctx context.Context, f *front) {
	client := b.newHTTPClient()
	defer client.CloseIdleConnections()
	looking(ctx, f.lookEvery, func() {
		r := b.current.Load()
		if r == nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, clientTimeout)
		defer cancel()
		if nodes, right := f.look(ctx, client); len(nodes) > 0 {
			r.sights[f].add(time.Now(), nodes, right)
		}
	})
}

// lookHealth asks this plugin for its health document, which names the node: redirects make it probe more often.
func lookHealth(f *front) func(context.Context, *http.Client) ([]string, bool) {
	return func(ctx context.Context, client *http.Client) ([]string, bool) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/vault-redirector-health", nil)
		if err != nil {
			return nil, false
		}
		res, err := client.Do(req)
		if err != nil {
			return nil, false
		}
		defer drain(res)
		var document struct {
			RedirectURL string `json:"redirect_url"`
		}
		if json.NewDecoder(res.Body).Decode(&document) != nil || document.RedirectURL == "" {
			return nil, false
		}
		_, node, _ := strings.Cut(document.RedirectURL, "://")
		return []string{node}, true
	}
}

// lookAtRedirects makes a front be asked where it sends requests to.
func (b *bench) lookAtRedirects(f *front) {
	if b.redirects > 0 {
		f.lookEvery = time.Second / time.Duration(b.redirects)
	}
	f.look = func(ctx context.Context, client *http.Client) ([]string, bool) {
		_, u, err := get(ctx, client, f.url+"/v1/sys/health")
		if err != nil || u == "" {
			return nil, false
		}
		return []string{u}, true
	}
}

// lookThrough makes the node behind a proxy be asked for its health; the proxy says in a header which one it was.
func (b *bench) lookThrough(f *front) {
	f.proxies, f.lookEvery = true, proxiesEvery
	f.look = func(ctx context.Context, client *http.Client) ([]string, bool) {
		res, _, err := get(ctx, client, f.url+"/v1/sys/health")
		if err != nil || res.Header.Get(upstreamHeader) == "" {
			return nil, false
		}
		tried := strings.Split(res.Header.Get(upstreamHeader), ", ") // nginx tells all
		if res.StatusCode == http.StatusOK {
			return tried[len(tried)-1:], true
		}
		return tried, false
	}
}

// get asks for a URL and returns the answer, and the host of its Location.
func get(ctx context.Context, client *http.Client, target string) (res *http.Response, host string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, "", err
	}
	if res, err = client.Do(req); err != nil {
		return nil, "", err
	}
	drain(res)
	if u, err := res.Location(); err == nil && res.StatusCode == http.StatusTemporaryRedirect {
		host = u.Host
	}
	return res, host, nil
}
