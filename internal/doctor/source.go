// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what there is to say of the discovery: Consul, or the list of URLs.

package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// aclPolicy is what the token needs.
const aclPolicy = `a token whose policy has service_prefix %q { policy = "read" } and node_prefix "" { policy = "read" }: token_file in the config, --token-file, or CONSUL_HTTP_TOKEN`

// discovery says whether discovery answers, what the token may see, and which instances there are.
func (s *Seen) discovery() []Finding {
	source := orElse(s.Source, "discovery")
	if source == "vault" { // asks nobody: names are looked up with each node
		return []Finding{{"nodes", s.Name, OK, fmt.Sprintf("named by URL, without Consul: %s", s.names()), ""}}
	}
	reach := Finding{Check: source, Subject: s.Endpoint, Severity: OK, Detail: fmt.Sprintf("answered in %s, and knows a leader", brief(s.Took))}
	token := Finding{Check: "token", Subject: s.Endpoint, Severity: OK, Detail: "may see the service and its nodes: nothing was hidden"}
	switch {
	case !s.Asked:
		reach.Severity, reach.Detail = Wrong, fmt.Sprintf("no answer within %s", brief(s.Took))
		reach.Remedy = remedyOfConsul(s.Endpoint, "no answer in time")
		return []Finding{reach}
	case s.Failure == discovery.ReasonACLDenied:
		reach.Detail = fmt.Sprintf("answered in %s", brief(s.Took))
		token.Severity, token.Detail, token.Remedy = Wrong, "refused: "+s.FailedWith, "use "+fmt.Sprintf(aclPolicy, s.Selection.Service)
		return []Finding{reach, token}
	case s.Failure != "":
		reach.Severity, reach.Detail = Wrong, s.FailedWith
		reach.Remedy = remedyOfConsul(s.Endpoint, s.FailedWith)
		return []Finding{reach}
	case s.Doubt == discovery.ReasonACLFiltered:
		token.Severity, token.Detail, token.Remedy = Wrong, "Consul hides results from it (filtered by ACLs)", "use "+fmt.Sprintf(aclPolicy, s.Selection.Service)
	case s.Doubt != "":
		reach.Severity, reach.Detail = Warning, s.DoubtWhy
		reach.Remedy = "Consul has no leader: look at `consul operator raft list-peers`"
	}
	return []Finding{reach, token, s.service()}
}

func (s *Seen) service() Finding {
	f := Finding{Check: "service", Subject: orElse(s.Selection.Service, s.Name), Severity: OK, Detail: count(len(s.Nodes), "instance") + ": " + s.names()}
	if len(s.Nodes) == 0 {
		f.Severity, f.Detail = Wrong, "no instance is registered, or none that the token may see"
		f.Remedy = "give Vault a service_registration \"consul\" (or a service definition), or name the service with `consul { service NAME }`"
		if s.Doubt == discovery.ReasonACLFiltered {
			f.Detail, f.Remedy = "no instance is visible", "see token"
		}
	}
	return f
}

// mostNames is how many nodes are named in a line.
const mostNames = 10

func (s *Seen) names() string {
	var names []string
	for i := range s.Nodes {
		if i == mostNames {
			names = append(names, fmt.Sprintf("and %d more", len(s.Nodes)-i))
			break
		}
		names = append(names, s.Nodes[i].Label)
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
		return fmt.Sprintf("correct the name in %s, or have DNS know it", endpoint)
	case has("no answer in time", "timeout", "no route", "unreachable"):
		return fmt.Sprintf("look whether the Consul agent at %s runs, and whether a firewall lets this machine reach it", endpoint)
	case has("HTTP response to HTTPS client"):
		return "that port speaks http: use http:// and port 8500, without a tls block and CONSUL_HTTP_SSL; or the agent's port for https, 8501"
	case has("malformed HTTP response", "HTTP request to an HTTPS server"):
		return "that port speaks https: use https:// and port 8501, or CONSUL_HTTP_SSL=true"
	case has("x509", "certificate"):
		return "trust Consul's CA: `consul { tls { ca FILE } }` or CONSUL_CACERT; for a client certificate cert and key, or CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
	case has("leader"):
		return "Consul has no leader: look at `consul operator raft list-peers`"
	}
	return "look at the log of the Consul agent"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// brief writes a duration without more digits than matter.
func brief(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "less than 1ms"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
