// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

const vaultVersion = "1.21.0"

// ServeHTTP answers as a node would; it is exported for net/http's sake.
func (v *Vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Vault-Stand-In", v.name)
	w.Header().Set("Cache-Control", "no-store")
	if !v.arrive(r) {
		return
	}
	v.mu.Lock()
	g, active, sealed, reads := v.group, v.active, v.sealed, v.reads
	v.mu.Unlock()

	switch r.URL.Path {
	case "/v1/sys/health":
		v.health(w, r)
		return
	case "/v1/sys/seal-status":
		reply(w, http.StatusOK, map[string]any{
			"type": "shamir", "initialized": true, "sealed": sealed, "t": 1, "n": 1, "progress": 0, "nonce": "",
			"version": vaultVersion, "storage_type": "inmem_ha", "cluster_name": "stand-in",
		})
		return
	}
	if sealed {
		fail(w, http.StatusServiceUnavailable, "Vault is sealed")
		return
	}
	if r.URL.Path == "/v1/sys/leader" {
		v.leader(w, g)
		return
	}
	if !active && !(reads && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "LIST")) {
		v.forward(w, r, g)
		return
	}
	switch {
	case r.URL.Path == "/v1/sys/internal/ui/mounts":
		reply(w, http.StatusOK, map[string]any{"data": map[string]any{"auth": map[string]any{}, "secret": map[string]any{"secret/": map[string]any{"type": "kv"}}}})
	case strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/secret"): // vault kv asks for the version of the engine
		reply(w, http.StatusOK, map[string]any{"data": map[string]any{"path": "secret/", "type": "kv", "options": map[string]any{"version": "1"}}})
	case r.URL.Path == "/v1/sys/step-down" && (r.Method == http.MethodPut || r.Method == http.MethodPost):
		g.mu.Lock()
		stepDown := g.stepDown
		g.mu.Unlock()
		if stepDown == nil {
			v.SetActive(false)
		} else {
			stepDown(v)
		}
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(r.URL.Path, secretPath):
		g.store.serve(w, r)
	default:
		fail(w, http.StatusNotFound, "no handler for route \""+strings.TrimPrefix(r.URL.Path, "/v1/")+"\". route entry not found.")
	}
}

// health answers with the codes of https://developer.hashicorp.com/vault/api-docs/system/health.
func (v *Vault) health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fail(w, http.StatusMethodNotAllowed)
		return
	}
	v.mu.Lock()
	code := v.forced
	switch {
	case code != 0:
	case v.sealed:
		code = http.StatusServiceUnavailable
	case v.active:
		code = http.StatusOK
	default:
		code = http.StatusTooManyRequests
	}
	cluster := v.cluster
	v.mu.Unlock()

	replication := "disabled"
	if code == 472 {
		replication = "secondary"
	}
	document := map[string]any{
		"cluster_id":                   cluster,
		"initialized":                  code != http.StatusNotImplemented,
		"sealed":                       code == http.StatusServiceUnavailable || code == http.StatusNotImplemented,
		"standby":                      code != http.StatusOK && code != 472,
		"performance_standby":          code == 473,
		"replication_performance_mode": "disabled",
		"replication_dr_mode":          replication,
		"server_time_utc":              time.Now().Unix(),
		"version":                      vaultVersion,
		"enterprise":                   false,
		"cluster_name":                 "stand-in",
		"echo_duration_ms":             0,
		"clock_skew_ms":                0,
	}
	if code == 530 {
		document["removed_from_cluster"] = true
	}
	if _, ok := r.URL.Query()["standbyok"]; ok && code == http.StatusTooManyRequests {
		code = http.StatusOK
	}
	reply(w, code, document)
}

func (v *Vault) leader(w http.ResponseWriter, g *group) {
	document := map[string]any{
		"ha_enabled": true, "is_self": false, "active_time": time.Time{}, "leader_address": "",
		"leader_cluster_address": "", "performance_standby": false, "performance_standby_last_remote_wal": 0,
	}
	if l := g.leader(); l != nil {
		document["is_self"] = l == v
		document["leader_address"] = l.URL()
		if l == v {
			v.mu.Lock()
			document["active_time"] = v.since.UTC()
			v.mu.Unlock()
		}
	}
	reply(w, http.StatusOK, document)
}

// forward sends the client on to the leader. Real standbys forward inside the cluster by default and answer so only when
// forwarding is off or asked not to; a client cannot tell the difference in the result.
func (v *Vault) forward(w http.ResponseWriter, r *http.Request, g *group) {
	l := g.leader()
	if l == nil {
		fail(w, http.StatusInternalServerError, "local node not active but active cluster node not found")
		return
	}
	w.Header().Set("Location", l.URL()+r.URL.RequestURI())
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// reply writes Vault's JSON; to HEAD net/http sends the headers alone.
func reply(w http.ResponseWriter, code int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(document)
}

// fail writes Vault's error document; without a message its list is empty, as for a missing secret.
func fail(w http.ResponseWriter, code int, messages ...string) {
	if messages == nil {
		messages = []string{}
	}
	reply(w, code, map[string]any{"errors": messages})
}
