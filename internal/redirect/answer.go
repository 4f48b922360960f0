// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

// reasons has the meaning of each reason for having no active node, for people, and whether it may concern this instance only.
var reasons = map[discovery.Reason]struct {
	text     string
	ownFault bool
}{
	discovery.ReasonStarting:          {"discovery has not answered yet", true},
	discovery.ReasonNoService:         {"no instance of the service is registered in Consul, or the token cannot see any", false},
	discovery.ReasonNoActive:          {"no node reports itself active, and none is marked active in Consul", false},
	discovery.ReasonUnhealthy:         {"the node that should be active is in maintenance, fails its health checks or does not answer", false},
	discovery.ReasonBadAddress:        {"the active node is registered with an address that clients cannot use: correct api_addr in Vault's configuration", false},
	discovery.ReasonACLDenied:         {"Consul refuses the redirector's token", true},
	discovery.ReasonACLFiltered:       {"Consul hides the nodes from the redirector's token", true},
	discovery.ReasonConsulUnreachable: {"Consul cannot be reached", true},
	discovery.ReasonConsulError:       {"Consul gives no usable answer", true},
	discovery.ReasonStaleExpired:      {"Consul cannot be asked, and the last known node is older than max_stale", true},
}

// Explain returns the meaning of a reason, for people.
func Explain(r discovery.Reason) string { return cmp.Or(reasons[r].text, string(r)) }

// MayBeOwnFault reports whether a reason for having no active node may concern this instance only: another may have one.
func MayBeOwnFault(r discovery.Reason) bool { return reasons[r].ownFault }

// CloseConnection makes an answer over HTTP/1 or 2 the last one on its connection.
func CloseConnection(header http.Header) { header.Set("Connection", "close") }

// WriteErrors answers in the form of Vault's own errors, so that clients of Vault show the text. It writes the answer rather
// than return an error, since Caddy logs the whole request, token included, with errors of 500 and above.
func WriteErrors(w http.ResponseWriter, code int, text string) error {
	body, err := json.Marshal(map[string][]string{"errors": {text}})
	if err != nil {
		body = []byte(`{"errors":[]}`)
	}
	return WriteJSON(w, code, append(body, '\n'))
}

// WriteJSON writes an answer. Errors are ignored: the client is gone.
func WriteJSON(w http.ResponseWriter, code int, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(body)
	return nil
}
