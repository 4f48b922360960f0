// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

// useToken is the remedy for a token that may not see a service.
const useToken = `use a token whose policy has service_prefix %q { policy = "read" } and node_prefix "" { policy = "read" }: token_file in the config, --token-file, or CONSUL_HTTP_TOKEN`

// noLeader is the remedy for servers that know no leader.
const noLeader = "Consul has no leader: see `consul operator raft list-peers`"

// discovery says whether discovery answers, what the token may see, and which instances there are.
func (o *Observation) discovery() []Finding {
	source := cmp.Or(o.Source, "discovery")
	if source == "vault" { // there is nothing to query, and names are looked up with each node
		return []Finding{o.finding("nodes", OK, fmt.Sprintf("named by URL, without Consul: %s", o.names()), "")}
	}
	took := words.Brief(o.Took)
	reach := Finding{source, o.Endpoint, OK, "answered in " + took + ", and knows a leader", ""}
	token := Finding{"token", o.Endpoint, OK, "may see the service and its nodes: nothing was hidden", ""}
	switch {
	case !o.Asked:
		return []Finding{{source, o.Endpoint, Wrong, "no answer within " + took, remedyOfConsul(o.Endpoint, "no answer in time")}}
	case o.Failed == discovery.ReasonACLDenied:
		reach.Detail = "answered in " + took
		return []Finding{reach, {"token", o.Endpoint, Wrong, "refused: " + o.FailedWith, fmt.Sprintf(useToken, o.Selection.Service)}}
	case o.Failed != "":
		return []Finding{{source, o.Endpoint, Wrong, o.FailedWith, remedyOfConsul(o.Endpoint, o.FailedWith)}}
	case o.Incomplete == discovery.ReasonACLFiltered:
		token = Finding{"token", o.Endpoint, Wrong, "Consul hides results from it (filtered by ACLs)", fmt.Sprintf(useToken, o.Selection.Service)}
	case o.Incomplete != "":
		reach = Finding{source, o.Endpoint, Warning, o.IncompleteDetail, noLeader}
	}
	list := []Finding{reach, token}
	if o.Blocking.Wait > 0 {
		list = append(list, o.blocking())
	}
	return append(list, o.service())
}

// blocking says whether queries that wait for a change are left to wait.
func (o *Observation) blocking() Finding {
	b := o.Blocking
	if b.Failed == "" {
		return Finding{"blocking", o.Endpoint, OK, fmt.Sprintf("blocking queries work: one was not cut short within %s (poll_interval: %s)", words.Brief(min(b.Held, b.Wait)), b.Wait), ""}
	}
	remedy := "have the proxy in front of Consul let queries with `index` and `wait` pass, or see the log of the Consul agent; until then, changes are noticed by polling"
	// Consul adds up to a sixteenth to the wait.
	if below := (b.Held * 16 / 17).Truncate(time.Second); below >= time.Second && below < b.Wait {
		remedy = fmt.Sprintf("if a proxy in front of Consul cuts them short, set `poll_interval` below its limit (here: %s), or raise the limit to more than %s",
			below, (b.Wait + b.Wait/16).Round(time.Second))
	}
	return Finding{"blocking", o.Endpoint, Warning, fmt.Sprintf("blocking queries fail after %s, while others are answered: %s", words.Brief(b.Held), b.Failed), remedy}
}

// service says which instances there are.
func (o *Observation) service() Finding {
	subject := cmp.Or(o.Selection.Service, o.Name)
	switch {
	case len(o.Nodes) > 0:
		return Finding{"service", subject, OK, words.Plural(len(o.Nodes), "instance") + ": " + o.names(), ""}
	case o.Incomplete == discovery.ReasonACLFiltered:
		return Finding{"service", subject, Wrong, "no instance is visible", "see token"}
	}
	return Finding{
		"service", subject, Wrong, "no instance is registered, or none that the token may see",
		"give Vault a service_registration \"consul\" (or a service definition), or name the service with `consul { service NAME }`",
	}
}

// mostNames is how many nodes are named in a line.
const mostNames = 10

func (o *Observation) names() string {
	var names []string
	for _, n := range o.Nodes[:min(len(o.Nodes), mostNames)] {
		names = append(names, n.Label)
	}
	if more := len(o.Nodes) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// remedyOfConsul says what to do about a failure to ask Consul.
func remedyOfConsul(endpoint, text string) string {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
	}
	switch {
	case has("connection refused"):
		return fmt.Sprintf("start the Consul agent at %s, or correct its address and port", endpoint)
	case has("no such host", "server misbehaving", "lookup"):
		return fmt.Sprintf("correct the name in %s, or add it to DNS", endpoint)
	case has("no answer in time", "timeout", "no route", "unreachable"):
		return fmt.Sprintf("check whether the Consul agent at %s runs, and whether a firewall lets this machine reach it", endpoint)
	case has("HTTP response to HTTPS client"):
		return "that port speaks http: use http:// and port 8500, without a tls block and CONSUL_HTTP_SSL; or the agent's port for https, 8501"
	case has("malformed HTTP response", "HTTP request to an HTTPS server"):
		return "that port speaks https: use https:// and port 8501, or CONSUL_HTTP_SSL=true"
	case has("x509", "certificate"):
		return "trust Consul's CA: `consul { tls { ca FILE } }` or CONSUL_CACERT; for a client certificate cert and key, or CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
	case has("leader"):
		return noLeader
	}
	return "see the log of the Consul agent"
}
