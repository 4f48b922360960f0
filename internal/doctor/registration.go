// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// isVault reports whether two registrations are of one Vault: they have the same scheme, host and port.
func (n *Node) isVault(o *Node) bool { return n.URL != "" && n.URL == o.URL }

// vaults returns one registration of each Vault among nodes: the elected one, or else the first.
func vaults(nodes []*Node) (list []*Node) {
	for _, n := range nodes {
		switch i := slices.IndexFunc(list, n.isVault); {
		case i < 0:
			list = append(list, n)
		case n.Elected:
			list[i] = n
		}
	}
	return list
}

// labels names one registration of each Vault among nodes.
func labels(nodes []*Node) (list []string) {
	for _, n := range vaults(nodes) {
		list = append(list, n.Label)
	}
	return list
}

// where returns the nodes for which a condition holds.
func (o *Observation) where(holds func(n *Node) bool) (list []*Node) {
	for _, n := range o.Nodes {
		if holds(n) {
			list = append(list, n)
		}
	}
	return list
}

// sharedAddress returns the URL with which all nodes are registered, if there are several with the same one.
func (o *Observation) sharedAddress() string {
	names := map[string]bool{}
	for _, n := range o.Nodes {
		names[n.Node.Name] = true
	}
	if len(names) < 2 || len(names) < len(o.Nodes) || len(vaults(o.Nodes)) > 1 {
		return ""
	}
	return o.Nodes[0].URL
}

// registrations says whether each Vault is registered once, with an address of its own.
func (o *Observation) registrations() []Finding {
	if o.Selection.Mode == discovery.ByProbe {
		return nil
	}
	if url := o.sharedAddress(); url != "" {
		return []Finding{o.finding("registration", Warning, "all nodes are registered with the same address, "+url+": api_addr has to be each node's own",
			"set api_addr in the config of each Vault to an address of that node; or set redirect_to and port in the config here, such as `redirect_to node_address`")}
	}
	var list []Finding
	for _, n := range vaults(o.where(func(n *Node) bool { return n.URL != "" })) {
		if same := o.where(n.isVault); len(same) > 1 {
			list = append(list, twice(n, same))
		}
	}
	for _, n := range vaults(o.where((*Node).lacksPort)) {
		list = append(list, withoutPort(n))
	}
	if len(list) == 0 {
		list = []Finding{o.finding("registration", OK, "each Vault is registered once, with an address of its own", "")}
	}
	return list
}

func twice(n *Node, same []*Node) Finding {
	var as []string
	here := true // all of them are on one node of Consul
	for _, s := range same {
		as = append(as, s.Node.Identity().String())
		here = here && s.Node.Name == n.Node.Name
	}
	times := "twice"
	if len(same) > 2 {
		times = fmt.Sprintf("%d times", len(same))
	}
	remedy := "remove the service definition of your own beside the registration that Vault makes itself"
	if !here {
		remedy = "have Vault register with the Consul agent on its own machine, not through a balancer (`address` in service_registration \"consul\"), " +
			"and deregister the other one (`consul services deregister -id ID` at its agent); or " + remedy
	}
	return n.finding("registration", Warning, fmt.Sprintf("%s is registered %s, as %s", n.URL, times, strings.Join(as, " and ")), remedy)
}

// lacksPort reports whether Vault has registered the node with an api_addr that has no port, and clients are sent to that one.
func (n *Node) lacksPort() bool { return engine.LacksPort(&n.Node, n.URL) }

func withoutPort(n *Node) Finding {
	scheme := "https"
	if n.Node.Port == 80 {
		scheme = "http"
	}
	severity := Wrong
	if n.Health != nil && n.Health.Vault {
		severity = Warning // that port is right
	}
	return n.finding("registration", severity,
		fmt.Sprintf("api_addr has no port: Vault is registered as %s, with port %d and without an address", n.Node.ID, n.Node.Port),
		fmt.Sprintf("set api_addr in the config of that Vault to an address with a port, such as `api_addr = %q`; or set the option `port` in the config here, such as `port 8200`",
			scheme+"://"+n.Node.Name+":8200"))
}

// portless reports whether the node has no port to send clients to.
func (n *Node) portless() bool {
	return n.URL == "" && n.Why == engine.NoPort
}

// misaddressed says why clients cannot be sent to a node, and what to do about it.
func (o *Observation) misaddressed(n *Node) Finding {
	if n.portless() {
		return n.finding("redirect", Wrong, "clients cannot be sent there: no port is registered, or several named ports of which none is the default",
			"set the option `port` in the config here, such as `port 8200`; or register a default port")
	}
	return n.finding("redirect", Wrong, "clients cannot be sent there: "+n.Why, "correct "+o.addressOption())
}
