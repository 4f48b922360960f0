// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

// renewBefore is how long before its end a certificate should be renewed.
const renewBefore = 21 * 24 * time.Hour

// closedWithoutAnswer is the failure of an inspection whose connection the other side has closed.
const closedWithoutAnswer = "connection closed without an answer"

// node returns the findings on one node.
func (o *Observation) node(n *Node) []Finding {
	if n.URL == "" {
		return []Finding{o.misaddressed(n)}
	}
	list := []Finding{o.reach(n)}
	if n.OtherScheme {
		list = append(list, o.otherScheme(n))
	}
	if f, ok := o.certificate(n); ok {
		list = append(list, f)
	}
	if f, ok := o.role(n); ok {
		list = append(list, f)
	}
	return append(list, o.redirect(n))
}

// reach says whether the node is reached from here.
func (o *Observation) reach(n *Node) Finding {
	where := n.Host
	if len(n.Addresses) > 0 && n.Addresses[0].String() != n.Host {
		where += " is " + join(n.Addresses)
	}
	f := Finding{"reach", n.Label, OK, fmt.Sprintf("%s, port %s: connected in %s", where, n.Port, words.Brief(n.Connected)), ""}
	switch n.FailedStep {
	case engine.StepLookup:
		f.Severity, f.Detail = Wrong, fmt.Sprintf("the name %s cannot be looked up here: %s", n.Host, n.Failure)
		f.Remedy = "add it to DNS, for this machine and for clients, or choose another address with redirect_to, such as node_address"
	case engine.StepConnect:
		f.Severity, f.Detail = Wrong, fmt.Sprintf("%s, port %s: %s", where, n.Port, n.Failure)
		f.Remedy = "check whether Vault runs there, and whether a firewall lets this machine reach it"
		if strings.Contains(n.Failure, "refused") {
			switch f.Remedy = "start Vault there, or correct its address and port: " + o.addressOption(); {
			case n.lacksPort():
				f.Remedy = "see registration"
			case n.passing():
				f.Remedy += "; or, if it expects the PROXY protocol, set `proxy_protocol_behavior = \"allow_authorized\"`: with deny_unauthorized, one connection from elsewhere may end its listener"
			}
		}
	}
	return f
}

// passing reports whether Consul calls the node passing, as it does with Vault's own check for as long as the process runs.
func (n *Node) passing() bool { return engine.HasCheck(n.Node) && len(n.Failing) == 0 }

// closed reports whether a node that Consul calls passing has closed the connection without an answer.
func (n *Node) closed() bool {
	return n.passing() && (n.FailedStep == engine.StepHandshake || n.FailedStep == engine.StepRequest) && n.Failure == closedWithoutAnswer
}

// otherScheme says that the node answers https where requests go by http, or the other way round.
func (o *Observation) otherScheme(n *Node) Finding {
	f := Finding{"scheme", n.Label, Wrong, "the node answers https, but requests to it go by http", ""}
	scheme := "https"
	if strings.HasPrefix(n.URL, "https://") {
		f.Detail, scheme = "the node answers http, but requests to it go by https", "http"
	}
	switch {
	case o.Selection.Mode == discovery.ByProbe:
		f.Remedy = "write its URL with " + scheme + "://"
	case len(o.Sites) == 0: // the flags name the cluster
		f.Remedy = "set `scheme " + scheme + "` (here: --scheme " + scheme + ")"
	default:
		f.Remedy = "set `scheme " + scheme + "`"
	}
	if scheme == "http" {
		f.Remedy = "give Vault's listener TLS; or " + f.Remedy
		if slices.ContainsFunc(o.Sites, func(site Site) bool { return site.TLS && !site.Proxy }) {
			f.Remedy += ", and serve clients by http, since Vault's own client does not follow from https to http"
		}
	}
	return f
}

// certificate says whether the certificate is valid and trusted, and for how long. ok is false if there is none to judge.
func (o *Observation) certificate(n *Node) (f Finding, ok bool) {
	c, failed := n.Certificate, n.FailedStep == engine.StepHandshake && !n.OtherScheme && !n.closed()
	f = Finding{Check: "certificate", Subject: n.Label, Severity: OK}
	const remedyOfTLS = "see the log and the listener of that Vault"
	if c == nil {
		f.Severity, f.Detail, f.Remedy = Wrong, "TLS failed: "+n.Failure, remedyOfTLS
		return f, failed
	}
	var bad, remedies []string
	add := func(r Severity, detail, remedy string) {
		if f.Severity != Wrong {
			f.Severity = r
		}
		bad, remedies = append(bad, detail), append(remedies, remedy)
	}
	left := c.To.Sub(o.Now)
	days := strconv.Itoa(int(left / (24 * time.Hour)))
	switch {
	case left <= 0:
		add(Wrong, "expired on "+c.To.UTC().Format(time.DateOnly), "renew it")
	case o.Now.Before(c.From):
		add(Wrong, "not valid before "+c.From.UTC().Format(time.RFC3339), "correct the clocks, or issue it anew")
	case left < renewBefore:
		add(Warning, days+" days left", "renew it")
	}
	if c.WrongName != "" {
		add(Wrong, fmt.Sprintf("not for %s but for %s", c.For, orElse(c.Names, "no name")),
			"issue it for "+c.For+" as well, or use an address that it is for: "+o.addressOption())
	}
	switch {
	case !o.Verify:
		add(Warning, "not verified by the probes (insecure_skip_verify)", "set "+trustOption+", and remove insecure_skip_verify")
	case c.Untrusted != "" && o.Mode == engine.ProbeStrict:
		add(Wrong, "not trusted here: "+c.Untrusted, "set "+trustOption)
	case c.Untrusted != "":
		add(Warning, "not trusted here: "+c.Untrusted, "set "+trustOption)
	}
	if failed {
		add(Wrong, "TLS failed: "+n.Failure, remedyOfTLS)
	}
	if len(bad) == 0 {
		f.Detail = fmt.Sprintf("trusted, for %s, %s days left", c.For, days)
		return f, true
	}
	f.Detail, f.Remedy = strings.Join(bad, "; "), strings.Join(remedies, "; ")
	return f, true
}

// role says what the node says that it is, and why it is not elected. ok is false if there is nothing to say.
func (o *Observation) role(n *Node) (f Finding, ok bool) {
	f = Finding{Check: "role", Subject: n.Label, Severity: OK}
	switch {
	case n.OtherScheme:
		return f, false
	case n.closed():
		f.Severity, f.Detail = Wrong, "the connection was closed without an answer, although Consul calls the node passing: does its listener expect the PROXY protocol?"
		f.Remedy = "set `proxy_protocol_behavior = \"allow_authorized\"` in the listener of that Vault, and restart it: with deny_unauthorized, one connection from elsewhere, " +
			"such as a client that was redirected, may end the listener"
		return f, true
	case n.FailedStep == engine.StepRequest:
		f.Severity, f.Detail, f.Remedy = Wrong, "no answer to /v1/sys/health: "+n.Failure, "see the log of that Vault"
		if strings.Contains(n.Failure, "certificate") {
			f.Remedy = "give a client certificate, which the node wants: `tls { cert FILE; key FILE }` beside ca"
		}
		return f, true
	case n.FailedStep != engine.StepNone:
		return f, false
	case n.Redirector:
		f.Severity, f.Detail = Wrong, "what answers there is a redirector, not Vault: requests would go round in circles"
		f.Remedy = "set " + o.addressOption() + ", to the address of the node itself"
		return f, true
	case n.Health.Result == engine.ResultUnclear:
		f.Severity, f.Detail, f.Remedy = Warning, fmt.Sprintf("Vault answers /v1/sys/health, but does not tell its state: %s", n.Health.Role), n.Health.Remedy
		return f, true
	case !n.Health.Vault:
		f.Severity, f.Detail = Wrong, fmt.Sprintf("what answers is not Vault (/v1/sys/health: %d)", n.Health.Code)
		f.Remedy = "correct its address and port: " + o.addressOption()
		return f, true
	}
	f.Detail = n.Health.Role.String()
	if n.Health.Remedy != "" {
		f.Severity, f.Remedy = Warning, strings.ReplaceAll(n.Health.Remedy, "%s", n.URL)
	}
	if len(n.Failing) > 0 {
		f.Detail += "; checks in Consul that are not passing: " + strings.Join(n.Failing, ", ")
	}
	elected := o.elected()
	switch {
	case n.Elected, elected != nil && n.isVault(elected) && n.said().Result == engine.ResultActive:
		f.Detail += "; redirects lead here"
	case n.State == engine.NodeMaintenance:
		f.Severity, f.Detail, f.Remedy = Warning, f.Detail+"; in maintenance in Consul: never used", "`consul maint -disable` when it is over"
	case n.said().Result == engine.ResultActive:
		f.Severity, f.Detail = Warning, f.Detail+"; not elected: "+n.Why
		f.Remedy = orElse(f.Remedy, "see active")
	case n.Marked && o.Selection.Mode != discovery.ByProbe && f.Severity == OK:
		f.Severity, f.Detail = Warning, f.Detail+", but Consul marks it as active"
		f.Remedy = "normal for a moment in a failover; otherwise see mark"
	case len(n.Failing) > 0 && f.Severity == OK:
		f.Severity, f.Remedy = Warning, "see these checks: `consul catalog nodes -detailed`, and the log of the Consul agent there"
	}
	return f, true
}
