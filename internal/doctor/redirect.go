// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// redirect says whether clients can follow a redirect to the node.
func (o *Observation) redirect(n *Node) Finding {
	setAddress := "set " + o.addressOption() + ", to "
	const localOnly = " is a loopback address: only clients on this machine are redirected to it"
	proxied := len(o.Sites) > 0 && !slices.ContainsFunc(o.Sites, func(site Site) bool { return !site.Proxy })
	loopback := sanitize.Loopback(n.Host)
	home, _ := netip.ParseAddr(n.Node.Address) // where the node is, by Consul
	switch itself := o.leadsBack(n); {
	case itself != "":
		return n.finding("redirect", Wrong, n.URL+" leads back to the redirector itself, which is "+itself, setAddress+"the address of the node itself")
	case loopback && o.Here.IsAnother(n.Node.Address):
		return n.finding("redirect", Wrong, fmt.Sprintf("%s is a loopback address, but the node is at %s: clients would ask their own machine", n.URL, n.Node.Address),
			setAddress+"an address that clients reach")
	case loopback && !o.onlyLocal() && !proxied && home.IsLoopback():
		return n.finding("redirect", Warning, n.URL+localOnly, "unless this is a trial on one machine, "+setAddress+"an address that clients reach")
	case loopback && !o.onlyLocal() && !proxied:
		return n.finding("redirect", Wrong, n.URL+localOnly, setAddress+"an address that clients reach")
	case !loopback && slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return a.Unmap().IsLoopback() }):
		return n.finding("redirect", Warning, n.Host+" is a loopback address here: it must be another one for clients", "remove the name from /etc/hosts here, and add it to DNS")
	case n.Elected && proxied:
		return n.finding("redirect", OK, "all requests are proxied to "+n.URL+": Vault sees the address of this machine, unless it trusts X-Forwarded-For", "")
	case n.Elected:
		return n.finding("redirect", OK, "clients are sent to "+n.URL, "")
	}
	return n.finding("redirect", OK, "clients would be sent to "+n.URL, "")
}

// addressOption is what decides to which address of a node redirects lead.
func (o *Observation) addressOption() string {
	if o.Selection.Mode == discovery.ByProbe {
		return "the URL of the node in the config"
	}
	return "api_addr in the config of that Vault, or redirect_to in the config here"
}

// onlyLocal reports whether all clients of the sites are on this machine.
func (o *Observation) onlyLocal() bool {
	reachable := func(site Site) bool {
		return slices.ContainsFunc(site.Listen, func(l Listen) bool { return !sanitize.Loopback(l.Host) })
	}
	return len(o.Sites) > 0 && !slices.ContainsFunc(o.Sites, reachable)
}

// leadsBack says which address of a site a redirect to the node leads back to; empty if it does not.
func (o *Observation) leadsBack(n *Node) string {
	port, err := strconv.ParseUint(n.Port, 10, 16)
	if err != nil {
		return ""
	}
	for _, site := range o.Sites {
		for _, l := range site.Listen {
			if uint(port) < l.From || uint(port) > l.To {
				continue
			}
			if slices.ContainsFunc(site.Hosts, func(host string) bool { return strings.EqualFold(host, n.Host) }) {
				return "the site " + n.Host
			}
			for _, a := range n.Addresses {
				if o.takes(l, a) {
					return fmt.Sprintf("listening on %s:%d", cmp.Or(l.Host, "*"), port)
				}
			}
		}
	}
	return ""
}

// takes reports whether a listener takes connections to an address.
func (o *Observation) takes(l Listen, a netip.Addr) bool {
	ip, err := netip.ParseAddr(l.Host)
	switch {
	case l.Host == "", err == nil && ip.IsUnspecified():
		return o.Here.Has(a)
	case err != nil:
		return l.Host == "localhost" && a.Unmap() == netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return ip.Unmap() == a.Unmap()
}

func join(addresses []netip.Addr) string {
	var list []string
	for _, a := range addresses {
		list = append(list, a.Unmap().String())
	}
	return strings.Join(list, ", ")
}
