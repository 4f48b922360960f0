// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package consul

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// Endpoint is the address of Consul's API.
type Endpoint struct {
	Scheme string // http or https
	Socket string // path of a unix socket, "" for TCP
	Host   string // host:port, or host for the scheme's default port
	Prefix string // path before /v1
}

// String returns the endpoint as the status document shows it: host:port as the original did, else a URL.
func (e Endpoint) String() string {
	if e.Socket != "" {
		return "unix://" + e.Socket
	}
	return e.Host + e.Prefix
}

// ParseEndpoint parses an address of Consul. Without a scheme it is https if useTLS is set, else http.
func ParseEndpoint(address string, useTLS bool) (Endpoint, error) {
	e := Endpoint{Scheme: "http"}
	if useTLS {
		e.Scheme = "https"
	}
	if strings.Contains(address, "@") { // the address is not shown: it may contain a password
		return e, fmt.Errorf("an address cannot have a user or password: set %s instead", api.HTTPAuthEnvName)
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			return e, fmt.Errorf("%q: a socket is given as unix:///path/to/socket", address)
		}
		e.Socket, e.Host = path, "localhost"
		return e, nil
	}
	text, hasScheme := address, strings.Contains(address, "://")
	if !hasScheme {
		text = "//" + address
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return e, errors.New("not an address of Consul, such as 127.0.0.1:8500, https://consul.example.com:8501 or unix:///run/consul.sock")
	case u.RawQuery != "" || u.Fragment != "":
		return e, fmt.Errorf("%q: an address cannot have a query or fragment", address)
	case strings.Contains(u.Hostname(), ":") && !strings.HasPrefix(u.Host, "["):
		return e, fmt.Errorf("%q: an IPv6 address goes in brackets, as in [::1]:8500", address)
	case hasScheme && u.Scheme != "http" && u.Scheme != "https":
		return e, fmt.Errorf("%q: the scheme %s is not http, https or unix", address, u.Scheme)
	case !hasScheme && u.Port() == "":
		return e, fmt.Errorf("%q has no port: %s is what Consul's agents listen on", address, net.JoinHostPort(u.Hostname(), "8500"))
	case u.Port() != "":
		if n, err := strconv.Atoi(u.Port()); err != nil || n < 1 || n > 65535 {
			return e, fmt.Errorf("%q: port %s is not between 1 and 65535", address, u.Port())
		}
	}
	if _, err := sanitize.Host(u.Hostname()); err != nil && !strings.Contains(u.Hostname(), "%") {
		return e, err
	}
	if hasScheme {
		e.Scheme = u.Scheme
	}
	e.Host, e.Prefix = u.Host, strings.TrimSuffix(u.Path, "/")
	return e, nil
}
