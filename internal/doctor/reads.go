// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Matcher is one set of matchers of the option standby: what it says of methods and paths. Empty: nothing.
type Matcher struct {
	Methods, Paths []string
	More           bool // it has other matchers, too
}

// reads says which nodes get reads, and why others do not, if the option standby is set.
func (o *Observation) reads() (list []Finding) {
	if !o.Standbys {
		return nil
	}
	forwarding, fit := 0, 0
	for _, n := range o.Nodes {
		switch {
		case n.Elected:
		case n.Reads:
			fit++
			list = append(list, n.finding("reads", OK, "serves reads: those that the option standby names are redirected to it", ""))
		case n.WhyNoReads == engine.ForwardsReads:
			forwarding++
			list = append(list, n.finding("reads", OK, "gets no reads: "+n.WhyNoReads, ""))
		default:
			list = append(list, n.finding("reads", Warning, "gets no reads: "+n.WhyNoReads, "see its other lines"))
		}
	}
	if forwarding > 0 && fit == 0 {
		list = append(list, o.finding("reads", Warning, "the option standby does nothing: no standby serves reads itself",
			"remove it; or use OpenBao from 2.5, without `disable_standby_reads`, or performance standbys of Vault Enterprise"))
	}
	for _, s := range o.Sites {
		for _, m := range s.Reads {
			if text := m.writes(); text != "" {
				list = append(list, o.finding("reads", Warning, "a matcher of the option standby "+text+": standbys forward these requests to the active node, which takes a hop more",
					"name reads only, such as `standby method GET LIST`, or `standby expression \"method('GET', 'LIST') && path('/v1/secret/data/*')\"`"))
			}
		}
	}
	return list
}

// writes says which writes a set of matchers lets through, empty if it is not known to let any through.
func (m *Matcher) writes() string {
	leased := slices.DeleteFunc(slices.Clone(m.Paths), func(path string) bool { return !named(path, leases) })
	if len(leased) > 0 {
		return "names paths of which each request is a write: " + strings.Join(leased, ", ")
	}
	if m.More || len(m.Methods) > 0 && !slices.ContainsFunc(m.Methods, func(method string) bool { return !slices.Contains(readMethods, strings.ToUpper(method)) }) {
		return ""
	}
	paths := slices.DeleteFunc(slices.Clone(m.Paths), func(path string) bool { return named(path, pure) })
	if len(m.Paths) > 0 && len(paths) == 0 {
		return ""
	}
	return fmt.Sprintf("lets %s through for %s", cmp.Or(strings.Join(m.Methods, ", "), "every method"), cmp.Or(strings.Join(paths, ", "), "all paths"))
}

var (
	readMethods = []string{http.MethodGet, http.MethodHead, "LIST", http.MethodOptions}
	// leases are segments of paths where a GET makes a lease or a token.
	leases = []string{"creds", "sts", "login", "issue"}
	// pure are segments of paths where a POST changes nothing, in the secrets engine transit. Its sign is not among them: that of pki
	// stores a certificate.
	pure = []string{"encrypt", "decrypt", "rewrap", "verify", "hmac", "hash", "random", "datakey"}
)

// named reports whether a path has one of the segments.
func named(path string, segments []string) bool {
	return slices.ContainsFunc(strings.Split(strings.ToLower(path), "/"), func(s string) bool { return slices.Contains(segments, s) })
}
