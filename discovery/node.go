// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package discovery

// Node is one instance of Vault: its address, and what shows whether it is the active one.
type Node struct {
	// Name of the node: in Consul, the name of the agent's node.
	Name string
	// ID of the service instance. Name and ID together tell one instance from another.
	ID string
	// Address of the node, a host name or IP address.
	Address string
	// ServiceAddress is the address that the instance itself registered (Vault: the host of its api_addr). May be empty.
	ServiceAddress string
	// Port that the instance registered.
	Port int
	// Scheme of the instance: http, https, or empty if the config of the handler decides.
	Scheme string
	// ServerName that the instance's certificate must have, for probes. Default: the host that is redirected to.
	ServerName string
	// Datacenter of the node. May be empty.
	Datacenter string
	// Tags of the instance. Vault's own registration sets active, standby or performance-standby.
	Tags []string
	// Meta data of the node, overlaid with that of the instance.
	Meta map[string]string
	// Tagged addresses of the instance, and for keys that it lacks those of the node (then without a port).
	Tagged map[string]TaggedAddress
	// Checks of the node and of the instance.
	Checks []Check
	// Index of the last change to the registration (Consul: ModifyIndex of the service).
	Index uint64
}

// Identity tells one instance from another.
type Identity struct{ Name, ID string }

// Identity returns what tells the node from others.
func (n *Node) Identity() Identity { return Identity{n.Name, n.ID} }

// String returns the identity for people.
func (i Identity) String() string { return i.Name + "/" + i.ID }

// Identities returns the set of the nodes' identities.
func Identities(nodes []Node) map[Identity]bool {
	set := make(map[Identity]bool, len(nodes))
	for i := range nodes {
		set[nodes[i].Identity()] = true
	}
	return set
}

// TaggedAddress is an alternative address of a node, such as its WAN address.
type TaggedAddress struct {
	// Host is a host name or IP address.
	Host string
	// Port, or 0 for the node's own port.
	Port int
}

// Check is one health check of a node or of the instance on it.
type Check struct {
	// ID of the check (Consul: CheckID).
	ID string
	// Status is passing, warning or critical. Anything else counts as critical.
	Status string
	// Service is whether the check belongs to the instance rather than to the node.
	Service bool
	// Index of the last change to the check.
	Index uint64
}

// Statuses of a [Check], as Consul names them.
const (
	StatusPassing  = "passing"
	StatusWarning  = "warning"
	StatusCritical = "critical"
)
