// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// Target is where a node is reached. The zero value is no target.
type Target struct {
	URL        string         // "https://vault-1.example.com:8200"
	Authority  string         // "vault-1.example.com:8200"
	Host       string         // "vault-1.example.com"
	ServerName string         // that the certificate there must have
	PortOf     string         // the scheme for which the port is the default one, else ""
	Addr       netip.AddrPort // set if Host is an IP address
	Loopback   bool           // Host means another machine to each machine that uses it: itself
}

// Scheme returns the scheme of the URL.
func (t *Target) Scheme() string {
	scheme, _, _ := strings.Cut(t.URL, ":")
	return scheme
}

// Values of redirect_to with a meaning of their own; anything else is a template.
const (
	ToAuto           = "auto"
	ToNodeName       = "node_name"
	ToNodeAddress    = "node_address"
	ToServiceAddress = "service_address"
	ToLeader         = "leader" // with probes only
	toTagged         = "tagged:"
)

// Addressing says how the target of a node is found. It is comparable; NewAddressing makes it.
type Addressing struct {
	scheme     string // http, https, or empty where the node's own holds
	redirectTo string // as in the config, checked by NewAddressing
	port       int    // 0: the registered one
}

// NewAddressing checks its arguments, which are those of the config.
func NewAddressing(scheme, redirectTo string, port int) (Addressing, error) {
	a := Addressing{scheme, cmp.Or(redirectTo, ToAuto), port}
	if scheme != "" && scheme != "http" && scheme != "https" {
		return a, fmt.Errorf("scheme: %q is not http or https", scheme)
	}
	if port < 0 || port > 65535 {
		return a, fmt.Errorf("port: %d is not between 1 and 65535 (0 or nothing: the port that is registered)", port)
	}
	switch key, tagged := strings.CutPrefix(a.redirectTo, toTagged); {
	case tagged && key == "":
		return a, errors.New(`redirect_to: "tagged:" needs the key of a tagged address, such as tagged:wan`)
	case tagged, a.redirectTo == ToAuto, a.redirectTo == ToNodeName, a.redirectTo == ToNodeAddress, a.redirectTo == ToServiceAddress, a.redirectTo == ToLeader:
		return a, nil
	case !strings.Contains(a.redirectTo, "{"):
		return a, fmt.Errorf("redirect_to: %q is not auto, node_name, node_address, service_address, tagged:<key>, "+
			"leader (with probes) or a template such as {node}.vault.example.com", redirectTo)
	}
	// A template is tried with names that are valid, so that what is wrong with the result is wrong with the template.
	sample := &discovery.Node{Name: "n", ID: "i", Address: "a", ServiceAddress: "s", Datacenter: "d", Port: 1}
	host, err := expandTemplate(a.redirectTo, sample, func(string) string { return "m" })
	if err == nil {
		_, err = sanitize.Host(host)
	}
	if err != nil {
		return a, fmt.Errorf("redirect_to: template %q: %w", redirectTo, err)
	}
	return a, nil
}

// Leader reports whether the target is what the active node itself names.
func (a Addressing) Leader() bool { return a.redirectTo == ToLeader }

// NoPort is why clients cannot be sent to a node that has registered no port.
const NoPort = "no port is registered, or several named ports of which none is the default: set the option port"

// target returns where n is reached, given the leader that it names, if any. The error says why its address or port
// cannot be used.
func (a Addressing) target(n *discovery.Node, leader string) (Target, error) {
	host, port, err := a.pick(n)
	if err != nil {
		return Target{}, err
	}
	scheme, name := cmp.Or(a.scheme, n.Scheme, "https"), n.ServerName
	if a.Leader() && leader != "" {
		name = "" // which is for the node's own address
		if host, port, err = parseLeader(leader, scheme); err != nil {
			return Target{}, err
		}
	}
	host, err = sanitize.Host(host)
	if err != nil {
		return Target{}, err
	}
	port = cmp.Or(a.port, port)
	if port == 0 {
		return Target{}, errors.New(NoPort)
	}
	if port < 1 || port > 65535 {
		return Target{}, fmt.Errorf("port %d is not between 1 and 65535", port)
	}
	t := Target{
		Host: host, ServerName: cmp.Or(name, host), Authority: net.JoinHostPort(host, strconv.Itoa(port)), Loopback: sanitize.Loopback(host),
	}
	t.URL = scheme + "://" + t.Authority
	switch port {
	case 80:
		t.PortOf = "http"
	case 443:
		t.PortOf = "https"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		t.Addr = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return t, nil
}

// locate finds where a member is probed, which is its own address, and where it is reached. With redirect_to leader, that is the
// address that the node named last, also while its next answer is pending; its own until it has named one.
func (a Addressing) locate(m *member) {
	t, err := a.target(&m.node, "")
	m.target, m.direct, m.bad = t, t, ""
	if err != nil {
		m.bad = err.Error()
		return
	}
	if !a.Leader() || m.leader == "" {
		return
	}
	switch t, err = a.target(&m.node, m.leader); {
	case err == nil:
		m.target = t
	case m.claims():
		m.bad = err.Error()
	}
}

// pick returns the host, not yet validated, and the registered port.
func (a Addressing) pick(n *discovery.Node) (host string, port int, err error) {
	switch a.redirectTo {
	case ToAuto, ToLeader: // the leader is asked for at the address of the node
		return cmp.Or(n.ServiceAddress, n.Name), n.Port, nil
	case ToNodeName:
		return n.Name, n.Port, nil
	case ToNodeAddress:
		return n.Address, n.Port, nil
	case ToServiceAddress:
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
func expandTemplate(template string, n *discovery.Node, meta func(key string) string) (string, error) {
	values := map[string]string{
		"node": n.Name, "node_address": n.Address, "service_address": n.ServiceAddress, "datacenter": n.Datacenter, "id": n.ID,
	}
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
		value, known := values[name]
		if key, isMeta := strings.CutPrefix(name, "meta."); isMeta && key != "" {
			value, known = meta(key), true
		}
		if !known {
			return "", fmt.Errorf("unknown placeholder {%s}: there are {node}, {node_address}, {service_address}, {datacenter}, {id} and {meta.<key>}", name)
		}
		if value == "" {
			return "", fmt.Errorf("placeholder {%s} has no value", name)
		}
		b.WriteString(value)
	}
	return b.String(), nil
}
