// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/vault-redirector/caddy-vault-redirect/internal/metrics"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin adds endpoints to Caddy's admin API that show which node is active, and why the others are not:
//
//   - GET /vault_redirect/status: all clusters
//   - GET /vault_redirect/status/{cluster}: one of them
//   - GET /vault_redirect/history?cluster=NAME&limit=N: the last changes of the active node, the newest first
//
// They answer 200 even if no node is active: the document says so. They change nothing and show no secret, so that
// {"paths": ["/vault_redirect"], "methods": ["GET", "HEAD"]} is a read-only grant for remote administration. There are no
// options.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.vault_redirect",
		New: func() caddy.Module { return new(Admin) },
	}
}

// Provision registers the metrics. Caddy provisions this module before all apps, with the registry that the admin endpoint keeps
// if one of the apps fails.
func (*Admin) Provision(ctx caddy.Context) error { return metrics.Register(ctx) }

// Paths of the documents.
const (
	statusPath  = "/vault_redirect/status"
	historyPath = "/vault_redirect/history"
)

// Routes implements [caddy.AdminRouter].
func (*Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: statusPath, Handler: caddy.AdminHandlerFunc(serveStatus)},
		{Pattern: statusPath + "/", Handler: caddy.AdminHandlerFunc(serveStatus)},
		{Pattern: historyPath, Handler: caddy.AdminHandlerFunc(serveHistory)},
	}
}

// noCluster is the beginning of the error for an unknown cluster.
const noCluster = "there is no cluster"

// serveStatus answers with the status of all clusters or of one. It writes errors itself: Caddy would log those that it returns.
func serveStatus(w http.ResponseWriter, r *http.Request) error {
	if !ReadOnly(w, r) {
		return nil
	}
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, statusPath), "/")
	if name == "" {
		return writeDocument(w, Now())
	}
	var names []string
	for _, c := range registry.Clusters() {
		if c.Name == name {
			return writeDocument(w, clusterOf(&c, time.Now()))
		}
		names = append(names, c.Name)
	}
	return WriteProblem(w, http.StatusNotFound, fmt.Sprintf(noCluster+" %q; there are: %s", name, strings.Join(names, ", ")))
}

// maxHistory is how many changes are shown at most, and without a limit.
const maxHistory = 1000

// serveHistory answers with the changes of all clusters, or of one, the newest first.
func serveHistory(w http.ResponseWriter, r *http.Request) error {
	if !ReadOnly(w, r) {
		return nil
	}
	limit := maxHistory
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxHistory {
			return WriteProblem(w, http.StatusBadRequest, fmt.Sprintf("limit: %q is not a number from 1 to %d", text, maxHistory))
		}
		limit = n
	}
	name := r.URL.Query().Get("cluster")
	list, known := []Change{}, name == ""
	for _, c := range registry.Clusters() {
		if name == "" || c.Name == name {
			list, known = append(list, changesOf(&c)...), true
		}
	}
	if !known {
		return WriteProblem(w, http.StatusNotFound, fmt.Sprintf(noCluster+" %q", name))
	}
	slices.SortStableFunc(list, func(a, b Change) int { return b.At.Compare(a.At) })
	return writeDocument(w, list[:min(len(list), limit)])
}

// ReadOnly refuses every method but GET and HEAD.
func ReadOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	_ = WriteProblem(w, http.StatusMethodNotAllowed, "this endpoint answers GET and HEAD")
	return false
}

// Encode returns a document of this package as it is served.
func Encode(document any) []byte {
	body, _ := json.MarshalIndent(document, "", "  ") // which cannot fail: there is nothing but text, numbers and times of this age
	return append(body, '\n')
}

func writeDocument(w http.ResponseWriter, document any) error {
	return redirect.WriteJSON(w, http.StatusOK, Encode(document))
}

// WriteProblem answers with an error in the form of the admin API.
func WriteProblem(w http.ResponseWriter, code int, text string) error {
	body, _ := json.Marshal(map[string]string{"error": text}) // which cannot fail
	return redirect.WriteJSON(w, code, append(body, '\n'))
}

// Interface guards
var (
	_ caddy.Provisioner = (*Admin)(nil)
	_ caddy.AdminRouter = (*Admin)(nil)
)
