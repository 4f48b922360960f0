// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// cost is what so many redirectors cost, beyond what a node uses by itself.
type cost struct {
	redirectors     int
	active, standby float64 // parts of a core
}

// warmUp is how long everything runs before it is measured.
const warmUp = 5 * time.Second

// measureCost measures the CPU time of the nodes of one cluster, first without any redirector.
func measureCost(ctx context.Context, o options, secure bool) (costs []cost, err error) {
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
	standby := c.Vaults[0]
	if standby == active {
		standby = c.Vaults[1]
	}
	var alone cost
	for _, n := range append([]int{0}, o.redirectors...) {
		m, err := measureWith(ctx, o, c, n, active, standby)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			alone = m
			continue
		}
		costs = append(costs, cost{n, m.active - alone.active, m.standby - alone.standby})
	}
	return costs, nil
}

// measureWith measures the nodes while n redirectors probe them.
func measureWith(ctx context.Context, o options, c *cluster.Cluster, n int, active, standby *cluster.Vault) (m cost, err error) {
	m.redirectors = n
	if n > 0 {
		caddy, _, err := startRedirectors(ctx, c, n, true, active)
		if err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, caddy.Close()) }()
	}
	if err := wait.Sleep(ctx, warmUp); err != nil {
		return m, err
	}
	var before, after [2]time.Duration
	began := time.Now()
	if err := cpuTimes(&before, active, standby); err != nil {
		return m, err
	}
	if err := wait.Sleep(ctx, o.span); err != nil {
		return m, err
	}
	passed := time.Since(began).Seconds()
	err = cpuTimes(&after, active, standby)
	m.active, m.standby = (after[0]-before[0]).Seconds()/passed, (after[1]-before[1]).Seconds()/passed
	return m, err
}

// startRedirectors starts n redirectors in one Caddy, and returns when all of them redirect to the active node.
func startRedirectors(ctx context.Context, c *cluster.Cluster, n int, probes bool, active *cluster.Vault) (caddy *harness.Caddy, ip string, err error) {
	if ip, err = harness.Loopback(); err != nil {
		return nil, "", err
	}
	if caddy, err = harness.Start(ctx, harness.Options{IP: ip, Caddyfile: redirectorConfig(c, n, probes)}); err != nil {
		return nil, "", err
	}
	if err = followed(ctx, ip, n, active.URL); err != nil {
		return nil, "", errors.Join(err, caddy.Close())
	}
	return caddy, ip, nil
}

// cpuTimes notes what nodes have used so far.
func cpuTimes(times *[2]time.Duration, nodes ...*cluster.Vault) (err error) {
	for i, v := range nodes {
		if times[i], err = v.CPUTime(); err != nil {
			return err
		}
	}
	return nil
}

// redirectorConfig is a Caddyfile of n sites, with the default probes or with none. The timeouts of their probes differ a little:
// nodes that are probed in the same way are probed once for all sites.
func redirectorConfig(c *cluster.Cluster, n int, probes bool) string {
	var b strings.Builder
	b.WriteString("{\n\tdefault_bind {ip}\n\tpersist_config off\n}\n")
	scheme, trust := "http", ""
	if c.VaultCA != "" {
		scheme, trust = "https", "\n\t\t\ttls {\n\t\t\t\tca "+c.VaultCA+"\n\t\t\t}"
	}
	for i := range n {
		probe := "probe off"
		if probes {
			probe = fmt.Sprintf("probe {\n\t\t\ttimeout %dms%s\n\t\t}", 1000+i, trust)
		}
		fmt.Fprintf(&b, "http://{ip}:%d {\n\tvault_redirect %s {\n\t\tscheme %s\n\t\t%s\n\t}\n}\n",
			firstPort+i, c.Consuls[0].HTTPAddr, scheme, probe)
	}
	return b.String()
}

// firstPort is that of the first site.
const firstPort = 8001

// noFollow shows redirects instead of following them.
var noFollow = &http.Client{
	Timeout:       10 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// followed waits until all n sites redirect to the node at target.
func followed(ctx context.Context, ip string, n int, target string) error {
	for i := range n {
		site := fmt.Sprintf("http://%s:%d/v1/x", ip, firstPort+i)
		err := wait.Poll(ctx, time.Millisecond, "a redirect by "+site, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, site, nil)
			if err != nil {
				return err
			}
			resp, err := noFollow.Do(req)
			if err != nil {
				return err
			}
			_ = resp.Body.Close()
			if got := resp.Header.Get("Location"); got != target+"/v1/x" {
				return fmt.Errorf("it redirects to %q", got)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
