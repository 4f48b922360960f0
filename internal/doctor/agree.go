// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// maxSkew is how far apart clocks may be.
const maxSkew = 30 * time.Second

// schemes says whether clients can follow from the sites' schemes to those of the nodes.
func (o *Observation) schemes() []Finding {
	if !slices.ContainsFunc(o.Sites, func(site Site) bool { return !site.Proxy }) {
		return nil
	}
	http := slices.ContainsFunc(o.Nodes, func(n *Node) bool { return strings.HasPrefix(n.URL, "http://") })
	switch {
	case http && o.redirectsFromHTTPS():
		return []Finding{o.finding("scheme", Wrong, "the site serves https, but redirects lead to http: Vault's own client refuses that",
			"give Vault TLS and set `scheme https`; or serve the site by http://")}
	case slices.ContainsFunc(o.Nodes, func(n *Node) bool { return n.OtherScheme }):
		return nil // those nodes have findings of their own
	}
	return []Finding{o.finding("scheme", OK, "clients can follow from the site's scheme to that of the nodes", "")}
}

// redirectsFromHTTPS reports whether a site serves https and redirects.
func (o *Observation) redirectsFromHTTPS() bool {
	return slices.ContainsFunc(o.Sites, func(site Site) bool { return site.TLS && !site.Proxy })
}

// versions says whether the nodes are of one version and of one cluster.
func (o *Observation) versions() []Finding {
	return slices.Concat(
		o.same(func(h *engine.Health) string { return h.Version }, "all nodes that say it: ",
			o.finding("version", Warning, "", "finish the upgrade: bring all nodes to one version")),
		o.same(func(h *engine.Health) string { return h.ClusterID }, "all nodes that say it are of one cluster: ",
			o.finding("cluster", Wrong, "the nodes are of different Vault clusters: ",
				"register each cluster as a service of its own: `service` in service_registration \"consul\" of Vault, and in the config here")),
	)
}

// same says whether all nodes have the same value; if not, the values with their nodes are added to a finding.
func (o *Observation) same(value func(*engine.Health) string, detail string, different Finding) []Finding {
	by := map[string][]string{}
	for _, n := range o.Nodes {
		if n.Health != nil && value(n.Health) != "" {
			by[value(n.Health)] = append(by[value(n.Health)], n.Label)
		}
	}
	values := slices.Sorted(maps.Keys(by))
	switch len(values) {
	case 0:
		return nil
	case 1:
		return []Finding{o.finding(different.Check, OK, detail+values[0], "")}
	}
	for i, value := range values {
		values[i] = value + " (" + strings.Join(by[value], ", ") + ")"
	}
	different.Detail += strings.Join(values, ", ")
	return []Finding{different}
}

func (o *Observation) clocks() []Finding {
	var most time.Duration
	var off []string
	known := false
	for _, n := range o.Nodes {
		h := n.Health
		if h == nil || !h.HasClock {
			continue
		}
		known, most = true, max(most, h.Ahead.Abs())
		switch {
		case h.Ahead > maxSkew:
			off = append(off, fmt.Sprintf("%s is %s ahead", n.Label, h.Ahead.Round(time.Second)))
		case h.Ahead < -maxSkew:
			off = append(off, fmt.Sprintf("%s is %s behind", n.Label, h.Ahead.Abs().Round(time.Second)))
		}
	}
	switch {
	case !known:
		return nil
	case len(off) > 0:
		return []Finding{o.finding("clock", Warning, "against the clock here: "+strings.Join(off, ", "),
			"synchronize both by NTP: tokens and certificates expire by the clock")}
	}
	return []Finding{o.finding("clock", OK, fmt.Sprintf("nodes and this machine agree within %s", max(time.Second, most.Round(time.Second))), "")}
}
