// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Opt changes an entry that Node, Active or Standby builds. The order of options does not matter, except that
// the last of two of the same kind wins.
type Opt func(*draft)

// draft holds what the options said until all are known: ids and addresses depend on each other.
type draft struct {
	address        string
	serviceAddress *string
	port           int
	tags           []string
	vaultCheck     bool
	nodeChecks     []check
	checks         []check
	index          uint64
	tagged         map[string]api.ServiceAddress
	meta           map[string]string
	datacenter     string
}

type check struct{ id, status string }

// Tags replaces the service's tags.
func Tags(tags ...string) Opt { return func(d *draft) { d.tags = tags } }

// Address is the node's IP address, and the service's unless ServiceAddress says otherwise.
func Address(ip string) Opt { return func(d *draft) { d.address = ip } }

// ServiceAddress is the service's own address; empty means that the node's counts.
func ServiceAddress(s string) Opt { return func(d *draft) { d.serviceAddress = &s } }

// Port is the service's port, 8200 by default.
func Port(n int) Opt { return func(d *draft) { d.port = n } }

// Check adds a check of the service, or sets the status of the one that has this id.
func Check(id, status string) Opt { return func(d *draft) { d.checks = put(d.checks, id, status) } }

// NodeCheck adds a check of the node, or sets the status of the one that has this id.
func NodeCheck(id, status string) Opt {
	return func(d *draft) { d.nodeChecks = put(d.nodeChecks, id, status) }
}

// Index is the ModifyIndex of the service and of its checks.
func Index(n uint64) Opt { return func(d *draft) { d.index = n } }

// Tagged adds a tagged address of the service ("lan", "wan", …).
func Tagged(key, addr string, port int) Opt {
	return func(d *draft) {
		if d.tagged == nil {
			d.tagged = map[string]api.ServiceAddress{}
		}
		d.tagged[key] = api.ServiceAddress{Address: addr, Port: port}
	}
}

// Meta adds a pair to the service's metadata.
func Meta(k, v string) Opt {
	return func(d *draft) {
		if d.meta == nil {
			d.meta = map[string]string{}
		}
		d.meta[k] = v
	}
}

// Datacenter is the node's datacenter, dc1 by default.
func Datacenter(dc string) Opt { return func(d *draft) { d.datacenter = dc } }

// SealedCheckID is the id of the check that a Vault at this address registers for itself.
func SealedCheckID(ip string, port int) string {
	return serviceID(ip, port) + ":vault-sealed-check"
}

// Active is a node as an active Vault 1.21 registers itself.
func Active(name string, opts ...Opt) *api.ServiceEntry { return vault("active", name, opts) }

// Standby is a node as an unsealed standby registers itself. Its check passes: it says unsealed, not active.
func Standby(name string, opts ...Opt) *api.ServiceEntry { return vault("standby", name, opts) }

func vault(role, name string, opts []Opt) *api.ServiceEntry {
	return Node(name, append([]Opt{
		Tags(role, "initialized"), Meta("external-source", "vault"),
		func(d *draft) { d.vaultCheck = true },
	}, opts...)...)
}

// Node is an instance of the service vault on a node that is alive, with neither tags nor checks of its own. Its
// address is 127.10.x.y, x being the number at the end of the name, or 1.
func Node(name string, opts ...Opt) *api.ServiceEntry {
	d := &draft{address: derive(name), port: 8200, datacenter: "dc1", nodeChecks: []check{{"serfHealth", api.HealthPassing}}}
	for _, opt := range opts {
		opt(d)
	}
	address := d.address
	if d.serviceAddress != nil {
		address = *d.serviceAddress
	}
	// Vault names itself by the address it registers; without one the node's serves as a name.
	id := serviceID(cmp.Or(address, d.address), d.port)
	if sealed := id + ":vault-sealed-check"; d.vaultCheck && !has(d.checks, sealed) {
		d.checks = append([]check{{sealed, api.HealthPassing}}, d.checks...)
	}
	e := &api.ServiceEntry{
		Node: &api.Node{Node: name, Address: d.address, Datacenter: d.datacenter},
		Service: &api.AgentService{
			ID: id, Service: "vault", Tags: d.tags, Meta: d.meta, Address: address, Port: d.port, TaggedAddresses: d.tagged,
			Weights: api.AgentWeights{Passing: 1, Warning: 1}, ModifyIndex: d.index, Datacenter: d.datacenter,
		},
	}
	for _, c := range d.nodeChecks {
		e.Checks = append(e.Checks, &api.HealthCheck{Node: name, CheckID: c.id, Name: c.id, Status: c.status})
	}
	for _, c := range d.checks {
		e.Checks = append(e.Checks, &api.HealthCheck{
			Node: name, CheckID: c.id, Name: title(c.id), Status: c.status, Type: "ttl",
			ServiceID: id, ServiceName: "vault", ServiceTags: d.tags, ModifyIndex: d.index,
		})
	}
	return e
}

func serviceID(address string, port int) string { return fmt.Sprintf("vault:%s:%d", address, port) }

func title(checkID string) string {
	if strings.HasSuffix(checkID, ":vault-sealed-check") {
		return "Vault Sealed Status"
	}
	return checkID
}

// derive turns the number at the end of a name into an address.
func derive(name string) string {
	n, err := strconv.Atoi(name[len(strings.TrimRight(name, "0123456789")):])
	if err != nil {
		n = 1
	}
	return net.IPv4(127, 10, byte(n>>8), byte(n)).String()
}

func put(checks []check, id, status string) []check {
	for i := range checks {
		if checks[i].id == id {
			checks[i].status = status
			return checks
		}
	}
	return append(checks, check{id, status})
}

func has(checks []check, id string) bool {
	for _, c := range checks {
		if c.id == id {
			return true
		}
	}
	return false
}
