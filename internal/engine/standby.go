// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"hash/maphash"
	"net/http"
	"slices"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// Standby is a node that is fit to serve reads: an unsealed standby of the active node's cluster that serves them itself rather
// than forward them.
type Standby struct {
	Node   discovery.Node
	Target Target
	hash   uint64 // of the node's identity, by the seed of this process
}

// standbySeed makes the choice of standbys differ from process to process, so that no client can choose its standby.
var standbySeed = maphash.MakeSeed()

// Reasons for which a standby gets no reads.
const (
	ForwardsReads = "forwards reads to the active node"
	UnknownReads  = "does not tell whether it serves reads itself" // perhaps it has not been asked yet
)

// findStandbys finds the standbys that are fit to serve reads beside the active node, sorted by identity, and notes of each member
// whether it is one of them.
func (v *View) findStandbys(active *member) (standbys []Standby) {
	members := make([]*member, len(v.members))
	for i := range v.members {
		members[i] = &v.members[i]
	}
	slices.SortFunc(members, func(a, b *member) int {
		return cmp.Or(cmp.Compare(a.node.Name, b.node.Name), cmp.Compare(a.node.ID, b.node.ID))
	})
	for _, m := range members {
		if m.fit, m.unfit = false, ""; m == active {
			continue
		}
		m.unfit = m.whyUnfit(active)
		if m.unfit == "" && slices.ContainsFunc(standbys, func(s Standby) bool { return s.Target.URL == m.target.URL }) {
			m.unfit = "another registration of the same Vault"
		}
		if m.fit = m.unfit == ""; m.fit {
			standbys = append(standbys, Standby{m.node, m.target, maphash.Comparable(standbySeed, m.node.Identity())})
		}
	}
	return standbys
}

// whyUnfit says why a member that is not the active node is not to serve reads beside it; empty: it is fit to.
func (m *member) whyUnfit(active *member) string {
	o := &m.outcome
	switch {
	case active == nil:
		return "no node is active"
	case m.health == healthMaintenance:
		return "in maintenance in Consul"
	case m.bad != "":
		return m.bad
	case m.health == healthCritical:
		return m.critical()
	case m.gone:
		return "no longer registered"
	case m.hidden:
		return "not in the last answer of discovery"
	case m.target.URL == active.target.URL:
		return "registered with the address of the active node"
	case m.verdict.kind == verdictPending || o.Result == ResultNone:
		return "has not answered a probe yet"
	case m.claims():
		return "says that it is active"
	case m.verdict.kind != verdictNotActive, o.Result != ResultStandby, o.Code != http.StatusTooManyRequests && o.Code != statusPerformanceStandby:
		return "probe: " + o.Detail
	case !active.claims() || active.cluster == "":
		return "probes cannot tell the cluster of the active node"
	case o.ClusterID != active.cluster:
		return "of another Vault cluster than the active node, by its cluster_id"
	case m.silent:
		return "does not answer its probe"
	case m.reads == readsForwarded:
		return ForwardsReads
	case m.reads != readsServed:
		return UnknownReads
	}
	return ""
}

// Standbys returns the standbys that are fit to serve reads, sorted by identity; there are none unless a node is active and the
// view's config has Standbys. The slice is not to be changed.
func (s *State) Standbys() []Standby {
	if !s.Active() {
		return nil
	}
	return s.standbys
}

// StandbyFor returns the standby that serves reads with a key, such as the hash of a token: nil if none is fit or no node is
// active. It depends on nothing but the state and the key, by rendezvous hashing: a standby that is no longer fit moves the keys
// that it served, and no others. Whether a request is a read that a standby may serve is for the caller to say.
func (s *State) StandbyFor(key uint64) (best *Standby) {
	most := uint64(0)
	for i, standbys := 0, s.Standbys(); i < len(standbys); i++ {
		if weight := mix(key ^ standbys[i].hash); best == nil || weight > most {
			best, most = &standbys[i], weight
		}
	}
	return best
}

// mix makes each bit of a number depend on all bits of another one: the end of SplitMix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
