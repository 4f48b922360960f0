// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package consul queries Consul for the instances of a service, with blocking queries.
package consul

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// Settings of a source.
type Settings struct {
	Endpoint    Endpoint
	Service     string
	Datacenter  string
	Namespace   string
	Partition   string
	Peer        string
	Consistency string
	Token       string
	TokenFile   string // read before each query; Token is used until it could be read
	Auth        *api.HttpBasicAuth
	TLS         *tls.Config
}

// Values of Settings.Consistency.
const (
	ConsistencyDefault    = "default"
	ConsistencyStale      = "stale"
	ConsistencyConsistent = "consistent"
)

// Source is the connection to one Consul agent. It implements [discovery.Source].
type Source struct {
	settings   Settings
	client     *http.Client
	token      tokenFile
	seen       map[discovery.Identity]bool // the instances of the last complete answer
	incomplete bool                        // the last answer was incomplete
}

// New returns the source for the settings. It uses no network.
func New(s Settings) *Source {
	dialer := &net.Dialer{
		Timeout: 5 * time.Second,
		// No data comes while a blocking query waits: keepalives find within 15 seconds that the other side is gone.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 5},
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     s.TLS,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     90 * time.Second,
	}
	if s.Endpoint.Socket != "" {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", s.Endpoint.Socket)
		}
	}
	c := &Source{
		settings: s,
		token:    tokenFile{path: s.TokenFile, wait: tokenTimeout, load: ReadToken},
		client: &http.Client{
			Transport: transport,
			// Following a redirect would send the token to its target.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	c.token.last.Store(&s.Token)
	return c
}

// Close implements [discovery.Source].
func (c *Source) Close() { c.client.CloseIdleConnections() }

// Query implements [discovery.Source].
//
// Consul answers a blocking query from a stream of events, and then shows neither whether results were hidden from the token nor
// whether there is a leader: an agent that has lost all of its servers goes on answering what it last heard. So Query sends
// another query, which does not wait, if such an answer lacks an instance that was there before, if it is not newer than the
// last one, or if the last one was incomplete.
func (c *Source) Query(ctx context.Context, index uint64, wait time.Duration) (discovery.Answer, error) {
	a, header, err := c.ask(ctx, index, wait)
	if err == nil && streamed(header) && (a.Index <= index || c.incomplete || c.misses(a.Nodes)) {
		a, header, err = c.ask(ctx, 0, 0)
		a.ExtraQueries = 1
	}
	if err != nil {
		return a, err
	}
	switch {
	case header.Get("X-Consul-Results-Filtered-By-ACLs") == "true":
		a.Incomplete, a.Detail = discovery.ReasonACLFiltered, "the token sees only part of the answer: it needs service:read on the service and node:read on its nodes"
	case header.Get("X-Consul-KnownLeader") == "false" && !streamed(header):
		a.Incomplete, a.Detail = discovery.ReasonConsulError, "a stale answer from a server that knows no leader"
	default:
		c.seen = discovery.Identities(a.Nodes)
	}
	c.incomplete = a.Incomplete != ""
	return a, nil
}

// streamed reports whether an answer is from Consul's streaming backend.
func streamed(h http.Header) bool { return h.Get("X-Consul-Query-Backend") == "streaming" }

// misses reports whether an instance of the last complete answer is not among the nodes.
func (c *Source) misses(nodes []discovery.Node) bool {
	keys := discovery.Identities(nodes)
	for key := range c.seen {
		if !keys[key] {
			return true
		}
	}
	return false
}

// ask sends one query.
// See https://developer.hashicorp.com/consul/api-docs/health#list-service-instances-for-service.
func (c *Source) ask(ctx context.Context, index uint64, wait time.Duration) (discovery.Answer, http.Header, error) {
	token := c.token.read(ctx)
	entries, header, err := c.entries(ctx, c.url(index, wait), token)
	if err != nil {
		// The connection may be broken: the next query gets a new one.
		c.client.CloseIdleConnections()
		return discovery.Answer{}, nil, c.queryError(err, token)
	}
	nodes, err := nodesOf(entries)
	if err != nil {
		return discovery.Answer{}, nil, &discovery.Error{Reason: discovery.ReasonConsulError, Err: fmt.Errorf("consul at %s: %w", c.settings.Endpoint, err)}
	}
	a := discovery.Answer{Nodes: nodes}
	a.Index, _ = strconv.ParseUint(header.Get("X-Consul-Index"), 10, 64) // if it is not a number, there is none
	return a, header, nil
}

// url returns the URL of a query.
func (c *Source) url(index uint64, wait time.Duration) string {
	s, query := c.settings, url.Values{}
	for name, value := range map[string]string{"dc": s.Datacenter, "ns": s.Namespace, "partition": s.Partition, "peer": s.Peer} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if s.Consistency != ConsistencyDefault {
		query.Set(s.Consistency, "")
	}
	if index > 0 {
		query.Set("index", strconv.FormatUint(index, 10))
		query.Set("wait", wait.String())
	}
	u := url.URL{Scheme: s.Endpoint.Scheme, Host: s.Endpoint.Host, Path: s.Endpoint.Prefix + "/v1/health/service/" + s.Service, RawQuery: query.Encode()}
	return u.String()
}

// The limits of an answer. A thousand instances of Vault take about 2 MiB.
const (
	maxAnswer      = 16 << 20
	maxErrorAnswer = 64 << 10
)

// entries returns the answer to a query, with its headers. It does without Consul's own client, which bounds no answer, takes a token
// from the environment where none is to be sent, and does not get past a header that it cannot parse.
func (c *Source) entries(ctx context.Context, query, token string) (list []*entry, header http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, query, nil)
	if err != nil {
		return nil, nil, err
	}
	if token != "" {
		req.Header.Set("X-Consul-Token", token)
	}
	if auth := c.settings.Auth; auth != nil {
		req.SetBasicAuth(auth.Username, auth.Password)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols { // the body would not end with the context
		return nil, nil, api.StatusError{Code: resp.StatusCode}
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorAnswer))
		return nil, nil, api.StatusError{Code: resp.StatusCode, Body: strings.TrimSpace(string(text))}
	}
	body := &io.LimitedReader{R: resp.Body, N: maxAnswer + 1}
	err = json.NewDecoder(body).Decode(&list)
	_, _ = io.Copy(io.Discard, body) // so that the connection can be used again
	if body.N == 0 {
		err = errors.New("the answer is too large") // what is cut off must not look complete
	}
	return list, resp.Header, err
}

// queryError gives an error its reason and a text, without secrets that the other side may have sent back.
func (c *Source) queryError(err error, token string) error {
	reason, text := discovery.ReasonConsulError, "unusable answer: "+err.Error()
	status, refused := errors.AsType[api.StatusError](err)
	network, unreachable := errors.AsType[*url.Error](err)
	switch {
	case refused && status.Code >= 300 && status.Code < 400:
		text = fmt.Sprintf("answered %d: redirects are not followed", status.Code)
	case refused:
		text = fmt.Sprintf("answered %d: %s", status.Code, cmp.Or(status.Body, "no text"))
		if status.Code == http.StatusForbidden || status.Code == http.StatusUnauthorized {
			reason = discovery.ReasonACLDenied
		}
	case errors.Is(err, context.DeadlineExceeded):
		reason, text = discovery.ReasonConsulUnreachable, "no answer in time"
	case unreachable:
		reason, text = discovery.ReasonConsulUnreachable, network.Err.Error()
	}
	text = redact(text, token)
	if c.settings.Auth != nil {
		text = redact(text, c.settings.Auth.Password)
	}
	shown := fmt.Errorf("consul at %s: %s", c.settings.Endpoint, sanitize.Line(text))
	if errors.Is(err, context.DeadlineExceeded) {
		shown = &timeoutError{shown}
	}
	return &discovery.Error{Reason: reason, Err: shown}
}

// timeoutError is the error of a query that was not answered in time.
type timeoutError struct{ error }

func (*timeoutError) Unwrap() error { return context.DeadlineExceeded }

func redact(text, secret string) string {
	if secret == "" {
		return text
	}
	return strings.ReplaceAll(text, secret, "[redacted]")
}
