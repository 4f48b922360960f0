// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how the doctor looks at one node.

package doctor

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// maxAnswer bounds what is read of a node's answer.
const maxAnswer = 64 << 10

// look looks at the node at a URL, whose certificate must be for serverName unless the settings name another. It follows no
// proxy of the environment, as probes do.
func look(ctx context.Context, base, serverName string, settings *tls.Config) Look {
	u, err := url.Parse(base)
	if err != nil {
		return Look{LookupErr: "no URL"} // the engine made it
	}
	l := Look{Host: u.Hostname(), Port: u.Port()}
	if l.Addresses, err = net.DefaultResolver.LookupNetIP(ctx, "ip", l.Host); err != nil {
		l.LookupErr = say(err)
		return l
	}
	for i := range l.Addresses {
		l.Addresses[i] = l.Addresses[i].Unmap()
	}
	began := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		l.ConnectErr = say(err)
		return l
	}
	defer conn.Close()
	l.Connected = time.Since(began)
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	if u.Scheme == "https" {
		if conn = l.handshake(ctx, conn, cmp.Or(serverName, l.Host), settings); conn == nil {
			return l
		}
	}
	l.ask(ctx, conn, base)
	return l
}

// handshake looks at the certificate. It returns nil if TLS does not come about.
func (l *Look) handshake(ctx context.Context, conn net.Conn, serverName string, settings *tls.Config) net.Conn {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if settings != nil {
		config = settings.Clone()
	}
	config.ServerName = cmp.Or(config.ServerName, serverName)
	config.InsecureSkipVerify = true // it is to be looked at, not to be refused
	secure := tls.Client(conn, config)
	err := secure.HandshakeContext(ctx)
	if state := secure.ConnectionState(); len(state.PeerCertificates) > 0 {
		l.Cert = inspect(state.PeerCertificates, config.ServerName, config.RootCAs)
	}
	if err == nil {
		return secure
	}
	l.OtherKind = engine.WantsNoTLS(err)
	l.TLSErr = say(err)
	return nil
}

// inspect judges name and trust each by themselves, and neither by the date: a certificate that has expired is to be told
// from one that is not trusted.
func inspect(chain []*x509.Certificate, name string, roots *x509.CertPool) *Cert {
	leaf := chain[0]
	names := leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	c := &Cert{Names: strings.Join(names, ", "), For: name, From: leaf.NotBefore, To: leaf.NotAfter}
	if err := leaf.VerifyHostname(name); err != nil {
		c.WrongName = say(err)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: time.Now()}
	if options.CurrentTime.After(c.To) {
		options.CurrentTime = c.To
	}
	if options.CurrentTime.Before(c.From) {
		options.CurrentTime = c.From
	}
	for _, more := range chain[1:] {
		options.Intermediates.AddCert(more)
	}
	if _, err := leaf.Verify(options); err != nil {
		c.Untrusted = say(err)
	}
	return c
}

// ask asks the node for its health. It sends no token.
// See https://developer.hashicorp.com/vault/api-docs/system/health.
func (l *Look) ask(ctx context.Context, conn net.Conn, base string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/sys/health", nil)
	if err != nil {
		l.HealthErr = say(err)
		return
	}
	req.Close = true
	began := time.Now()
	if err := req.Write(conn); err != nil {
		l.HealthErr = say(err)
		return
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
	if err != nil {
		l.HealthErr = say(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.HealthErr = say(err)
		return
	}
	ended := time.Now()
	l.OtherKind = req.URL.Scheme == "http" && engine.WantsTLS(resp.StatusCode, body)
	l.Health = readHealth(resp, body)
	if !l.Health.HasClock {
		return
	}
	// Both clocks are told in whole seconds: what lies within the time of the request is no difference.
	there := began.Add(l.Health.Ahead)
	switch {
	case there.Before(began.Add(-time.Second)):
		l.Health.Ahead = there.Sub(began)
	case there.After(ended.Add(time.Second)):
		l.Health.Ahead = there.Sub(ended)
	default:
		l.Health.Ahead = 0
	}
}

// readHealth reads an answer. Ahead is by how much the node's clock is ahead of now.
func readHealth(resp *http.Response, body []byte) *Health {
	h := &Health{Code: resp.StatusCode}
	var document struct {
		Initialized *bool
		Sealed      *bool
		Version     string
		ClusterID   string `json:"cluster_id"`
		Time        int64  `json:"server_time_utc"`
	}
	h.Vault = json.Unmarshal(body, &document) == nil && document.Initialized != nil && document.Sealed != nil
	if h.Vault {
		h.Version, h.ClusterID = sanitize.Line(document.Version), sanitize.Line(document.ClusterID)
		if document.Time > 0 {
			h.HasClock, h.Ahead = true, time.Until(time.Unix(document.Time, 0))
			return h
		}
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		h.HasClock, h.Ahead = true, time.Until(date)
	}
	return h
}

// say says what an error is, without the addresses of this machine.
func say(err error) string {
	var (
		lookup    *net.DNSError
		operation *net.OpError
		network   net.Error
	)
	switch {
	case errors.As(err, &lookup):
		return sanitize.Line(lookup.Err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed without an answer"
	case errors.As(err, &operation):
		err = operation.Err
	}
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "connect: "), "x509: ")
	return sanitize.Line(text)
}

// addressesHere returns the addresses of this machine.
func addressesHere() (list []netip.Addr) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, p.Addr())
		}
	}
	return list
}
