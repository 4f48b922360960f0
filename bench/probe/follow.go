// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

// measureFollowing moves the mark in a real Consul and returns, for each move, how long it took until the last of many
// watchers redirected to the other node. Each has a blocking query of its own, since they differ in an option of it.
func measureFollowing(ctx context.Context, o options) (spans []time.Duration, err error) {
	var closers closing
	defer closers.close(&err)
	c, err := cluster.Start(ctx, cluster.Options{NoVault: true, ConsulConns: 2*o.watchers + 100})
	if err != nil {
		return nil, err
	}
	closers.add(c.Close)
	nodes := []string{"127.10.0.1", "127.10.0.2"}
	if err := mark(c, nodes, 0); err != nil {
		return nil, err
	}
	ip, err := harness.Loopback()
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	config.WriteString("{\n\tdefault_bind {ip}\n\tpersist_config off\n}\n")
	for i := range o.watchers {
		fmt.Fprintf(&config, "http://{ip}:%d {\n\tvault_redirect %s {\n\t\tprobe off\n\t\tconsul {\n\t\t\tpoll_interval %dms\n\t\t}\n\t}\n}\n",
			firstPort+i, c.Consuls[0].HTTPAddr, 60_000+i)
	}
	caddy, err := harness.Start(ctx, harness.Options{IP: ip, Caddyfile: config.String()})
	if err != nil {
		return nil, err
	}
	closers.add(caddy.Close)
	if err := followed(ctx, ip, o.watchers, target(nodes[0])); err != nil {
		return nil, err
	}
	for i := range o.changes {
		active := (i + 1) % len(nodes)
		if err := mark(c, nodes, active); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := followed(ctx, ip, o.watchers, target(nodes[active])); err != nil {
			return nil, err
		}
		spans = append(spans, time.Since(began))
	}
	return spans, nil
}

func target(node string) string { return "https://" + node + ":8200" }

// mark registers the nodes in Consul, one of them as the active one, in one transaction as near as the agent allows.
func mark(c *cluster.Cluster, nodes []string, active int) error {
	// The one that loses the mark goes first: two active nodes would be a choice.
	for _, want := range []bool{false, true} {
		for i, address := range nodes {
			if (i == active) != want {
				continue
			}
			tags := []string{"standby"}
			if want {
				tags = []string{"active"}
			}
			err := c.Consuls[0].API().Agent().ServiceRegister(&api.AgentServiceRegistration{
				ID: address, Name: "vault", Address: address, Port: 8200, Tags: tags,
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
