// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"hash/maphash"
	"net/http"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// standbyFor returns the standby that gets a request which a standby may answer, nil if the active node gets it.
func standbyFor(s *engine.State, r *http.Request) *engine.Standby {
	if len(s.Standbys()) == 0 || !ServedByStandbys(r.URL.Path) {
		return nil
	}
	to := s.StandbyFor(keyOf(r))
	if loop, _ := leadsBack(&to.Target, r); loop || onlyLocal(&to.Target, r) {
		return nil
	}
	return to
}

// ServedByStandbys reports whether requests for a path, unescaped, may go to a standby: it is one of Vault's API, and not of what a
// node says of itself or of its cluster, below sys, in whatever namespace. A path with .. leads anywhere, such as to the UI.
func ServedByStandbys(path string) bool {
	return strings.HasPrefix(path, apiPrefix) && !leadsElsewhere(path)
}

const apiPrefix = "/v1/"

// leadsElsewhere reports whether a path has a segment sys, in whatever case, or a segment with two dots.
func leadsElsewhere(path string) bool {
	begin := 0
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		if s := path[begin:i]; s == ".." || len(s) == 3 && strings.EqualFold(s, "sys") {
			return true
		}
		begin = i + 1
	}
	return false
}

// NeverServedByStandbys reports whether no path that a pattern of Caddy's matcher path matches is served by standbys.
func NeverServedByStandbys(pattern string) bool {
	pattern = strings.ToLower(pattern)
	end := strings.IndexAny(pattern, `*?[\{`)
	if end < 0 {
		return !ServedByStandbys(pattern)
	}
	folder := pattern[:strings.LastIndexByte(pattern[:end], '/')+1]
	return leadsElsewhere(folder) || !strings.HasPrefix(folder, apiPrefix) && !strings.HasPrefix(apiPrefix, folder)
}

// keySeed keeps anybody from finding out which tokens have the same key.
var keySeed = maphash.MakeSeed()

// keyOf returns the key by which a request gets its standby: a hash of its token, or of its client's address if it has none. The key
// is used for this request only.
func keyOf(r *http.Request) uint64 {
	if values := r.Header["X-Vault-Token"]; len(values) > 0 && values[0] != "" {
		return maphash.String(keySeed, values[0])
	}
	if values := r.Header["Authorization"]; len(values) > 0 {
		if token, ok := strings.CutPrefix(values[0], "Bearer "); ok {
			return maphash.String(keySeed, token)
		}
	}
	return maphash.String(keySeed, ClientAddress(r))
}
