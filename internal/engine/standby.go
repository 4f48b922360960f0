// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"hash/maphash"

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
