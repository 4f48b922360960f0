// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// load is what the active node uses for its clients, and for the probes of so many redirectors that send them there.
type load struct {
	redirectors      int
	reads, probes    float64 // a second
	clients, probing float64 // parts of a core
}

// share returns what a probe costs the node, as a part of what a client does.
func (l load) share() float64 {
	if l.probes == 0 || l.clients <= 0 {
		return 0
	}
	return max(0, l.probing/l.probes) / (l.clients / l.reads)
}

// secretPath is what the clients read.
const secretPath = "/v1/bench/probe"

// measureLoad measures the CPU time of the active node of one cluster while clients are redirected to it: by redirectors that do
// not probe, and by those that do.
func measureLoad(ctx context.Context, o options, rate int, secure bool) (loads []load, err error) {
	var closers closing
	defer closers.close(&err)
	c, err := cluster.Start(ctx, cluster.Options{TLS: secure})
	if err != nil {
		return nil, err
	}
	closers.add(c.Close)
	active, err := c.WaitActive(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.Do(ctx, active, http.MethodPost, "/v1/sys/mounts/bench", map[string]string{"type": "kv"}, nil); err != nil {
		return nil, err
	}
	if err := c.Do(ctx, active, http.MethodPut, secretPath, map[string]string{"value": "x"}, nil); err != nil {
		return nil, err
	}
	alone, err := cpuOf(ctx, o, active)
	if err != nil {
		return nil, err
	}
	for _, n := range o.redirectors {
		l := load{redirectors: n}
		for _, probes := range []bool{false, true} {
			cpu, err := l.measure(ctx, o, rate, c, active, probes)
			switch {
			case err != nil:
				return nil, err
			case probes:
				l.probing = cpu - alone - l.clients
			default:
				l.clients = cpu - alone
			}
		}
		loads = append(loads, l)
	}
	return loads, nil
}

// cpuOf returns what a node uses, in parts of a core.
func cpuOf(ctx context.Context, o options, v *cluster.Vault) (part float64, err error) {
	began := time.Now()
	before, err := v.CPUTime()
	if err != nil {
		return 0, err
	}
	if err := wait.Sleep(ctx, o.span); err != nil {
		return 0, err
	}
	after, err := v.CPUTime()
	return (after - before).Seconds() / time.Since(began).Seconds(), err
}

// measure notes how many reads and probes there were with so many redirectors, and returns what the active node used.
func (l *load) measure(ctx context.Context, o options, rate int, c *cluster.Cluster, active *cluster.Vault, probes bool) (cpu float64, err error) {
	caddy, ip, err := startRedirectors(ctx, c, l.redirectors, probes, active)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, caddy.Close()) }()
	k, err := newClients(c, ip, l.redirectors)
	if err != nil {
		return 0, err
	}
	defer k.stop()
	k.start(rate)
	if err := wait.Sleep(ctx, warmUp); err != nil {
		return 0, err
	}
	reads, began := k.reads.Load(), time.Now()
	asked, err := probesOf(ctx, caddy)
	if err != nil {
		return 0, err
	}
	if cpu, err = cpuOf(ctx, o, active); err != nil {
		return 0, err
	}
	now, err := probesOf(ctx, caddy)
	if err != nil {
		return 0, err
	}
	passed := time.Since(began).Seconds()
	l.reads, l.probes = float64(k.reads.Load()-reads)/passed, float64(now-asked)/passed
	if err := k.failed.Load(); err != nil {
		return 0, fmt.Errorf("a client: %w", *err)
	}
	return cpu, nil
}

// activeProbes is the metric of the probes of the active node.
var activeProbes = regexp.MustCompile(`(?m)^caddy_vault_redirect_probes_total\{.*result="active".*\} (\d+)$`)

// probesOf returns how often the redirectors of a Caddy have probed the active node so far.
func probesOf(ctx context.Context, caddy *harness.Caddy) (n int, err error) {
	text, err := caddy.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	for _, match := range activeProbes.FindAllStringSubmatch(text, -1) {
		count, err := strconv.Atoi(match[1])
		if err != nil {
			return 0, err
		}
		n += count
	}
	return n, nil
}

// clients read a secret through redirectors, one after the other. Each has a connection of its own to the node, as a program that
// runs once does; those to the redirectors are kept, since they cost the node nothing.
type clients struct {
	sites  []string
	token  string
	front  *http.Client
	node   *http.Client
	reads  atomic.Int64
	failed atomic.Pointer[error]
	ctx    context.Context
	stop   func() // returns when all have ended
}

func newClients(c *cluster.Cluster, ip string, n int) (*clients, error) {
	trust := new(tls.Config)
	if c.VaultCA != "" {
		pem, err := os.ReadFile(c.VaultCA)
		if err != nil {
			return nil, err
		}
		trust.RootCAs = x509.NewCertPool()
		trust.RootCAs.AppendCertsFromPEM(pem)
	}
	k := &clients{token: c.RootToken, stop: func() {}}
	k.front = &http.Client{
		Timeout: noFollow.Timeout, CheckRedirect: noFollow.CheckRedirect, Transport: &http.Transport{MaxIdleConnsPerHost: 100, MaxIdleConns: 0},
	}
	k.node = &http.Client{Timeout: noFollow.Timeout, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: trust}}
	for i := range n {
		k.sites = append(k.sites, fmt.Sprintf("http://%s:%d", ip, firstPort+i))
	}
	return k, nil
}

// start starts so many reads a second.
func (k *clients) start(rate int) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	k.ctx, k.stop = ctx, func() {
		cancel()
		all.Wait()
		k.front.CloseIdleConnections()
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	all.Go(func() {
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				all.Go(func() { k.read(k.sites[i%len(k.sites)]) })
			case <-ctx.Done():
				return
			}
		}
	})
}

// read reads the secret once.
func (k *clients) read(site string) {
	code, location, err := k.get(k.front, site+secretPath)
	if err == nil && code == http.StatusTemporaryRedirect {
		code, _, err = k.get(k.node, location)
	}
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s answered %d", site, code)
	}
	if err != nil && k.ctx.Err() == nil {
		k.failed.Store(&err)
		return
	}
	k.reads.Add(1)
}

func (k *clients) get(client *http.Client, url string) (code int, location string, err error) {
	req, err := http.NewRequestWithContext(k.ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-Vault-Token", k.token)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("Location"), err
}
