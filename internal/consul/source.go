// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the client of Consul: one blocking query, its limits, and how its outcome is read.

package vaultredirect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// The limits of an answer. A thousand instances of Vault take about 2 MiB.
const (
	maxAnswer      = 16 << 20
	maxErrorAnswer = 64 << 10
	maxErrorText   = 300
)

// consulSource is the connection to one Consul agent.
type consulSource struct {
	settings  *consulSettings
	client    *api.Client
	transport *http.Transport
	dialer    *net.Dialer     // of the transport
	token     string          // last read from the token file
	seen      map[string]bool // keys of the instances in the last answer without doubt
	doubted   bool            // the last answer was in doubt
}

func newConsulSource(s *consulSettings) (*consulSource, error) {
	dialer := &net.Dialer{
		Timeout: 5 * time.Second,
		// A blocking query is silent for long: find out within 15 seconds that the other side is gone.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 5},
	}
	c := &consulSource{settings: s, dialer: dialer, transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     s.tls,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     90 * time.Second,
	}}
	if s.endpoint.socket != "" {
		c.transport.Proxy = nil
		c.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", s.endpoint.socket)
		}
	}
	address := s.endpoint.host
	if s.endpoint.prefix != "" {
		address = s.endpoint.scheme + "://" + s.endpoint.host + s.endpoint.prefix
	}
	var err error
	c.client, err = api.NewClient(&api.Config{
		Address:   address,
		Scheme:    s.endpoint.scheme,
		HttpAuth:  s.auth,
		Token:     s.Token, // lest the client looks for one itself
		TokenFile: s.TokenFile,
		HttpClient: &http.Client{
			Transport: boundedTransport{c.transport},
			// A redirect would carry the token to wherever it points.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		return nil, fmt.Errorf("consul client for %s: %w", s.endpoint, err)
	}
	return c, nil
}

// Close implements [Source].
func (c *consulSource) Close() { c.transport.CloseIdleConnections() }

// Query implements [Source].
//
// Consul answers a query that waits from a stream of events, and then says neither whether the token hid something nor
// whether there is a leader: an agent that has lost all of its servers goes on answering what it last heard. Where such
// an answer lacks an instance that was there before, another query, which does not wait, tells whether it is really
// gone; where it brings nothing new, whether there is still anybody to bring it; and after a doubt, whether that is over.
func (c *consulSource) Query(ctx context.Context, index uint64, wait time.Duration) (Answer, error) {
	a, header, err := c.ask(ctx, index, wait)
	if err == nil && streamed(header) && (a.Index <= index || c.doubted || c.misses(a.Nodes)) {
		a, header, err = c.ask(ctx, 0, 0)
		a.Again = 1
	}
	if err != nil {
		return a, err
	}
	switch {
	case header.Get("X-Consul-Results-Filtered-By-ACLs") == "true":
		a.Doubt, a.Detail = ReasonACLFiltered, "the token sees only part of the answer: it needs service:read on the service and node:read on its nodes"
	case header.Get("X-Consul-KnownLeader") == "false" && !streamed(header):
		a.Doubt, a.Detail = ReasonConsulError, "a stale answer from a server that knows no leader"
	default:
		c.seen = keysOf(a.Nodes)
	}
	c.doubted = a.Doubt != ""
	return a, nil
}

// streamed reports whether an answer is from Consul's streaming backend.
func streamed(h http.Header) bool { return h.Get("X-Consul-Query-Backend") == "streaming" }

// misses reports whether an instance of the last answer without doubt is not among the nodes.
func (c *consulSource) misses(nodes []Node) bool {
	keys := keysOf(nodes)
	for key := range c.seen {
		if !keys[key] {
			return true
		}
	}
	return false
}

func keysOf(nodes []Node) map[string]bool {
	keys := make(map[string]bool, len(nodes))
	for i := range nodes {
		keys[nodes[i].key()] = true
	}
	return keys
}

// ask sends one query.
// See https://developer.hashicorp.com/consul/api-docs/health#list-service-instances-for-service.
func (c *consulSource) ask(ctx context.Context, index uint64, wait time.Duration) (Answer, http.Header, error) {
	s := c.settings
	options := &api.QueryOptions{
		Datacenter: s.Datacenter, Namespace: s.Namespace, Partition: s.Partition, Peer: s.Peer,
		AllowStale:        s.Consistency == consistencyStale,
		RequireConsistent: s.Consistency == consistencyConsistent,
		WaitIndex:         index,
		Token:             c.currentToken(),
	}
	if index > 0 {
		options.WaitTime = wait
	}
	// The headers are read here since the client stops at the first one that it cannot parse.
	var header http.Header
	ctx = context.WithValue(ctx, headerKey{}, &header)
	entries, _, err := c.client.Health().Service(s.Service, "", false, options.WithContext(ctx))
	if err != nil {
		// Whatever is wrong with the connection, the next query is to have another one.
		c.transport.CloseIdleConnections()
		return Answer{}, nil, c.queryError(err, options.Token)
	}
	nodes, err := nodesOf(entries)
	if err != nil {
		return Answer{}, nil, &QueryError{ReasonConsulError, fmt.Errorf("consul at %s: %w", s.endpoint, err)}
	}
	a := Answer{Nodes: nodes}
	a.Index, _ = strconv.ParseUint(header.Get("X-Consul-Index"), 10, 64) // one that is not a number is none
	return a, header, nil
}

// currentToken returns the token for the next query. While its file is being replaced, the last one is still good.
func (c *consulSource) currentToken() string {
	if c.settings.TokenFile == "" {
		return c.settings.Token
	}
	if token, err := readToken(c.settings.TokenFile); err == nil {
		c.token = token
	}
	return c.token
}

// queryError gives an error its reason and a text, from which secrets that the other side sent back are taken out.
func (c *consulSource) queryError(err error, token string) error {
	var (
		reason  = ReasonConsulError
		status  api.StatusError
		network *url.Error
		text    string
	)
	switch {
	case errors.As(err, &status):
		text = fmt.Sprintf("answered %d: %s", status.Code, cmp.Or(status.Body, "no text"))
		switch {
		case status.Code == http.StatusForbidden || status.Code == http.StatusUnauthorized:
			reason = ReasonACLDenied
		case status.Code >= 300 && status.Code < 400:
			text = fmt.Sprintf("answered %d: redirects are not followed", status.Code)
		}
	case errors.Is(err, context.DeadlineExceeded):
		reason, text = ReasonConsulUnreachable, "no answer in time"
	case errors.As(err, &network):
		reason, text = ReasonConsulUnreachable, network.Err.Error()
	default:
		text = "unusable answer: " + err.Error()
	}
	text = redact(text, token)
	if c.settings.auth != nil {
		text = redact(text, c.settings.auth.Password)
	}
	return &QueryError{reason, fmt.Errorf("consul at %s: %s", c.settings.endpoint, oneLine(text))}
}

func redact(text, secret string) string {
	if secret == "" {
		return text
	}
	return strings.ReplaceAll(text, secret, "[redacted]")
}

// oneLine makes the text of an error page fit for a log line.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	return text
}

// nodesOf translates Consul's answer. Anything that is not a set of service instances is an error, not an empty set.
func nodesOf(entries []*api.ServiceEntry) ([]Node, error) {
	if entries == nil {
		return nil, errors.New("unusable answer: null instead of a list")
	}
	nodes := make([]Node, 0, len(entries))
	for i, e := range entries {
		if e == nil || e.Node == nil || e.Service == nil || e.Node.Node == "" {
			return nil, fmt.Errorf("unusable answer: entry %d is not an instance of a service", i)
		}
		n := Node{
			Name: e.Node.Node, ID: e.Service.ID, Address: e.Node.Address, Datacenter: e.Node.Datacenter,
			ServiceAddress: e.Service.Address, Port: e.Service.Port, Tags: e.Service.Tags,
			Meta: map[string]string{}, Tagged: map[string]TaggedAddress{}, Index: e.Service.ModifyIndex,
		}
		maps.Copy(n.Meta, e.Node.Meta)
		maps.Copy(n.Meta, e.Service.Meta)
		for key, host := range e.Node.TaggedAddresses {
			n.Tagged[key] = TaggedAddress{Host: host}
		}
		for key, a := range e.Service.TaggedAddresses {
			n.Tagged[key] = TaggedAddress{Host: a.Address, Port: a.Port}
		}
		for _, check := range e.Checks {
			if check == nil {
				return nil, fmt.Errorf("unusable answer: entry %d has a check that is null", i)
			}
			n.Checks = append(n.Checks, Check{check.CheckID, check.Status, check.ServiceID != "", check.ModifyIndex})
		}
		slices.SortFunc(n.Checks, func(a, b Check) int { return cmp.Compare(a.ID, b.ID) })
		nodes = append(nodes, n)
	}
	// Consul may shuffle: order is no change.
	slices.SortStableFunc(nodes, func(a, b Node) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return nodes, nil
}

// headerKey is the key of the context for a *http.Header that takes the headers of the answer.
type headerKey struct{}

// boundedTransport bounds the body of each answer, and hands out its headers.
type boundedTransport struct{ base *http.Transport }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols { // from here on neither context nor deadline would hold
		_ = resp.Body.Close()
		resp.Body = http.NoBody
	}
	if h, ok := r.Context().Value(headerKey{}).(*http.Header); ok {
		*h = resp.Header
	}
	limit := int64(maxAnswer)
	if resp.StatusCode != http.StatusOK {
		limit = maxErrorAnswer
	}
	resp.Body = &boundedBody{resp.Body, limit}
	return resp, nil
}

// boundedBody fails where io.LimitReader would end: what is cut off must not look complete.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the answer is too large")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
