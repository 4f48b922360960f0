// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package consul

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// entry has the fields of an element of /v1/health/service that are used. Agents, proxies and versions of Consul differ in the
// others, which are not decoded.
// See https://developer.hashicorp.com/consul/api-docs/health#list-service-instances-for-service.
type entry struct {
	Node *struct {
		Node, Address, Datacenter string
		Meta, TaggedAddresses     map[string]string
	}
	Service *struct {
		ID, Address     string
		Port            int
		Ports           []namedPort // since Consul 1.22, in place of Port
		Tags            []string
		Meta            map[string]string
		TaggedAddresses map[string]struct {
			Address string
			Port    int
		}
		ModifyIndex uint64
	}
	Checks []*struct {
		CheckID, Status, ServiceID string
		ModifyIndex                uint64
	}
}

type namedPort struct {
	Port    int
	Default bool
}

// defaultPort returns the port of an instance: its only one, or the default one of its named ports; 0 if there is none.
func defaultPort(port int, named []namedPort) int {
	for _, p := range named {
		if port == 0 && p.Default {
			return p.Port
		}
	}
	return port
}

// nodesOf translates Consul's answer. Anything that is not a set of service instances is an error, not an empty set.
func nodesOf(entries []*entry) ([]discovery.Node, error) {
	if entries == nil {
		return nil, errors.New("unusable answer: null instead of a list")
	}
	nodes := make([]discovery.Node, 0, len(entries))
	for i, e := range entries {
		if e == nil || e.Node == nil || e.Service == nil || e.Node.Node == "" {
			return nil, fmt.Errorf("unusable answer: entry %d is not an instance of a service", i)
		}
		n := discovery.Node{
			Name: e.Node.Node, ID: e.Service.ID, Address: e.Node.Address, Datacenter: e.Node.Datacenter,
			ServiceAddress: e.Service.Address, Port: defaultPort(e.Service.Port, e.Service.Ports), Tags: e.Service.Tags,
			Meta: map[string]string{}, Tagged: map[string]discovery.TaggedAddress{}, Index: e.Service.ModifyIndex,
		}
		maps.Copy(n.Meta, e.Node.Meta)
		maps.Copy(n.Meta, e.Service.Meta)
		for key, host := range e.Node.TaggedAddresses {
			n.Tagged[key] = discovery.TaggedAddress{Host: host}
		}
		for key, a := range e.Service.TaggedAddresses {
			n.Tagged[key] = discovery.TaggedAddress{Host: a.Address, Port: a.Port}
		}
		for _, check := range e.Checks {
			if check == nil {
				return nil, fmt.Errorf("unusable answer: entry %d has a check that is null", i)
			}
			n.Checks = append(n.Checks, discovery.Check{
				ID: check.CheckID, Status: check.Status, Service: check.ServiceID != "", Index: check.ModifyIndex,
			})
		}
		slices.SortFunc(n.Checks, func(a, b discovery.Check) int { return cmp.Compare(a.ID, b.ID) })
		nodes = append(nodes, n)
	}
	// Consul may return instances in any order: another order is no change.
	slices.SortStableFunc(nodes, func(a, b discovery.Node) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return nodes, nil
}
