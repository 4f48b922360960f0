// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"cmp"
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

func (o *Observation) node(n *Node) []Finding {
	if n.URL == "" {
		return []Finding{o.misaddressed(n)}
	}
	list := slices.Concat([]Finding{o.reach(n)}, o.otherScheme(n), o.certificate(n))
	// The failure of an earlier step has a finding of its own.
	if !n.OtherScheme && (n.closed() || n.FailedStep == engine.StepRequest || n.FailedStep == engine.StepNone) {
		list = append(list, o.role(n))
	}
	return append(list, o.redirect(n))
}

// reach says whether the node is reached from here.
func (o *Observation) reach(n *Node) Finding {
	where := n.Host
	if len(n.Addresses) > 0 && n.Addresses[0].String() != n.Host {
		where += " is " + join(n.Addresses)
	}
	where += ", port " + n.Port + ": "
	switch {
	case n.FailedStep == engine.StepLookup:
		return n.finding("reach", Wrong, fmt.Sprintf("the name %s cannot be looked up here: %s", n.Host, n.Failure),
			"add it to DNS, for this machine and for clients, or choose another address with redirect_to, such as node_address")
	case n.FailedStep != engine.StepConnect:
		return n.finding("reach", OK, where+"connected in "+words.Brief(n.Connected), "")
	case !strings.Contains(n.Failure, "refused"):
		return n.finding("reach", Wrong, where+n.Failure, "check whether Vault runs there, and whether a firewall lets this machine reach it")
	case n.lacksPort():
		return n.finding("reach", Wrong, where+n.Failure, "see registration")
	}
	remedy := "start Vault there, or correct its address and port: " + o.addressOption()
	if n.passing() {
		remedy += "; or, if it expects the PROXY protocol, set `proxy_protocol_behavior = \"allow_authorized\"`: with deny_unauthorized, one connection from elsewhere may end its listener"
	}
	return n.finding("reach", Wrong, where+n.Failure, remedy)
}

// passing reports whether Consul calls the node passing, as it does with Vault's own check for as long as the process runs.
func (n *Node) passing() bool { return engine.HasCheck(n.Node) && len(n.Failing) == 0 }

// closed reports whether a node that Consul calls passing has closed the connection without an answer.
func (n *Node) closed() bool {
	return n.passing() && (n.FailedStep == engine.StepHandshake || n.FailedStep == engine.StepRequest) && n.Failure == closedWithoutAnswer
}

// otherScheme says that the node answers https where requests go by http, or the other way round.
func (o *Observation) otherScheme(n *Node) []Finding {
	if !n.OtherScheme {
		return nil
	}
	scheme, asked := "https", "http"
	if strings.HasPrefix(n.URL, "https://") {
		scheme, asked = asked, scheme
	}
	remedy := "set `scheme " + scheme + "`"
	switch {
	case o.Selection.Mode == discovery.ByProbe:
		remedy = "write its URL with " + scheme + "://"
	case len(o.Sites) == 0: // the flags name the cluster
		remedy += " (here: --scheme " + scheme + ")"
	}
	if scheme == "http" {
		remedy = "give Vault's listener TLS; or " + remedy
		if o.redirectsFromHTTPS() {
			remedy += ", and serve clients by http, since Vault's own client does not follow from https to http"
		}
	}
	return []Finding{n.finding("scheme", Wrong, "the node answers "+scheme+", but requests to it go by "+asked, remedy)}
}

// certificate says whether the certificate is valid and trusted, and for how long. It says nothing if there is none.
func (o *Observation) certificate(n *Node) []Finding {
	f := n.finding("certificate", OK, "", "")
	c, failed := n.Certificate, n.FailedStep == engine.StepHandshake && !n.OtherScheme && !n.closed()
	if c == nil && !failed {
		return nil
	}
	if c != nil {
		o.checkCertificate(c, &f)
	}
	if failed {
		f.add(Wrong, "TLS failed: "+n.Failure, "see the log and the listener of that Vault")
	}
	if f.Detail == "" {
		f.Detail = fmt.Sprintf("trusted, for %s, %s days left", c.For, o.daysLeft(c))
	}
	return []Finding{f}
}

func (o *Observation) daysLeft(c *engine.Certificate) string {
	return strconv.Itoa(int(c.To.Sub(o.Now) / (24 * time.Hour)))
}

// checkCertificate adds what is wrong with a certificate.
func (o *Observation) checkCertificate(c *engine.Certificate, f *Finding) {
	switch left := c.To.Sub(o.Now); {
	case left <= 0:
		f.add(Wrong, "expired on "+c.To.UTC().Format(time.DateOnly), "renew it")
	case o.Now.Before(c.From):
		f.add(Wrong, "not valid before "+c.From.UTC().Format(time.RFC3339), "correct the clocks, or issue it anew")
	case left < renewBefore:
		f.add(Warning, o.daysLeft(c)+" days left", "renew it")
	}
	if c.WrongName != "" {
		f.add(Wrong, fmt.Sprintf("not for %s but for %s", c.For, cmp.Or(c.Names, "no name")),
			"issue it for "+c.For+" as well, or use an address that it is for: "+o.addressOption())
	}
	switch {
	case !o.Probe.Verifies():
		f.add(Warning, "not verified by the probes (insecure_skip_verify)", "set "+trustOption+", and remove insecure_skip_verify")
	case c.Untrusted != "" && o.Probe.Mode == engine.ProbeStrict:
		f.add(Wrong, "not trusted here: "+c.Untrusted, "set "+trustOption)
	case c.Untrusted != "":
		f.add(Warning, "not trusted here: "+c.Untrusted, "set "+trustOption)
	}
}

// role says what the node says that it is, and why it is not elected.
func (o *Observation) role(n *Node) Finding {
	switch {
	case n.closed():
		return n.finding("role", Wrong, "the connection was closed without an answer, although Consul calls the node passing: does its listener expect the PROXY protocol?",
			"set `proxy_protocol_behavior = \"allow_authorized\"` in the listener of that Vault, and restart it: with deny_unauthorized, one connection from elsewhere, "+
				"such as a client that was redirected, may end the listener")
	case n.FailedStep == engine.StepRequest && strings.Contains(n.Failure, "certificate"):
		return n.finding("role", Wrong, "no answer to /v1/sys/health: "+n.Failure, "give a client certificate, which the node wants: `tls { cert FILE; key FILE }` beside ca")
	case n.FailedStep == engine.StepRequest:
		return n.finding("role", Wrong, "no answer to /v1/sys/health: "+n.Failure, "see the log of that Vault")
	case n.Redirector:
		return n.finding("role", Wrong, "what answers there is a redirector, not Vault: requests would go round in circles", "set "+o.addressOption()+", to the address of the node itself")
	case n.Health.Result == engine.ResultUnclear:
		return n.finding("role", Warning, fmt.Sprintf("Vault answers /v1/sys/health, but does not tell its state: %s", n.Health.Role), n.Health.Remedy)
	case !n.Health.Vault:
		return n.finding("role", Wrong, fmt.Sprintf("what answers is not Vault (/v1/sys/health: %d)", n.Health.Code), "correct its address and port: "+o.addressOption())
	}
	detail, remedy := n.Health.Role.String(), strings.ReplaceAll(n.Health.Remedy, "%s", n.URL)
	if len(n.Failing) > 0 {
		detail += "; checks in Consul that are not passing: " + strings.Join(n.Failing, ", ")
	}
	elected := o.elected()
	switch {
	case n.Elected, elected != nil && n.isVault(elected) && n.said().Result == engine.ResultActive:
		detail += "; redirects lead here"
	case n.State == engine.NodeMaintenance:
		detail, remedy = detail+"; in maintenance in Consul: never used", "`consul maint -disable` when it is over"
	case n.said().Result == engine.ResultActive:
		detail, remedy = detail+"; not elected: "+n.Why, cmp.Or(remedy, "see active")
	case remedy != "":
	case n.Marked && o.Selection.Mode != discovery.ByProbe:
		detail, remedy = detail+", but Consul marks it as active", "normal for a moment in a failover; otherwise see mark"
	case len(n.Failing) > 0:
		remedy = "see these checks: `consul catalog nodes -detailed`, and the log of the Consul agent there"
	}
	if remedy != "" {
		return n.finding("role", Warning, detail, remedy)
	}
	return n.finding("role", OK, detail, "")
}
