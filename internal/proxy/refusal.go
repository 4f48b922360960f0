// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// refusal is an answer of a node that is not active any more. It is an error of the try.
type refusal struct {
	reason engine.Retry
	undone bool           // nothing was carried out: the request may be sent again, whatever its method
	text   string         // the error in the answer
	answer *http.Response // as it came, for the client if there is no other; nil: it is a redirect, which the client may not be able to follow
}

func (r *refusal) Error() string { return r.text }

// noForwarding is the value of [engine.NoForwardingHeader], which nobody changes. Only with that header does a redirect prove that
// nothing was done: a standby redirects as well if its connection to the active node broke after that had got the request.
// See http/handler.go:1033 and 1070 to 1084 in Vault 1.21.0, and forwardRequest in internal/http/handler.go of OpenBao.
// Performance standbys of Vault Enterprise ignore it, by their manual.
var noForwarding = []string{"true"}

// maxRedirects is how many redirects of a node are taken for those of a failover: for 2.5 s. A node that still redirects, and is still
// believed to be active, is a standby that is marked as active, or a balancer in front of all nodes. Then standbys may forward.
const maxRedirects = 6

// refusals are the errors of nodes that are not active, by their text. The lines are those of Vault 1.21.0; OpenBao has the same code
// in internal/http/handler.go and internal/vault/request_handling.go (read at its commits 1c075bae and d543bbdd).
//
// Other answers prove nothing. With 429, a quota refuses, which a proxy must not get around; with 412, Vault Enterprise asks the client
// to wait; 472 to 474 are answers of sys/health alone (http/sys_health.go), which is asked for them. Text of storage and plugins,
// such as "node is not the leader", may come after a part of the work was done.
var refusals = map[string]struct {
	code    int
	reason  engine.Retry
	undone  bool
	forward bool // undone holds also if a standby may have forwarded the request
}{
	// A standby that knows no active node says it before it looks at the request (http/handler.go:1018).
	"local node not active but active cluster node not found": {http.StatusInternalServerError, engine.RetryNotActive, true, true},
	// A request that has waited for the end of a step-down or a stop gets it before it is handled (vault/request_handling.go:620).
	"active context canceled after getting state lock": {http.StatusInternalServerError, engine.RetryNotActive, true, true},
	// It takes the place of a standby's redirect if no active node is known (http/handler.go:1216).
	"no active Vault instance found": {http.StatusServiceUnavailable, engine.RetryNotActive, true, false},
	// It is said before a request is handled (vault/ha.go:176, vault/request_handling.go:613), and by a barrier that was sealed while one was
	// handled (vault/barrier.go:18). Vault waits for all requests before it seals its barrier (vault/core.go:2419), but some handlers of
	// sys look once more after they have done their work (http/sys_rekey.go), and OpenBao seals the barriers of namespaces while requests
	// are handled, and looks again before each step of a workflow.
	"Vault is sealed": {http.StatusServiceUnavailable, engine.RetrySealed, false, false},
}

// refusalOf returns the refusal if an answer is one, else nil.
func (p *request) refusalOf(resp *http.Response) (*refusal, error) {
	switch resp.StatusCode {
	case http.StatusTemporaryRedirect:
		return p.redirected(resp), nil
	case http.StatusInternalServerError, http.StatusServiceUnavailable:
	default:
		return nil, nil
	}
	p.replied.Store(false) // until it is known that the answer is passed on
	text, err := errorIn(resp)
	if err != nil {
		return nil, err
	}
	known, ok := refusals[text]
	if !ok || known.code != resp.StatusCode {
		return nil, nil
	}
	return &refusal{reason: known.reason, undone: known.undone && (known.forward || !p.forwards), text: text, answer: resp}, nil
}

// redirected returns the refusal of a standby that redirects a request to the active node, which the client of a proxy may not reach.
// A standby's redirect keeps the path, but for a namespace that comes before it. Other redirects are answers: those of Vault lead to
// another path on the same host, those of a plugin of an auth method, which may have done something, anywhere.
func (p *request) redirected(resp *http.Response) *refusal {
	to, err := url.Parse(resp.Header.Get("Location"))
	switch {
	case err != nil || to.Host == "" || !strings.HasSuffix(to.Path, strings.TrimPrefix(resp.Request.URL.Path, "/v1")):
		return nil
	case to.Host == p.target.Authority: // the nodes share an address, at which only forwarding leads to the active one
		p.redirects = maxRedirects
	default:
		p.redirects++
	}
	return &refusal{reason: engine.RetryNotActive, undone: !p.forwards, text: "the Vault node is a standby, and redirects instead of forwarding"}
}

// maxShort is how long the header and the body of an answer may be that is read before it is passed on. Vault's errors are shorter.
const maxShort = 4 << 10

// errorIn returns the error in an answer in the form of Vault's errors, if it is a short answer with one error, and else nothing. The
// answer's body can be read afterwards as before.
func errorIn(resp *http.Response) (string, error) {
	if resp.Request.Method == http.MethodHead || resp.ContentLength <= 0 || resp.ContentLength > maxShort || len(resp.Trailer) > 0 || sizeOf(resp.Header) > maxShort {
		return "", nil
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return "", err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var document struct{ Errors []string }
	if json.Unmarshal(body, &document) != nil || len(document.Errors) != 1 {
		return "", nil
	}
	return document.Errors[0], nil
}

func sizeOf(header http.Header) (n int) {
	for name, values := range header {
		for _, value := range values {
			n += len(name) + len(value)
		}
	}
	return n
}
