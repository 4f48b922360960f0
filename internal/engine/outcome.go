// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// Result is the outcome of one probe: a closed set, used in the status and as a label of metrics.
type Result string

// The results.
const (
	ResultNone          Result = ""
	ResultActive        Result = "active"
	ResultStandby       Result = "standby" // of any kind
	ResultSealed        Result = "sealed"
	ResultUninitialized Result = "uninitialized"
	ResultRemoved       Result = "removed" // from the cluster
	ResultTimeout       Result = "timeout"
	ResultRefused       Result = "refused"    // or reset, or closed without an answer
	ResultTLS           Result = "tls"        // it lives, but its certificate is not trusted, it wants one of ours, or it speaks plain http
	ResultUnclear       Result = "unclear"    // Vault answers, but not with its state
	ResultRedirector    Result = "redirector" // a redirector answers
	ResultInvalid       Result = "invalid"    // something answers that is not Vault
	ResultOther         Result = "other"      // no route, no address
)

// Results is the whole set.
var Results = []Result{
	ResultActive, ResultStandby, ResultSealed, ResultUninitialized, ResultRemoved, ResultTimeout, ResultRefused, ResultTLS,
	ResultUnclear, ResultRedirector, ResultInvalid, ResultOther,
}

// answered reports whether the node has shown that it lives.
func (r Result) answered() bool {
	return r != ResultNone && r != ResultTimeout && r != ResultRefused && r != ResultOther
}

// denies reports whether the node says of itself that it is not active.
func (r Result) denies() bool {
	return r == ResultStandby || r == ResultSealed || r == ResultUninitialized || r == ResultRemoved
}

// ProbeOutcome is what one probe found. Two outcomes that mean the same are equal, but for when and how fast.
type ProbeOutcome struct {
	Result    Result
	Code      int           // status of the answer, 0 if there was none
	Detail    string        // for people: why the node is not active. It has no address of this machine in it
	Unproven  Result        // what a node that is not trusted says: a reason to wait a moment, and no more
	ClusterID string        // of a node that says that it is active, or a standby
	Leader    string        // URL of the active node as the active node names it, if that was asked for
	At        time.Time     // when the probe began
	Took      time.Duration // until it ended
}

// same reports whether two outcomes mean the same.
func (o ProbeOutcome) same(p ProbeOutcome) bool {
	o.At, o.Took, p.At, p.Took = time.Time{}, 0, time.Time{}, 0
	return o == p
}

// healthPath is where nodes are asked what they are.
const healthPath = "/v1/sys/health"

// A redirector that is taken for a node answers a request that has the first header by one that has the second, so that a loop is
// known to every prober, also through a balancer.
const (
	ProbeHeader      = "Vault-Redirect-Probe"
	RedirectorHeader = "Vault-Redirector"
)

// maxProbeAnswer bounds what is read of an answer, its headers and its body each. The longest is that to [mountsPath], with some 400
// bytes for each mount that is shown to everybody.
const maxProbeAnswer = 256 << 10

// mountsPath is where a standby is asked whether it serves reads itself. Anybody may ask, and what is read there is forwarded to
// the active node by those that do not serve it.
const mountsPath = "/v1/sys/internal/ui/mounts"

// NoForwardingHeader is the header by which a standby answers with a redirect where it would forward.
const NoForwardingHeader = "X-Vault-No-Request-Forwarding"

// Reading is what a standby does with reads.
type reading int

const (
	readsUnknown   reading = iota // it has not been asked, or gives no such answer
	readsForwarded                // to the active node
	readsServed                   // by itself
)

// reading asks a standby what it does with reads. It sends no token.
func (c *probeConn) reading(ctx context.Context, base string) reading {
	code, body, failed := c.answer(ctx, base+mountsPath, NoForwardingHeader)
	var answer struct {
		Data struct{ Auth, Secret map[string]json.RawMessage }
	}
	switch {
	case failed != nil:
	case code == http.StatusTemporaryRedirect:
		return readsForwarded
	case code == http.StatusOK && json.Unmarshal(body, &answer) == nil && answer.Data.Auth != nil && answer.Data.Secret != nil:
		return readsServed
	}
	return readsUnknown
}

// ask asks a node once. It sends no token.
// See https://developer.hashicorp.com/vault/api-docs/system/health and https://developer.hashicorp.com/vault/api-docs/system/leader.
func (c *probeConn) ask(ctx context.Context, base string, leader bool) ProbeOutcome {
	began := time.Now()
	o := ProbeOutcome{}
	if code, body, failed := c.answer(ctx, base+healthPath); failed != nil {
		o = *failed
	} else {
		o = outcomeOf(code, body)
	}
	if o.Result == ResultActive && leader {
		o = c.leader(ctx, base, o)
	}
	o.At, o.Took = began, time.Since(began)
	return o
}

// askAgain asks over a connection that has answered before. It finds nothing if there is none, or if it has broken.
func (c *probeConn) askAgain(ctx context.Context, base string, leader bool) ProbeOutcome {
	if c == nil || c.broke.Load() {
		return ProbeOutcome{}
	}
	return c.ask(ctx, base, leader)
}

// leader asks a node that says that it is active for the address of the active node, and completes what was found.
func (c *probeConn) leader(ctx context.Context, base string, o ProbeOutcome) ProbeOutcome {
	code, body, failed := c.answer(ctx, base+"/v1/sys/leader")
	if failed != nil {
		failed.Detail = "/v1/sys/leader: " + failed.Detail
		return *failed
	}
	var answer struct {
		IsSelf  bool   `json:"is_self"`
		Address string `json:"leader_address"`
	}
	switch {
	case code != http.StatusOK || json.Unmarshal(body, &answer) != nil:
		return ProbeOutcome{Result: ResultInvalid, Code: code, Detail: fmt.Sprintf("/v1/sys/leader: %d, no answer of Vault's", code)}
	case !answer.IsSelf:
		return ProbeOutcome{Result: ResultStandby, Code: o.Code, Detail: "/v1/sys/leader: the node says that another one is active"}
	case answer.Address == "":
		return ProbeOutcome{Result: ResultInvalid, Code: code, Detail: "/v1/sys/leader: no leader_address: the listener has redact_addresses, with which redirect_to leader does not work"}
	}
	o.Leader = answer.Address
	return o
}

// answer returns a whole answer over a trusted connection, or what was found instead.
func (c *probeConn) answer(ctx context.Context, target string, headers ...string) (code int, body []byte, failed *ProbeOutcome) {
	code, header, body, err := c.get(ctx, target, headers...)
	redirector := header.Get(RedirectorHeader) != ""
	switch distrust := c.distrust.Load(); {
	case redirector && distrust == nil:
		const detail = "a redirector answers at this address: correct api_addr in Vault's configuration"
		return 0, nil, &ProbeOutcome{Result: ResultRedirector, Code: http.StatusLoopDetected, Detail: detail}
	case err != nil && (code == 0 || distrust == nil): // half an answer is none
		o := outcomeOfError(err)
		return 0, nil, &o
	case distrust != nil:
		said := outcomeOf(code, body).Result
		return 0, nil, &ProbeOutcome{Result: ResultTLS, Detail: "certificate not trusted: " + *distrust, Unproven: said}
	}
	return code, body, nil
}

// get returns the answer to one request, in which some headers are set. The code of an answer whose rest could not be read is
// returned, too.
func (c *probeConn) get(ctx context.Context, target string, headers ...string) (code int, header http.Header, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	for _, name := range append(headers, ProbeHeader) {
		req.Header.Set(name, "1")
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols { // from here on neither context nor deadline would hold
		return resp.StatusCode, resp.Header, nil, nil
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxProbeAnswer))
	return resp.StatusCode, resp.Header, body, err
}

// outcomeOf reads an answer of /v1/sys/health.
func outcomeOf(code int, body []byte) ProbeOutcome {
	h := readHealth(code, body)
	o := ProbeOutcome{Result: h.Result, Code: code}
	if h.Result == ResultActive || h.Result == ResultStandby {
		o.ClusterID = h.ClusterID
	}
	switch {
	case h.Result == ResultActive:
	case h.Result == ResultUnclear:
		o.Detail = fmt.Sprintf("%d, Vault does not tell its state: %s", code, h.Text)
	case code == http.StatusOK:
		o.Detail = "200, but " + h.Text
	case wantsTLS(code, body):
		o.Detail = "400: the node answers https, and is asked by http"
	case h.Result == ResultInvalid:
		o.Detail = fmt.Sprintf("%d, which is no answer of Vault's", code)
	default:
		o.Detail = fmt.Sprintf("%d, %s", code, h.Text)
	}
	return o
}

// What the details of failures begin with where another error follows.
const (
	lookupFailed = "the name cannot be looked up: "
	tlsFailed    = "TLS: "
)

// ours are errors of this machine, which say nothing of a node: it has no more descriptors, ports or memory.
var ours = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL}

// outcomeOfError says what a failed probe means. Its text has no address in it: each connection has another port, and what
// is the same must look the same.
func outcomeOfError(err error) ProbeOutcome {
	operation, isOperation := errors.AsType[*net.OpError](err)
	lookup, isLookup := errors.AsType[*net.DNSError](err)
	text := err.Error()
	if isOperation {
		text = operation.Err.Error()
	}
	text = sanitize.Line(text)
	switch {
	case slices.ContainsFunc(ours, func(e error) bool { return errors.Is(err, e) }):
		return ProbeOutcome{Detail: "this machine cannot connect to anything: " + text}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded):
		return ProbeOutcome{Result: ResultTimeout, Detail: "no answer in time"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return ProbeOutcome{Result: ResultRefused, Detail: "connection refused"}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		strings.Contains(err.Error(), "server closed idle connection"): // before the request was on its way
		return ProbeOutcome{Result: ResultRefused, Detail: "connection closed without an answer"}
	case isLookup:
		return ProbeOutcome{Result: ResultOther, Detail: lookupFailed + sanitize.Line(lookup.Err)}
	case wantsNoTLS(err):
		return ProbeOutcome{Result: ResultTLS, Detail: "the node answers http, and is asked by https"}
	case strings.Contains(err.Error(), "tls: "): // crypto/tls has no types for alerts
		return ProbeOutcome{Result: ResultTLS, Detail: tlsFailed + text}
	case isOperation:
		return ProbeOutcome{Result: ResultOther, Detail: text}
	}
	return ProbeOutcome{Result: ResultInvalid, Detail: "an answer that is not HTTP, or has no end"}
}

// wantsNoTLS reports whether a handshake of TLS has failed since the other side speaks plain http.
func wantsNoTLS(err error) bool {
	header, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok && string(header.RecordHeader[:]) == "HTTP/"
}

// wantsTLS reports whether an answer in plain http is that of a server that speaks https, be it Go's or a proxy's.
func wantsTLS(code int, body []byte) bool {
	return code == http.StatusBadRequest && bytes.Contains(body, []byte("HTTPS"))
}
