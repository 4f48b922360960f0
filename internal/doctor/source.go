// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

// aclPolicy is what the token needs.
const aclPolicy = `a token whose policy has service_prefix %q { policy = "read" } and node_prefix "" { policy = "read" }: token_file in the config, --token-file, or CONSUL_HTTP_TOKEN`

// discovery says whether discovery answers, what the token may see, and which instances there are.
func (o *Observation) discovery() []Finding {
	source := orElse(o.Source, "discovery")
	if source == "vault" { // there is nothing to query, and names are looked up with each node
		return []Finding{{"nodes", o.Name, OK, fmt.Sprintf("named by URL, without Consul: %s", o.names()), ""}}
	}
	reach := Finding{Check: source, Subject: o.Endpoint, Severity: OK, Detail: fmt.Sprintf("answered in %s, and knows a leader", words.Brief(o.Took))}
	token := Finding{Check: "token", Subject: o.Endpoint, Severity: OK, Detail: "may see the service and its nodes: nothing was hidden"}
	switch {
	case !o.Asked:
		reach.Severity, reach.Detail = Wrong, fmt.Sprintf("no answer within %s", words.Brief(o.Took))
		reach.Remedy = remedyOfConsul(o.Endpoint, "no answer in time")
		return []Finding{reach}
	case o.Failed == discovery.ReasonACLDenied:
		reach.Detail = fmt.Sprintf("answered in %s", words.Brief(o.Took))
		token.Severity, token.Detail, token.Remedy = Wrong, "refused: "+o.FailedWith, "use "+fmt.Sprintf(aclPolicy, o.Selection.Service)
		return []Finding{reach, token}
	case o.Failed != "":
		reach.Severity, reach.Detail = Wrong, o.FailedWith
		reach.Remedy = remedyOfConsul(o.Endpoint, o.FailedWith)
		return []Finding{reach}
	case o.Incomplete == discovery.ReasonACLFiltered:
		token.Severity, token.Detail, token.Remedy = Wrong, "Consul hides results from it (filtered by ACLs)", "use "+fmt.Sprintf(aclPolicy, o.Selection.Service)
	case o.Incomplete != "":
		reach.Severity, reach.Detail = Warning, o.IncompleteDetail
		reach.Remedy = "Consul has no leader: see `consul operator raft list-peers`"
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
	f := Finding{Check: "blocking", Subject: o.Endpoint, Severity: OK}
	if b.Failed == "" {
		f.Detail = fmt.Sprintf("blocking queries work: one was not cut short within %s (poll_interval: %s)", words.Brief(min(b.Held, b.Wait)), b.Wait)
		return f
	}
	f.Severity = Warning
	f.Detail = fmt.Sprintf("blocking queries fail after %s, while others are answered: %s", words.Brief(b.Held), strings.TrimPrefix(b.Failed, "consul at "+o.Endpoint+": "))
	// Consul adds up to a sixteenth to the wait.
	if below := (b.Held * 16 / 17).Truncate(time.Second); below >= time.Second && below < b.Wait {
		f.Remedy = fmt.Sprintf("if a proxy in front of Consul cuts them short, set `poll_interval` below its limit (here: %s), or raise the limit to more than %s",
			below, (b.Wait + b.Wait/16).Round(time.Second))
	} else {
		f.Remedy = "have the proxy in front of Consul let queries with `index` and `wait` pass, or see the log of the Consul agent; until then, changes are noticed by polling"
	}
	return f
}

func (o *Observation) service() Finding {
	f := Finding{Check: "service", Subject: orElse(o.Selection.Service, o.Name), Severity: OK, Detail: words.Plural(len(o.Nodes), "instance") + ": " + o.names()}
	if len(o.Nodes) == 0 {
		f.Severity, f.Detail = Wrong, "no instance is registered, or none that the token may see"
		f.Remedy = "give Vault a service_registration \"consul\" (or a service definition), or name the service with `consul { service NAME }`"
		if o.Incomplete == discovery.ReasonACLFiltered {
			f.Detail, f.Remedy = "no instance is visible", "see token"
		}
	}
	return f
}

// mostNames is how many nodes are named in a line.
const mostNames = 10

func (o *Observation) names() string {
	var names []string
	for i := range o.Nodes {
		if i == mostNames {
			names = append(names, fmt.Sprintf("and %d more", len(o.Nodes)-i))
			break
		}
		names = append(names, o.Nodes[i].Label)
	}
	return strings.Join(names, ", ")
}

// remedyOfConsul says what to do about a failure to ask Consul.
func remedyOfConsul(endpoint, text string) string {
	has := func(what ...string) bool {
		for _, w := range what {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
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
		return "Consul has no leader: see `consul operator raft list-peers`"
	}
	return "see the log of the Consul agent"
}
