// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// Role is what a node says that it is, by the status code of GET /v1/sys/health.
type Role struct {
	Code   int
	Result Result // of a probe that gets this answer
	Text   string
	Remedy string // what makes the node one that can become active, given its URL as %s; empty: it can
}

// statusPerformanceStandby is Vault Enterprise's.
const statusPerformanceStandby = 473

// roles has the codes of Vault. See https://developer.hashicorp.com/vault/api-docs/system/health.
var roles = []Role{
	{http.StatusOK, ResultActive, "active", ""},
	{http.StatusTooManyRequests, ResultStandby, "standby", ""},
	{472, ResultStandby, "disaster recovery secondary", "register it as a service of its own: a secondary of another cluster never becomes active here"},
	{statusPerformanceStandby, ResultStandby, "performance standby", ""},
	{474, ResultStandby, "standby that cannot reach the active node", "let it reach the active node on the cluster port (8201)"},
	{http.StatusNotImplemented, ResultUninitialized, "not initialized", "initialize it, or join it to the cluster: `vault operator raft join -address=%s ...`"},
	{http.StatusServiceUnavailable, ResultSealed, "sealed", "unseal it: `vault operator unseal -address=%s`"},
	{530, ResultRemoved, "removed from the cluster", "join it to the cluster again, or deregister it"},
}

// RoleOf returns the role with a code. Its Result is ResultInvalid if the code is none of Vault's.
func RoleOf(code int) Role {
	if i := slices.IndexFunc(roles, func(r Role) bool { return r.Code == code }); i >= 0 {
		return roles[i]
	}
	return Role{code, ResultInvalid, "unknown", "see the log of that Vault"}
}

func (r Role) String() string { return fmt.Sprintf("%s (%d)", r.Text, r.Code) }

// Health is an answer of GET /v1/sys/health.
type Health struct {
	Role
	Vault     bool // it is one of Vault's
	Version   string
	ClusterID string
	HasClock  bool
	Ahead     time.Duration // of the clock here; negative: behind

	clock time.Time // what it shows
}

// unclear are the answers by which Vault does not tell its state, by what their text has in it, and what makes it tell its state.
var unclear = []struct{ text, remedy string }{
	{"quota", "exempt sys/health from the quota: `vault write sys/quotas/config rate_limit_exempt_paths=sys/health`"},
	{"x-forwarded-for", "set `x_forwarded_for_reject_not_present = false` in the listener, so that what comes without the header is answered"},
}

// readHealth reads a whole answer. Anything can answer anything: a code says what a node is only with Vault's own document, and a
// document of errors is Vault's, but says nothing of its state. That a node is initialized and unsealed, the document has to say, too.
func readHealth(code int, body []byte) *Health {
	var d struct {
		Initialized, Sealed, Standby *bool
		ClusterID                    string `json:"cluster_id"`
		Errors                       []string
	}
	if json.Unmarshal(body, &d) != nil || d.Initialized == nil || d.Sealed == nil || d.Standby == nil {
		r := Role{Code: code, Result: ResultInvalid, Text: "not from Vault", Remedy: "see the log of that Vault"}
		if len(d.Errors) == 0 || wantsTLS(code, body) {
			return &Health{Role: r}
		}
		r.Result, r.Text = ResultUnclear, strconv.Quote(sanitize.Line(d.Errors[0]))
		for _, u := range unclear {
			if strings.Contains(strings.ToLower(d.Errors[0]), u.text) {
				r.Remedy = u.remedy
			}
		}
		return &Health{Role: r}
	}
	var more struct {
		Version string
		Time    int64 `json:"server_time_utc"`
	}
	_ = json.Unmarshal(body, &more) // on which no role depends, whatever its type
	h := &Health{
		Role: RoleOf(code), Vault: true, Version: sanitize.Line(more.Version), ClusterID: sanitize.Line(d.ClusterID),
		HasClock: more.Time > 0, clock: time.Unix(more.Time, 0),
	}
	switch says := h.Result; {
	case says != ResultActive && says != ResultStandby:
	case !*d.Initialized:
		h.Role = RoleOf(http.StatusNotImplemented)
	case *d.Sealed:
		h.Role = RoleOf(http.StatusServiceUnavailable)
	case says == ResultActive && *d.Standby:
		h.Role = RoleOf(http.StatusTooManyRequests)
	}
	h.Code = code
	return h
}

// compareClocks finds by how much the clock is ahead. The request began and ended then. Both clocks are told in whole seconds: what lies
// within the time of the request is no difference.
func (h *Health) compareClocks(began, ended time.Time) {
	switch {
	case !h.HasClock:
	case h.clock.Before(began.Add(-time.Second)):
		h.Ahead = h.clock.Sub(began)
	case h.clock.After(ended.Add(time.Second)):
		h.Ahead = h.clock.Sub(ended)
	}
}
