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
	fronts []*Handler // that use it
}

// fronts are the handlers that use a view now.
var fronts struct {
	sync.Mutex
	list []*Handler
}

func addFront(a *Handler) {
	fronts.Lock()
	defer fronts.Unlock()
	fronts.list = append(fronts.list, a)
}

func removeFront(a *Handler) {
	fronts.Lock()
	defer fronts.Unlock()
	fronts.list = slices.DeleteFunc(fronts.list, func(o *Handler) bool { return o == a })
}

// clusters returns the clusters that the running config watches, by name. Where several views have the same name, all but
// one get a suffix that depends on nothing but their config. During a reload there are two configs: what one of them alone
// watches is not shown beside what the other does.
func clusters() []cluster {
	var list []cluster
	for v, users := range usersOfViews() {
		list = append(list, cluster{name: label(v.Name), view: v, fronts: users})
	}
	slices.SortFunc(list, func(a, b cluster) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.view.Digest(), b.view.Digest()))
	})
	seen := map[string]bool{}
	for i := range list {
		c := &list[i]
		for n := 4; seen[c.name]; n += 4 {
			c.name = label(c.view.Name) + "~" + c.view.Digest()[:min(n, len(c.view.Digest()))]
			if n > len(c.view.Digest()) { // names of others that look like that
				c.name += strings.Repeat("~", n)
			}
		}
		seen[c.name] = true
	}
	slices.SortFunc(list, func(a, b cluster) int { return cmp.Compare(a.name, b.name) })
	return list
}

// usersOfViews returns the views of the running config with the handlers that use them.
func usersOfViews() map[*engine.View][]*Handler {
	app := runningApp()
	fronts.Lock()
	defer fronts.Unlock()
	users := map[*engine.View][]*Handler{}
	for _, a := range fronts.list {
		if a.app == app {
			users[a.view] = append(users[a.view], a)
		}
	}
	return users
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
		if a.server != "" && !slices.Contains(names, a.server) {
			names = append(names, a.server)
		}
	}
	slices.Sort(names)
	return names
}

// maxLabel is how many bytes of a name a label takes: those of the longest host name.
const maxLabel = 253

// label makes a name from the config or from Consul fit for a label of a metric: one that is not valid would break all
// metrics of Caddy.
func label(name string) string {
	if len(name) > maxLabel {
		name = strings.ToValidUTF8(name[:maxLabel], "") + "…"
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}
