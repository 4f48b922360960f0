// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// between is the time that passed between the two tag changes of one step-down of a real cluster.
const between = 13 * time.Millisecond

// Cluster keeps what Consul publishes about its nodes in step with what they are. Changes made to a node
// or to Consul directly are not followed, and the next change of the cluster publishes over them.
type Cluster struct {
	Consul *Consul
	Vaults []*Vault

	change sync.Mutex // held through a whole change of leadership
	pause  func()     // between two steps of a change; tests wait for the watcher instead of the clock
	done   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	members []member // parallel to Vaults
}

// member is what Consul has been told about a node, which may differ from what the node is.
type member struct {
	active     bool
	status     string
	tagIndex   uint64 // Consul's ModifyIndex of the service, and of the check
	checkIndex uint64
}

// NewCluster starts a Consul and n Vaults on free ports of 127.0.0.1, named vault-0 and so on. The first is active.
func NewCluster(n int, consulAddr string) (*Cluster, error) {
	if n < 1 {
		return nil, errors.New("a cluster needs at least one node")
	}
	consul, err := NewConsul(consulAddr)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Consul: consul, done: make(chan struct{}), members: make([]member, n)}
	for i := range n {
		v, err := NewVault("", fmt.Sprintf("vault-%d", i))
		if err != nil {
			c.Close()
			return nil, err
		}
		c.Vaults = append(c.Vaults, v)
	}
	c.pause = c.sleep
	Join(c.Vaults...)
	g := c.Vaults[0].groupNow()
	g.mu.Lock()
	g.stepDown = func(v *Vault) { c.stepDown(v) }
	g.mu.Unlock()
	c.Vaults[0].SetActive(true)
	c.publish(func(index uint64) {
		for i := range c.members {
			c.members[i] = member{active: i == 0, status: api.HealthPassing, tagIndex: index, checkIndex: index}
		}
	})
	return c, nil
}

// Active is the node that is active now, or nil.
func (c *Cluster) Active() *Vault { return c.Vaults[0].groupNow().leader() }

// StepDown makes the next node active that is up and unsealed, the old one if there is no other, and returns
// it: nil if no node can. In Consul the old node's tag becomes standby first, and the new one's active 13 ms
// later. The new node itself is active from then on; of a real one its health says so a few milliseconds later still.
func (c *Cluster) StepDown() *Vault { return c.stepDown(nil) }

// stepDown deposes a certain node, or the leader if it is nil. A node that leads no longer is left alone, so
// that of two simultaneous requests one counts.
func (c *Cluster) stepDown(from *Vault) *Vault {
	c.change.Lock()
	defer c.change.Unlock()
	old := c.Active()
	if from != nil && from != old {
		return old
	}
	i := c.position(old)
	if old != nil {
		old.SetActive(false)
		c.tag(i, false)
		c.pause()
	}
	return c.promote(i)
}

// Kill ends the active node as kill -9 does, and another becomes active. In Consul the dead node keeps its tag: for
// 13 ms (really: up to 5 s) two nodes carry it and both pass, then the dead one's check turns critical. old is nil if
// no node was active, and nothing happens; successor is nil if no node can take over.
func (c *Cluster) Kill() (old, successor *Vault) {
	c.change.Lock()
	defer c.change.Unlock()
	if old = c.Active(); old == nil {
		return nil, nil
	}
	i := c.position(old)
	old.Kill()
	old.SetActive(false)
	successor = c.promote(i)
	c.pause()
	c.publish(func(index uint64) {
		c.members[i].status, c.members[i].checkIndex = api.HealthCritical, index
	})
	return old, successor
}

// Restart brings a killed node back as an unsealed standby, or as the active node if there is none. A node that is up stays as it is.
func (c *Cluster) Restart(v *Vault) error {
	c.change.Lock()
	defer c.change.Unlock()
	i := c.position(v)
	if i < 0 {
		return errors.New("no node of this cluster")
	}
	if v.server.listening() {
		return nil
	}
	lead := c.Active() == nil
	v.SetSealed(false)
	v.SetActive(lead)
	if err := v.Start(); err != nil {
		return err
	}
	c.publish(func(index uint64) {
		c.members[i] = member{active: lead, status: api.HealthPassing, tagIndex: index, checkIndex: index}
	})
	return nil
}

// Close ends all servers and waits for their goroutines.
func (c *Cluster) Close() {
	c.once.Do(func() { close(c.done) })
	for _, v := range c.Vaults {
		v.Close()
	}
	c.Consul.Close()
}

// promote makes the first node after position i active that can be.
func (c *Cluster) promote(i int) *Vault {
	n := len(c.Vaults)
	for step := 1; step <= n; step++ {
		j := (i + step + n) % n
		if v := c.Vaults[j]; v.eligible() {
			v.SetActive(true)
			c.tag(j, true)
			return v
		}
	}
	return nil
}

func (c *Cluster) position(v *Vault) int {
	for i := range c.Vaults {
		if c.Vaults[i] == v {
			return i
		}
	}
	return -1
}

// sleep waits as long as a real cluster takes, or until Close.
func (c *Cluster) sleep() {
	t := time.NewTimer(between)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.done:
	}
}

func (c *Cluster) tag(i int, active bool) {
	c.publish(func(index uint64) {
		// A check carries its service's tags, so its index rises as well.
		m := &c.members[i]
		m.active, m.tagIndex, m.checkIndex = active, index, index
	})
}

// publish applies one change, which is told the index it will have, and shows the whole set to Consul.
func (c *Cluster) publish(change func(index uint64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.Consul.Index() + 1)
	entries := make([]*api.ServiceEntry, len(c.members))
	for i, m := range c.members {
		entries[i] = c.Vaults[i].entry(m)
	}
	c.Consul.Set("vault", entries...)
}

// entry is how Consul shows the node.
func (v *Vault) entry(m member) *api.ServiceEntry {
	host, p, _ := net.SplitHostPort(v.Addr())
	port, _ := strconv.Atoi(p)
	build := Standby
	if m.active {
		build = Active
	}
	e := build(v.name, Address(host), Port(port), Check(SealedCheckID(host, port), m.status), Index(m.tagIndex))
	for _, check := range e.Checks {
		if check.ServiceID != "" {
			check.ModifyIndex = m.checkIndex
		}
	}
	return e
}
