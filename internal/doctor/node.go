// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what there is to say of one node.

package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// fewDays is when a certificate should have been renewed.
const fewDays = 21 * 24 * time.Hour

// node says how one node is.
func (s *Seen) node(n *Node) []Finding {
	if n.URL == "" {
		return []Finding{{
			"redirect", n.Label, Wrong, "clients cannot be sent there: " + n.Why,
			"correct " + s.addressOption(),
		}}
	}
	list := []Finding{s.reach(n)}
	if n.Look.OtherKind {
		list = append(list, s.otherKind(n))
	}
	if f, ok := s.certificate(n); ok {
		list = append(list, f)
	}
	if f, ok := s.role(n); ok {
		list = append(list, f)
	}
	return append(list, s.redirect(n))
}

// reach says whether the node is reached from here.
func (s *Seen) reach(n *Node) Finding {
	l := &n.Look
	where := l.Host
	if len(l.Addresses) > 0 && l.Addresses[0].String() != l.Host {
		where += " is " + join(l.Addresses)
	}
	f := Finding{"reach", n.Label, OK, fmt.Sprintf("%s, port %s: connected in %s", where, l.Port, brief(l.Connected)), ""}
	switch {
	case l.LookupErr != "":
		f.Severity, f.Detail = Wrong, fmt.Sprintf("the name %s cannot be looked up here: %s", l.Host, l.LookupErr)
		f.Remedy = "have DNS know it here and at the clients, or choose another address with redirect_to, such as node_address"
	case l.ConnectErr != "":
		f.Severity, f.Detail = Wrong, fmt.Sprintf("%s, port %s: %s", where, l.Port, l.ConnectErr)
		f.Remedy = "look whether Vault runs there, and whether a firewall lets this machine reach it"
		if strings.Contains(l.ConnectErr, "refused") {
			f.Remedy = "start Vault there, or correct its address and port: " + s.addressOption()
		}
	}
	return f
}

// otherKind says that a node speaks http where it is asked by https, or the other way round.
func (s *Seen) otherKind(n *Node) Finding {
	f := Finding{"scheme", n.Label, Wrong, "the node answers https, but requests to it go by http", ""}
	scheme := "https"
	if strings.HasPrefix(n.URL, "https://") {
		f.Detail, scheme = "the node answers http, but requests to it go by https", "http"
	}
	switch {
	case s.Selection.Mode == discovery.ByProbe:
		f.Remedy = "write its URL with " + scheme + "://"
	case len(s.Sites) == 0: // asked for on the command line
		f.Remedy = "set `scheme " + scheme + "` (here: --scheme " + scheme + ")"
	default:
		f.Remedy = "set `scheme " + scheme + "`"
	}
	if scheme == "http" {
		f.Remedy = "give Vault's listener TLS; or " + f.Remedy
		if slices.ContainsFunc(s.Sites, func(site Site) bool { return site.TLS && !site.Proxy }) {
			f.Remedy += ", and serve clients by http, since Vault's own does not follow from https to http"
		}
	}
	return f
}

// certificate says how long the certificate is good, and for whom. ok is false if there is nothing to say.
func (s *Seen) certificate(n *Node) (f Finding, ok bool) {
	c := n.Look.Cert
	f = Finding{Check: "certificate", Subject: n.Label, Severity: OK}
	if c == nil {
		if n.Look.TLSErr == "" || n.Look.OtherKind {
			return f, false
		}
		f.Severity, f.Detail, f.Remedy = Wrong, "TLS failed: "+n.Look.TLSErr, "look at the log and at the listener of that Vault"
		return f, true
	}
	var bad, remedies []string
	add := func(r Severity, detail, remedy string) {
		if f.Severity != Wrong {
			f.Severity = r
		}
		bad, remedies = append(bad, detail), append(remedies, remedy)
	}
	left := c.To.Sub(s.Now)
	days := strconv.Itoa(int(left / (24 * time.Hour)))
	switch {
	case left <= 0:
		add(Wrong, "expired on "+c.To.UTC().Format(time.DateOnly), "renew it")
	case s.Now.Before(c.From):
		add(Wrong, "not valid before "+c.From.UTC().Format(time.RFC3339), "correct the clocks, or issue it anew")
	case left < fewDays:
		add(Warning, days+" days left", "renew it")
	}
	if c.WrongName != "" {
		add(Wrong, fmt.Sprintf("not for %s but for %s", c.For, orElse(c.Names, "no name")),
			"issue it for "+c.For+" as well, or use an address that it is for: "+s.addressOption())
	}
	switch {
	case !s.Verify:
		add(Warning, "not verified by the probes (insecure_skip_verify)", "set "+s.trustOption()+", and remove insecure_skip_verify")
	case c.Untrusted != "" && s.Mode == engine.ProbeStrict:
		add(Wrong, "not trusted here: "+c.Untrusted, "set "+s.trustOption())
	case c.Untrusted != "":
		add(Warning, "not trusted here: "+c.Untrusted, "set "+s.trustOption())
	}
	if n.Look.TLSErr != "" {
		add(Wrong, "TLS failed: "+n.Look.TLSErr, "look at the log and at the listener of that Vault")
	}
	if len(bad) == 0 {
		f.Detail = fmt.Sprintf("trusted, for %s, %s days left", c.For, days)
		return f, true
	}
	f.Detail, f.Remedy = strings.Join(bad, "; "), strings.Join(remedies, "; ")
	return f, true
}

// roleOf says what a code of /v1/sys/health means.
func roleOf(code int) string {
	switch code {
	case 200:
		return "active (200)"
	case 429:
		return "standby (429)"
	case 472:
		return "disaster recovery secondary (472)"
	case 473:
		return "performance standby (473)"
	case 474:
		return "standby that cannot reach the active node (474)"
	case 501:
		return "not initialized (501)"
	case 503:
		return "sealed (503)"
	case 530:
		return "removed from the cluster (530)"
	}
	return fmt.Sprintf("unknown (%d)", code)
}

// role says what the node says of itself, and why it is not elected. ok is false if there is nothing to say.
func (s *Seen) role(n *Node) (f Finding, ok bool) {
	l := &n.Look
	f = Finding{Check: "role", Subject: n.Label, Severity: OK}
	switch {
	case l.OtherKind || l.LookupErr != "" || l.ConnectErr != "" || l.TLSErr != "":
		return f, false
	case l.HealthErr != "":
		f.Severity, f.Detail = Wrong, "no answer to /v1/sys/health: "+l.HealthErr
		f.Remedy = "look at the log of that Vault"
		if strings.Contains(l.HealthErr, "certificate") {
			f.Remedy = "the node wants a client certificate: `tls { cert FILE; key FILE }` beside ca"
		}
		return f, true
	case l.Health == nil || !l.Health.Vault:
		f.Severity, f.Detail = Wrong, "what answers is not Vault"
		if l.Health != nil {
			f.Detail += fmt.Sprintf(" (/v1/sys/health: %d)", l.Health.Code)
		}
		f.Remedy = "correct its address and port: " + s.addressOption()
		return f, true
	}
	code := l.Health.Code
	f.Detail = roleOf(code)
	f.Severity, f.Remedy = remedyOfRole(code, n.URL)
	if len(n.Failing) > 0 {
		f.Detail += "; checks in Consul that are not passing: " + strings.Join(n.Failing, ", ")
	}
	switch {
	case n.Elected:
		f.Detail += "; redirects lead here"
	case n.State == engine.NodeMaintenance:
		f.Severity, f.Detail, f.Remedy = Warning, f.Detail+"; in maintenance in Consul: never used", "`consul maint -disable` when it is over"
	case code == 200:
		f.Severity, f.Detail = Warning, f.Detail+"; not elected: "+n.Why
		f.Remedy = orElse(f.Remedy, "see active")
	case n.Marked && s.Selection.Mode != "probe" && f.Severity == OK:
		f.Severity, f.Detail = Warning, f.Detail+", but Consul marks it as active"
		f.Remedy = "in a failover this is so for a moment; else see mark"
	case len(n.Failing) > 0 && f.Severity == OK:
		f.Severity, f.Remedy = Warning, "look at these checks: `consul catalog nodes -detailed`, and the log of the Consul agent there"
	}
	return f, true
}

func remedyOfRole(code int, url string) (Severity, string) {
	switch code {
	case 200, 429, 473:
		return OK, ""
	case 503:
		return Warning, "unseal it: `vault operator unseal -address=" + url + "`"
	case 501:
		return Warning, "initialize it, or have it join the cluster: `vault operator raft join -address=" + url + " ...`"
	case 472:
		return Warning, "a secondary of another cluster never becomes active here: register it as a service of its own"
	case 474:
		return Warning, "let it reach the active node on the cluster port (8201)"
	}
	return Warning, "have it join the cluster anew, or deregister it"
}
