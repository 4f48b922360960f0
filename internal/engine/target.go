// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the way from a Node to scheme://host:port: address modes, templates, validation.

package vaultredirect

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// target is where a node is reached. The zero value is no target.
type target struct {
	url       string         // "https://vault-1.example.com:8200"
	authority string         // "vault-1.example.com:8200"
	host      string         // "vault-1.example.com"
	portOf    string         // the scheme for which the port is the default one, else ""
	addr      netip.AddrPort // set if host is an IP address
}

// Values of redirect_to with a meaning of their own; anything else is a template.
const (
	toAuto           = "auto"
	toNodeName       = "node_name"
	toNodeAddress    = "node_address"
	toServiceAddress = "service_address"
	toLeader         = "leader" // with probes only
	toTagged         = "tagged:"
)

// addressing says how the target of a node is found. It is comparable.
type addressing struct {
	scheme     string // http, https, or empty where the node's own holds
	redirectTo string // as in the config, checked by newAddressing
	port       int    // 0: the registered one
}

// newAddressing checks its arguments, which are those of the config.
func newAddressing(scheme, redirectTo string, port int) (addressing, error) {
	a := addressing{scheme, cmp.Or(redirectTo, toAuto), port}
	if scheme != "" && scheme != "http" && scheme != "https" {
		return a, fmt.Errorf("scheme: %q is not http or https", scheme)
	}
	if port < 0 || port > 65535 {
		return a, fmt.Errorf("port: %d is not between 1 and 65535 (0 or nothing: the port that is registered)", port)
	}
	switch key, tagged := strings.CutPrefix(a.redirectTo, toTagged); {
	case tagged && key == "":
		return a, errors.New(`redirect_to: "tagged:" needs the key of a tagged address, such as tagged:wan`)
	case tagged, a.redirectTo == toAuto, a.redirectTo == toNodeName, a.redirectTo == toNodeAddress, a.redirectTo == toServiceAddress, a.redirectTo == toLeader:
		return a, nil
	case !strings.Contains(a.redirectTo, "{"):
		return a, fmt.Errorf("redirect_to: %q is not auto, node_name, node_address, service_address, tagged:<key>, "+
			"leader (with probes) or a template such as {node}.vault.example.com", redirectTo)
	}
	// A template is tried with names that are valid, so that what is wrong with the result is wrong with the template.
	sample := &Node{Name: "n", ID: "i", Address: "a", ServiceAddress: "s", Datacenter: "d", Port: 1}
	host, err := expandTemplate(a.redirectTo, sample, func(string) string { return "m" })
	if err == nil {
		_, err = validHost(host)
	}
	if err != nil {
		return a, fmt.Errorf("redirect_to: template %q: %w", redirectTo, err)
	}
	return a, nil
}

// target returns where n is reached. The error says why its address or port cannot be used.
func (a addressing) target(n *Node) (target, error) {
	host, port, err := a.pick(n)
	if err != nil {
		return target{}, err
	}
	scheme := cmp.Or(a.scheme, n.Scheme, "https")
	if a.redirectTo == toLeader && n.verdict.active {
		if host, port, err = parseLeader(n.verdict.leader, scheme); err != nil {
			return target{}, err
		}
	}
	host, err = validHost(host)
	if err != nil {
		return target{}, err
	}
	port = cmp.Or(a.port, port)
	if port < 1 || port > 65535 {
		return target{}, fmt.Errorf("port %d is not between 1 and 65535", port)
	}
	t := target{host: host, authority: net.JoinHostPort(host, strconv.Itoa(port))}
	t.url = scheme + "://" + t.authority
	switch port {
	case 80:
		t.portOf = "http"
	case 443:
		t.portOf = "https"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		t.addr = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return t, nil
}

// pick returns the host, not yet validated, and the registered port.
func (a addressing) pick(n *Node) (host string, port int, err error) {
	switch a.redirectTo {
	case toAuto, toLeader: // the leader is asked for at the address of the node
		return cmp.Or(n.ServiceAddress, n.Name), n.Port, nil
	case toNodeName:
		return n.Name, n.Port, nil
	case toNodeAddress:
		return n.Address, n.Port, nil
	case toServiceAddress:
		// Consul's own convention: an instance without an address is at its node's.
		return cmp.Or(n.ServiceAddress, n.Address), n.Port, nil
	}
	if key, ok := strings.CutPrefix(a.redirectTo, toTagged); ok {
		t, ok := n.Tagged[key]
		if !ok {
			return "", 0, fmt.Errorf("no tagged address %q", key)
		}
		return t.Host, cmp.Or(t.Port, n.Port), nil
	}
	host, err = expandTemplate(a.redirectTo, n, func(key string) string { return n.Meta[key] })
	return host, n.Port, err
}

// parseLeader reads the URL that /v1/sys/leader gives, which is the active node's api_addr.
func parseLeader(leader, scheme string) (host string, port int, err error) {
	u, err := url.Parse(leader)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return "", 0, fmt.Errorf("leader_address %q is not a URL", leader)
	}
	if u.Scheme != scheme {
		return "", 0, fmt.Errorf("leader_address %q is not %s, which redirects go to", leader, scheme)
	}
	port = 443
	if scheme == "http" {
		port = 80
	}
	if text := u.Port(); text != "" {
		if port, err = strconv.Atoi(text); err != nil {
			return "", 0, fmt.Errorf("leader_address %q has no usable port", leader)
		}
	}
	return u.Hostname(), port, nil
}

// expandTemplate fills the placeholders of a template from n.
func expandTemplate(template string, n *Node, meta func(key string) string) (string, error) {
	var b strings.Builder
	for rest := template; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		b.WriteString(text)
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		if !closed {
			return "", errors.New("a { is not closed")
		}
		rest = after
		var value string
		switch key, isMeta := strings.CutPrefix(name, "meta."); {
		case isMeta && key != "":
			value = meta(key)
		case name == "node":
			value = n.Name
		case name == "node_address":
			value = n.Address
		case name == "service_address":
			value = n.ServiceAddress
		case name == "datacenter":
			value = n.Datacenter
		case name == "id":
			value = n.ID
		default:
			return "", fmt.Errorf("unknown placeholder {%s}: there are {node}, {node_address}, {service_address}, {datacenter}, {id} and {meta.<key>}", name)
		}
		if value == "" {
			return "", fmt.Errorf("placeholder {%s} has no value", name)
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// validHost returns host without brackets if it is an IP address that can be connected to or a host name in the sense of
// RFC 1123 (with underscores, which node names have). What comes from Consul ends up in the authority of a URL that clients
// send their tokens to: nothing that could be read as anything else gets through.
func validHost(host string) (string, error) {
	if host == "" {
		return "", errors.New("no address")
	}
	bare := host
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		bare = host[1 : len(host)-1]
	}
	if ip, err := netip.ParseAddr(bare); err == nil {
		switch {
		case ip.Zone() != "":
			return "", fmt.Errorf("address %q has a zone, which no URL can carry to another machine", host)
		case ip.Unmap().IsUnspecified(), ip.Unmap().IsMulticast():
			return "", fmt.Errorf("address %q is not that of one machine", host)
		case bare != host && ip.Is4():
			return "", fmt.Errorf("address %q: brackets are for IPv6", host)
		}
		return bare, nil
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) > 253 {
		return "", fmt.Errorf("address %q is longer than a host name can be", host[:64]+"…")
	}
	label := ""
	for label = range strings.SplitSeq(name, ".") {
		if !validLabel(label) {
			return "", fmt.Errorf("address %q is neither a host name nor an IP address", host)
		}
	}
	// "127.1", "0x7f.0.0.1" or "2130706433" are IPv4 addresses to some clients.
	if strings.Trim(label, "0123456789") == "" || strings.HasPrefix(label, "0x") || strings.HasPrefix(label, "0X") {
		return "", fmt.Errorf("address %q ends in a number but is not an IP address", host)
	}
	return host, nil
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isSelf reports whether a client that follows a redirect to t would come back to where r came in: either the client
// addressed this site by t's own name and port, or t is the very socket that took the connection.
func (t *target) isSelf(r *http.Request) bool {
	if strings.EqualFold(r.Host, t.authority) {
		return true
	}
	if t.portOf != "" && t.portOf == clientScheme(r) && strings.EqualFold(strings.Trim(r.Host, "[]"), t.host) {
		return true
	}
	if !t.addr.IsValid() {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(interface{ AddrPort() netip.AddrPort }) // TCP, and UDP for HTTP/3
	if !ok {
		return false
	}
	here := local.AddrPort()
	return here.Port() == t.addr.Port() && here.Addr().Unmap() == t.addr.Addr()
}

// clientScheme is the scheme of the URL that the client used, as far as can be seen from here.
// X-Forwarded-Proto can be forged, but only to give oneself another answer.
func clientScheme(r *http.Request) string {
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		return "https"
	}
	return "http"
}
