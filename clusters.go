// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the list of the clusters that are watched now, which metrics, status and page have in common.

package vaultredirect

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// cluster is a view under a name that no other has.
type cluster struct {
	name   string
	view   *engine.View
	fronts []*Active // that use it
}

// fronts are the handlers and upstreams that use a view now.
var fronts struct {
	sync.Mutex
	list []*Active
}

func addFront(a *Active) {
	fronts.Lock()
	defer fronts.Unlock()
	fronts.list = append(fronts.list, a)
}

func removeFront(a *Active) {
	fronts.Lock()
	defer fronts.Unlock()
	fronts.list = slices.DeleteFunc(fronts.list, func(o *Active) bool { return o == a })
}

// clusters returns the clusters that are watched now, by name. Where several views have the same name, all but one get a
// suffix that depends on nothing but their config.
func clusters() []cluster {
	var list []cluster
	for _, v := range pool.Views() {
		list = append(list, cluster{name: label(v.Name), view: v})
	}
	slices.SortStableFunc(list, func(a, b cluster) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.view.Digest(), b.view.Digest()))
	})
	seen := map[string]bool{}
	for i := range list {
		c := &list[i]
		for n := 4; seen[c.name] && n <= len(c.view.Digest()); n += 4 {
			c.name = label(c.view.Name) + "~" + c.view.Digest()[:n]
		}
		seen[c.name] = true
	}
	fronts.Lock()
	defer fronts.Unlock()
	for i := range list {
		for _, a := range fronts.list {
			if a.view == list[i].view {
				list[i].fronts = append(list[i].fronts, a)
			}
		}
	}
	return list
}

// holdLimit returns how many requests may wait for the cluster at once.
func (c *cluster) holdLimit() (sum int64) {
	for _, a := range c.fronts {
		if a.queue.Hold > 0 {
			sum += a.queue.Most
		}
	}
	return sum
}

// servers returns the names of the servers that redirect or proxy to the cluster.
func (c *cluster) servers() []string {
	names := []string{}
	for _, a := range c.fronts {
		if !slices.Contains(names, a.server) {
			names = append(names, a.server)
		}
	}
	slices.Sort(names)
	return names
}

// label makes a name from the config or from Consul fit for a label of a metric: one that is not valid would break all
// metrics of Caddy.
func label(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }
