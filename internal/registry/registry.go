// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package registry knows which clusters the running config serves, and which handlers use them. It does not depend on Caddy.
package registry

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// User is a handler that uses a view.
type User struct {
	View   *engine.View
	Queue  *engine.Queue
	Server string // name of the server that the handler belongs to; may be empty
	Config any    // the config that the handler belongs to
}

var registered struct {
	sync.Mutex
	users   []*User
	configs []any // the running ones: during a reload two, of which the last is the new one
}

// Add registers a user. The function that it returns removes it.
func Add(u *User) (remove func()) {
	registered.Lock()
	defer registered.Unlock()
	registered.users = append(registered.users, u)
	return func() {
		registered.Lock()
		defer registered.Unlock()
		registered.users = slices.DeleteFunc(registered.users, func(o *User) bool { return o == u })
	}
}

// Run makes a config the running one, which Clusters belong to.
func Run(config any) {
	registered.Lock()
	defer registered.Unlock()
	registered.configs = append(registered.configs, config)
}

// Forget removes a config, which need not be running.
func Forget(config any) {
	registered.Lock()
	defer registered.Unlock()
	registered.configs = slices.DeleteFunc(registered.configs, func(o any) bool { return o == config })
}

// Cluster is a view with a unique name.
type Cluster struct {
	Name  string
	View  *engine.View
	Users []*User
}

// Clusters returns the clusters that the running config serves, ordered by name. If several views have the same name, all but
// one get a suffix that depends on their config only. During a reload, they are those of the new config.
func Clusters() []Cluster {
	registered.Lock()
	byView := map[*engine.View][]*User{}
	for _, u := range registered.users {
		if n := len(registered.configs); n > 0 && registered.configs[n-1] == u.Config {
			byView[u.View] = append(byView[u.View], u)
		}
	}
	registered.Unlock()
	var list []Cluster
	for v, users := range byView {
		list = append(list, Cluster{Label(v.Name), v, users})
	}
	slices.SortFunc(list, func(a, b Cluster) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.View.Digest(), b.View.Digest()))
	})
	seen := map[string]bool{}
	for i := range list {
		c := &list[i]
		digest := c.View.Digest() + strings.Repeat("~", 4*len(list)) // other views may be named like this one with its digest
		for n := 4; seen[c.Name]; n += 4 {
			c.Name = Label(c.View.Name) + "~" + digest[:n]
		}
		seen[c.Name] = true
	}
	slices.SortFunc(list, func(a, b Cluster) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// HoldLimit returns how many requests may wait for the cluster at once, over all handlers.
func (c *Cluster) HoldLimit() (sum int64) {
	for _, u := range c.Users {
		if u.Queue.Hold > 0 {
			sum += u.Queue.Most
		}
	}
	return sum
}

// Servers returns the names of the servers that redirect or proxy to the cluster.
func (c *Cluster) Servers() []string {
	names := []string{}
	for _, u := range c.Users {
		if u.Server != "" {
			names = append(names, u.Server)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// maxLabel is the longest label, in bytes: as long as the longest host name.
const maxLabel = 253

// Label makes a name from the config or from Consul a valid label of a metric: a label that is not valid UTF-8 would break all
// metrics of Caddy.
func Label(name string) string {
	if len(name) > maxLabel {
		name = strings.ToValidUTF8(name[:maxLabel], "") + "…"
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}
