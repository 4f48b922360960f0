// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package discovery is the contract between vault_redirect and modules that find the nodes of a Vault cluster.
//
// A discovery is a Caddy module in the namespace http.vault_redirect.discovery whose type implements [Discoverer]. The
// plugin brings two of them, consul and vault; a module of your own is named in the config by its ID in the same way:
//
//	{"handler": "vault_redirect", "discovery": {"source": "my_inventory", ...}}
//
// The plugin opens a [Source] of it and queries that for as long as any config uses it. A query returns the full set of
// nodes, never a change to it: the plugin compares answers itself. Which node is active is decided by the plugin, from
// what marks the node ([Selection]) and from what the node itself answers when it is probed. A discovery that knows nothing
// but addresses selects by [ByProbe].
//
// A Discoverer may implement more: [SourceNamer], by which the status document names it; [ClusterNamer], for the name of a
// cluster that the config does not name; [SchemeChecker], where it knows the scheme of its nodes; and [Unverified], where it
// may be told not to verify the server that it asks.
//
// # Rules for implementers
//
//   - Provision and Open use no network: caddy validate calls both.
//   - The source outlives the module that opened it. A config reload provisions a new module; as long as its Key is the
//     same, the source of the first one stays in use. So a source must not keep the module's caddy.Context.
//   - Every wait ends when the context of the query does.
//   - A failed query is an error, not an empty answer. An empty answer says that no node is registered, and counts at once;
//     after an error the last known node stays in use for the max_stale of the config.
//   - No secret may appear in a key, an endpoint, a detail or an error: all of them are shown.
package discovery

import (
	"context"
	"time"
)

// Discoverer is implemented by a discovery module: it says where the nodes of a Vault cluster are asked for.
type Discoverer interface {
	// Key identifies the source, its credentials and its settings: discoverers with equal keys share one source. It contains
	// no secret in readable form; use a digest.
	Key() string
	// Cluster identifies the cluster that is watched, independent of credentials and settings. After a reload that changes
	// the key but not the cluster, the new source starts from what was known through the old one. Empty: each source starts
	// without any knowledge.
	Cluster() string
	// Selection says what marks the active node. Discoverers that differ in nothing else share a source.
	Selection() Selection
	// MaxWait is the longest time between two queries, which a query waits for a change. At least 1s is used.
	MaxWait() time.Duration
	// Endpoint is the address of the source, for people.
	Endpoint() string
	// Open returns the source. It uses no network yet.
	Open() (Source, error)
}

// SourceNamer is implemented by a [Discoverer] whose kind has a name.
type SourceNamer interface {
	// SourceName is the name by which the status document shows where nodes come from, such as consul: best the last part of
	// the module's ID. Without it, the document says other.
	SourceName() string
}

// SourceName returns the name of a discoverer's source, or other.
func SourceName(d Discoverer) string {
	if n, ok := d.(SourceNamer); ok {
		return n.SourceName()
	}
	return "other"
}

// ClusterNamer is implemented by a [Discoverer] that has a name for its cluster.
type ClusterNamer interface {
	// ClusterName is the default of the option name: the cluster's name in logs, metrics and the status document. Without it,
	// the default is the endpoint.
	ClusterName() string
}

// ClusterName returns the name of a discoverer's cluster, or its endpoint.
func ClusterName(d Discoverer) string {
	if n, ok := d.(ClusterNamer); ok {
		return n.ClusterName()
	}
	return d.Endpoint()
}

// SchemeChecker is implemented by a [Discoverer] that knows by which scheme its nodes are reached.
type SchemeChecker interface {
	// CheckScheme returns an error if the option scheme contradicts what is known. An empty scheme is that of no option.
	CheckScheme(scheme string) error
}

// Unverified is implemented by a [Discoverer] that can be told not to verify the server that it asks.
type Unverified interface {
	// Unverified reports whether the server's certificate is not verified. Then a warning is logged when the config is loaded.
	Unverified() bool
}

// Source answers queries for all nodes of a Vault cluster. It is used by one goroutine at a time.
type Source interface {
	// Query returns the full set of nodes. With an index above 0 it waits, for about as long as wait at most, until there is
	// an answer that is newer than the one with this index. An error may be an [*Error], which gives it a reason.
	Query(ctx context.Context, index uint64, wait time.Duration) (Answer, error)
	// Close releases the connections. It is called when no query is running.
	Close()
}

// Answer is the outcome of a query.
type Answer struct {
	// Nodes is the full set, in the same order each time.
	Nodes []Node
	// Index of the answer, which is given to the next query. 0 if the source has none: then it is polled.
	Index uint64
	// Incomplete is why the answer may lack nodes or be outdated. Empty: it is complete. With acl_filtered, nodes may be
	// missing, but those that are there are right. With any other reason the whole answer may be outdated, such as one of a
	// Consul server that knows no leader: it is used like the last answer before an outage, for max_stale.
	Incomplete Reason
	// Detail explains Incomplete, for people.
	Detail string
	// ExtraQueries is how many queries the answer took beyond the first one: all of them count towards the limit on the
	// rate of queries. It is read with an error, too.
	ExtraQueries int
}

// Error is a failed query with the reason to show for it.
type Error struct {
	// Reason is one of acl_denied, consul_unreachable and consul_error.
	Reason Reason
	// Err is what went wrong. Its text is shown, so it must not contain a secret.
	Err error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Selection says what marks the active node among those that are eligible.
type Selection struct {
	// Mode is one of ByAuto, ByTag, ByCheck and ByProbe.
	Mode string
	// Tag that the active node carries, for ByTag and ByAuto.
	Tag string
	// CheckID of the check that passes on the active node only, for ByCheck and ByAuto.
	CheckID string
	// Service is the name of the service; without CheckID, its default check is "service:<name>".
	Service string
}

// Modes of a [Selection].
const (
	ByAuto  = "auto"  // by tag if any node has a tag that tells active nodes from standbys, else by check
	ByTag   = "tag"   // the active node carries a tag
	ByCheck = "check" // a check passes on the active node only
	ByProbe = "probe" // nothing marks the active node: the nodes themselves say which is
)

// Reason says why there is an active node or why there is none. The set is closed: it appears in the status document, in
// logs and as a label of metrics.
type Reason string

// The reasons.
const (
	ReasonOK                Reason = "ok"                 // a node is active
	ReasonStarting          Reason = "starting"           // no answer yet, and no failure either
	ReasonNoService         Reason = "no_service"         // no node is registered
	ReasonNoActive          Reason = "no_active"          // nodes, but none of them is the active one
	ReasonUnhealthy         Reason = "unhealthy"          // the node that should be active is critical, in maintenance or dead
	ReasonBadAddress        Reason = "bad_address"        // the active node has no usable address or port
	ReasonACLDenied         Reason = "acl_denied"         // Consul refused the token
	ReasonACLFiltered       Reason = "acl_filtered"       // Consul hid results from the token, so that nodes may be missing
	ReasonConsulUnreachable Reason = "consul_unreachable" // no answer from Consul
	ReasonConsulError       Reason = "consul_error"       // an answer from Consul that cannot be used
	ReasonStaleExpired      Reason = "stale_expired"      // the last known node is older than max_stale allows
)

// Reasons is the whole set, in the order of the documentation.
var Reasons = []Reason{
	ReasonOK, ReasonStarting, ReasonNoService, ReasonNoActive, ReasonUnhealthy, ReasonBadAddress, ReasonACLDenied,
	ReasonACLFiltered, ReasonConsulUnreachable, ReasonConsulError, ReasonStaleExpired,
}
