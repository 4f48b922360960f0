// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/machine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// leadsBack reports whether a client that follows a redirect to t would come back to where r came in: either the client
// addressed this site by t's own name and port, or t is the very socket that took the connection. Only the latter is
// proven; a client can send any Host.
func leadsBack(t *engine.Target, r *http.Request) (loop, proven bool) {
	if isSocket(t.Addr, r.Context()) {
		return true, true
	}
	loop = strings.EqualFold(r.Host, t.Authority) ||
		t.PortOf != "" && t.PortOf == clientScheme(r) && strings.EqualFold(strings.Trim(r.Host, "[]"), t.Host)
	return loop, false
}

// isSocket reports whether an address, if it is one, is that of the socket through which a request came. A socket for
// HTTP/3 may not know its address; then it is every address of this machine.
func isSocket(addr netip.AddrPort, ctx context.Context) bool {
	if !addr.IsValid() {
		return false
	}
	local, ok := ctx.Value(http.LocalAddrContextKey).(interface{ AddrPort() netip.AddrPort }) // TCP or UDP
	if !ok {
		return false
	}
	here := local.AddrPort()
	if here.Port() != addr.Port() {
		return false
	}
	ip := here.Addr().Unmap()
	return ip == addr.Addr() || ip.IsUnspecified() && machine.Own().Has(addr.Addr())
}

// clientScheme is the scheme of the URL that the client used, as far as can be seen from here.
// X-Forwarded-Proto can be forged, but that affects only the forger's own answer.
func clientScheme(r *http.Request) string {
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		return "https"
	}
	return "http"
}

// onlyLocal reports whether t is an address that means another machine to the client than to the node that registered it:
// one of loopback, for a client that is not on this machine. api_addr = "https://127.0.0.1:8200" is the commonest mistake
// in Vault's configuration; a client that followed it would send its token to whatever listens there.
func onlyLocal(t *engine.Target, r *http.Request) bool {
	return t.Loopback && !isLocal(r)
}

// loopbackOfAnotherHost reports whether a state's target is an address of loopback although Consul knows the node to be on another
// machine: a proxy would bring a request, with its token, to whatever listens on this one.
func loopbackOfAnotherHost(s *engine.State) bool {
	if !s.Target.Loopback || sanitize.Loopback(s.Node.Address) { // the machine's addresses are listed only where they matter
		return false
	}
	return machine.Own().IsAnother(s.Node.Address)
}

// isLocal reports whether the client is on this machine: it came over loopback or a unix socket, if the server trusts proxies, they
// say so, too, and no header says anything else. A header that denies that the client is local needs no trust: it can be forged, but
// only to get no redirect.
func isLocal(r *http.Request) bool {
	client := ClientAddress(r)
	if client != "" { // else it is a unix socket
		if ip, err := netip.ParseAddr(client); err != nil || !ip.Unmap().IsLoopback() {
			return false
		}
	}
	for _, name := range ClientHeaders {
		if slices.ContainsFunc(r.Header[name], namesAnother) {
			return false
		}
	}
	return true
}

// ClientHeaders are the headers in which proxies commonly name the client, in the canonical form.
var ClientHeaders = []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"}

// namesAnother reports whether a line of such a header has an IP address that is not one of loopback. Names that stand for an address,
// such as unknown, deny nothing.
// See https://www.rfc-editor.org/rfc/rfc7239#section-4.
func namesAnother(line string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(line, func(c rune) bool { return c == ',' || c == ';' }), func(part string) bool {
		part = strings.TrimSpace(part)
		if key, value, found := strings.Cut(part, "="); found {
			if !strings.EqualFold(strings.TrimSpace(key), "for") {
				return false // by= is the proxy, host= is what was asked for
			}
			part = value
		}
		part = strings.Trim(part, `" 	`)
		ip, err := netip.ParseAddr(strings.Trim(part, "[]"))
		if err != nil {
			var withPort netip.AddrPort
			if withPort, err = netip.ParseAddrPort(part); err == nil {
				ip = withPort.Addr()
			}
		}
		return err == nil && !ip.Unmap().IsLoopback()
	})
}

// ClientAddress returns the IP address of the client, as far as Caddy knows it (trusted_proxies); empty over a unix socket.
func ClientAddress(r *http.Request) string {
	if client, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok && client != "" {
		return client
	}
	client, _, _ := net.SplitHostPort(r.RemoteAddr)
	return client
}

// ViaMark is the mark of this process in requests that it proxies, in the form of a pseudonym of a proxy.
// See https://www.rfc-editor.org/rfc/rfc9110#section-7.6.3.
var ViaMark = "1.1 vault-redirect-" + instance.ID

// marked reports whether a request carries the mark. Proxies in between may have joined several marks in one line.
func marked(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Via"], func(line string) bool { return strings.Contains(line, ViaMark) })
}
