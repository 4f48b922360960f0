// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxSkew is how far apart clocks may be.
const maxSkew = 30 * time.Second

// schemes says whether clients can follow from the sites' schemes to those of the nodes.
func (o *Observation) schemes() []Finding {
	redirecting := slices.ContainsFunc(o.Sites, func(site Site) bool { return !site.Proxy })
	if !redirecting {
		return nil
	}
	https := slices.ContainsFunc(o.Sites, func(site Site) bool { return site.TLS && !site.Proxy })
	http := slices.ContainsFunc(o.Nodes, func(n Node) bool { return strings.HasPrefix(n.URL, "http://") })
	f := Finding{Check: "scheme", Subject: o.Name, Severity: OK, Detail: "clients can follow from the site's scheme to that of the nodes"}
	if https && http {
		f.Severity, f.Detail = Wrong, "the site serves https, but redirects lead to http: Vault's own client refuses that"
		f.Remedy = "give Vault TLS and set `scheme https`; or serve the site by http://"
	}
	if f.Severity == OK && slices.ContainsFunc(o.Nodes, func(n Node) bool { return n.OtherScheme }) {
		return nil // those nodes have findings of their own
	}
	return []Finding{f}
}

// versions says whether the nodes are of one version and of one cluster.
func (o *Observation) versions() (list []Finding) {
	versions, clusters := map[string][]string{}, map[string][]string{}
	for i := range o.Nodes {
		h := o.Nodes[i].Health
		if h == nil {
			continue
		}
		if h.Version != "" {
			versions[h.Version] = append(versions[h.Version], o.Nodes[i].Label)
		}
		if h.ClusterID != "" {
			clusters[h.ClusterID] = append(clusters[h.ClusterID], o.Nodes[i].Label)
		}
	}
	switch f := (Finding{Check: "version", Subject: o.Name, Severity: OK, Detail: grouped(versions)}); len(versions) {
	case 0:
	case 1:
		f.Detail = "all nodes that say it: " + slices.Collect(maps.Keys(versions))[0]
		list = append(list, f)
	default:
		f.Severity, f.Remedy = Warning, "finish the upgrade: bring all nodes to one version"
		list = append(list, f)
	}
	switch f := (Finding{Check: "cluster", Subject: o.Name, Severity: OK}); len(clusters) {
	case 0:
	case 1:
		f.Detail = "all nodes that say it are of one cluster: " + slices.Collect(maps.Keys(clusters))[0]
		list = append(list, f)
	default:
		f.Severity, f.Detail = Wrong, "the nodes are of different Vault clusters: "+grouped(clusters)
		f.Remedy = "register each cluster as a service of its own: `service` in service_registration \"consul\" of Vault, and in the config here"
		list = append(list, f)
	}
	return list
}

// grouped lists values with the nodes that have them.
func grouped(by map[string][]string) string {
	var parts []string
	for _, value := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, value+" ("+strings.Join(by[value], ", ")+")")
	}
	return strings.Join(parts, ", ")
}

// clocks says whether the clocks agree.
func (o *Observation) clocks() []Finding {
	var most time.Duration
	var off []string
	known := false
	for i := range o.Nodes {
		h := o.Nodes[i].Health
		if h == nil || !h.HasClock {
			continue
		}
		known, most = true, max(most, h.Ahead.Abs())
		switch {
		case h.Ahead > maxSkew:
			off = append(off, fmt.Sprintf("%s is %s ahead", o.Nodes[i].Label, h.Ahead.Round(time.Second)))
		case h.Ahead < -maxSkew:
			off = append(off, fmt.Sprintf("%s is %s behind", o.Nodes[i].Label, h.Ahead.Abs().Round(time.Second)))
		}
	}
	f := Finding{Check: "clock", Subject: o.Name, Severity: OK, Detail: fmt.Sprintf("nodes and this machine agree within %s", max(time.Second, most.Round(time.Second)))}
	switch {
	case !known:
		return nil
	case len(off) > 0:
		f.Severity, f.Detail = Warning, "against the clock here: "+strings.Join(off, ", ")
		f.Remedy = "synchronize both by NTP: tokens and certificates expire by the clock"
	}
	return []Finding{f}
}
