// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds whether clients can follow a redirect to a node: api_addr against what clients reach.

package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// redirect says whether clients can follow a redirect to the node.
func (s *Seen) redirect(n *Node) Finding {
	f := Finding{"redirect", n.Label, OK, "clients would be sent to " + n.URL, ""}
	if n.Elected {
		f.Detail = "clients are sent to " + n.URL
	}
	address := s.addressOption()
	proxied := len(s.Sites) > 0 && !slices.ContainsFunc(s.Sites, func(site Site) bool { return !site.Proxy })
	loopback := sanitize.Loopback(n.Look.Host)
	home, err := netip.ParseAddr(n.Node.Address) // where the node is, by Consul
	elsewhere := err == nil && !s.local(home)
	switch {
	case s.leadsBack(n) != "":
		f.Severity, f.Detail = Wrong, n.URL+" leads back to the redirector itself, which is "+s.leadsBack(n)
		f.Remedy = "set " + address + ", to the address of the node itself"
	case loopback && elsewhere:
		f.Severity, f.Detail = Wrong, fmt.Sprintf("%s is a loopback address, but the node is at %s: clients would ask their own machine", n.URL, n.Node.Address)
		f.Remedy = "set " + address + ", to an address that clients reach"
	case loopback && !s.onlyLocal() && !proxied && home.IsValid() && home.IsLoopback():
		f.Severity, f.Detail = Warning, n.URL+" is a loopback address: only clients on this machine are redirected to it"
		f.Remedy = "unless this is a trial on one machine, set " + address + ", to an address that clients reach"
	case loopback && !s.onlyLocal() && !proxied:
		f.Severity, f.Detail = Wrong, n.URL+" is a loopback address: only clients on this machine are redirected to it"
		f.Remedy = "set " + address + ", to an address that clients reach"
	case !loopback && slices.ContainsFunc(n.Look.Addresses, func(a netip.Addr) bool { return a.Unmap().IsLoopback() }):
		f.Severity, f.Detail = Warning, n.Look.Host+" is a loopback address here: look that it is another one for clients"
		f.Remedy = "take the name out of /etc/hosts here, and let DNS know it"
	}
	return f
}

// addressOption is what decides to which address of a node redirects lead.
func (s *Seen) addressOption() string {
	if s.Selection.Mode == discovery.ByProbe {
		return "the URL of the node in the config"
	}
	return "api_addr in the config of that Vault, or redirect_to in the config here"
}

// onlyLocal reports whether all clients of the sites are on this machine.
func (s *Seen) onlyLocal() bool {
	if len(s.Sites) == 0 {
		return false
	}
	for _, site := range s.Sites {
		for _, l := range site.Listen {
			ip, err := netip.ParseAddr(l.Host)
			if l.Host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
				return false
			}
		}
	}
	return true
}

// leadsBack says which address of a site a redirect to the node leads back to; empty if it does not.
func (s *Seen) leadsBack(n *Node) string {
	port, err := strconv.ParseUint(n.Look.Port, 10, 16)
	if err != nil {
		return ""
	}
	for _, site := range s.Sites {
		for _, l := range site.Listen {
			if uint(port) < l.From || uint(port) > l.To {
				continue
			}
			if slices.ContainsFunc(site.Hosts, func(host string) bool { return strings.EqualFold(host, n.Look.Host) }) {
				return "the site " + n.Look.Host
			}
			for _, a := range n.Look.Addresses {
				if s.takes(l, a) {
					return fmt.Sprintf("listening on %s:%d", orElse(l.Host, "*"), port)
				}
			}
		}
	}
	return ""
}

// takes reports whether a listener takes connections to an address.
func (s *Seen) takes(l Listen, a netip.Addr) bool {
	ip, err := netip.ParseAddr(l.Host)
	switch {
	case l.Host == "", err == nil && ip.IsUnspecified():
		return s.local(a)
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
