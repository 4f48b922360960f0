// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package registry knows which clusters the running config serves, and who uses them. There is no Caddy in it.
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
	Config any    // that the handler is part of
}

var registered struct {
	sync.Mutex
	users   []*User
	configs []any // that run: two during a reload, of which the last one is the new
}

// Add registers a user, and returns what removes it again.
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

// Run makes a config the one that runs. Before it, Clusters are those of the config before.
func Run(config any) {
	registered.Lock()
	defer registered.Unlock()
	registered.configs = append(registered.configs, config)
}

// Forget ends a config, which need not run.
func Forget(config any) {
	registered.Lock()
	defer registered.Unlock()
	registered.configs = slices.DeleteFunc(registered.configs, func(o any) bool { return o == config })
}

// Cluster is a view under a name that no other has.
type Cluster struct {
	Name  string
	View  *engine.View
	Users []*User
}

// Clusters returns the clusters that the running config serves, by name. Where several views have the same name, all but one
// get a suffix that depends on nothing but their config. During a reload there are two configs: what one of them alone serves
// is not shown beside what the other does.
func Clusters() []Cluster {
	var list []Cluster
	for v, users := range usersOfViews() {
		list = append(list, Cluster{Label(v.Name), v, users})
	}
	slices.SortFunc(list, func(a, b Cluster) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.View.Digest(), b.View.Digest()))
	})
	seen := map[string]bool{}
	for i := range list {
		c := &list[i]
		for n := 4; seen[c.Name]; n += 4 {
			c.Name = Label(c.View.Name) + "~" + c.View.Digest()[:min(n, len(c.View.Digest()))]
			if n > len(c.View.Digest()) { // names of others that look like that
				c.Name += strings.Repeat("~", n)
			}
		}
		seen[c.Name] = true
	}
	slices.SortFunc(list, func(a, b Cluster) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func usersOfViews() map[*engine.View][]*User {
	registered.Lock()
	defer registered.Unlock()
	var config any
	if n := len(registered.configs); n > 0 {
		config = registered.configs[n-1]
	}
	users := map[*engine.View][]*User{}
	for _, u := range registered.users {
		if u.Config == config {
			users[u.View] = append(users[u.View], u)
		}
	}
	return users
}

// HoldLimit returns how many requests may wait for the cluster at once.
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
		if u.Server != "" && !slices.Contains(names, u.Server) {
			names = append(names, u.Server)
		}
	}
	slices.Sort(names)
	return names
}

// maxLabel is how many bytes of a name a label takes: those of the longest host name.
const maxLabel = 253

// Label makes a name from the config or from Consul fit for a label of a metric: one that is not valid would break all
// metrics of Caddy.
func Label(name string) string {
	if len(name) > maxLabel {
		name = strings.ToValidUTF8(name[:maxLabel], "") + "…"
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}
