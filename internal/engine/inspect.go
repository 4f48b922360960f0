// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
)

// Inspection is all that a single probe sees of a node, of which most probes need but the outcome.
type Inspection struct {
	Host, Port  string
	Addresses   []netip.Addr  // that Host stands for
	Connected   time.Duration // how long it took to connect
	Certificate *Certificate  // that the node shows, if any
	FailedStep  Step          // StepNone if there is an answer
	Failure     string        // why the step failed
	OtherScheme bool          // the node answers https where it is asked by http, or the other way round
	Redirector  bool          // what answers is a redirector
	Health      *Health       // the answer, whether its sender is trusted or not; nil: there is none
}

// Step is a step of a probe.
type Step int

// The steps, in their order.
const (
	StepNone      Step = iota
	StepLookup         // of the name
	StepConnect        // by TCP
	StepHandshake      // of TLS
	StepRequest        // and its answer
)

// Certificate is what there is to know of a node's certificate. Name and trust are verified without each other, and both without
// the date: a certificate that has expired is not one that is not trusted.
type Certificate struct {
	Names     string // it is for
	For       string // the name that it must be for
	WrongName string // why it is not
	Untrusted string // why it is not trusted
	From, To  time.Time
}

// Inspect probes the node at a URL once. Its certificate must be for serverName, unless the settings name another.
func Inspect(ctx context.Context, base, serverName string, settings *tls.Config) Inspection {
	u, err := url.Parse(base)
	if err != nil {
		return Inspection{FailedStep: StepLookup, Failure: "not a URL"}
	}
	i := &inspector{seen: Inspection{Host: u.Hostname(), Port: u.Port(), FailedStep: StepLookup}, https: u.Scheme == "https"}
	c := newDialer(i.dial, settings, cmp.Or(serverName, u.Hostname())).newConn(0, func() {})
	defer c.close()
	i.keepCertificate(c.transport.TLSClientConfig)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
		if err == nil {
			i.note(func(seen *Inspection) { seen.FailedStep = StepRequest })
		}
	}})
	began := time.Now()
	code, header, body, err := c.get(ctx, base+healthPath)
	i.mu.Lock()
	defer i.mu.Unlock()
	seen := i.seen
	if err != nil {
		detail := outcomeOfError(err).Detail
		seen.Failure = strings.TrimPrefix(strings.TrimPrefix(detail, lookupFailed), tlsFailed) // which the step says
		seen.OtherScheme = wantsNoTLS(err)
		return seen
	}
	seen.FailedStep, seen.Health = StepNone, readHealth(code, body)
	seen.Health.compareClocks(began, time.Now())
	seen.Redirector = header.Get(RedirectorHeader) != ""
	seen.OtherScheme = !i.https && wantsTLS(code, body)
	return seen
}

// inspector notes what a probe sees. A connection may still be made when the probe has ended.
type inspector struct {
	https bool
	mu    sync.Mutex
	seen  Inspection
}

func (i *inspector) note(what func(seen *Inspection)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	what(&i.seen)
}

// dial looks the name up by itself, so that this is told from the connection.
func (i *inspector) dial(ctx context.Context, network, address string) (net.Conn, error) {
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", i.seen.Host) // which does not change
	if err != nil {
		return nil, err
	}
	for n := range found {
		found[n] = found[n].Unmap()
	}
	i.note(func(seen *Inspection) { seen.Addresses, seen.FailedStep = found, StepConnect })
	began := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	i.note(func(seen *Inspection) {
		if seen.Connected, seen.FailedStep = took, StepRequest; i.https {
			seen.FailedStep = StepHandshake
		}
	})
	return conn, nil
}

// keepCertificate makes a connection keep the certificate that the node shows, also where the node refuses the handshake after that.
func (i *inspector) keepCertificate(config *tls.Config) {
	verify, roots, name := config.VerifyConnection, config.RootCAs, config.ServerName
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) > 0 {
			c := certificateOf(state.PeerCertificates, roots, name)
			i.note(func(seen *Inspection) { seen.Certificate = c })
		}
		if verify == nil {
			return nil
		}
		return verify(state)
	}
}

func certificateOf(chain []*x509.Certificate, roots *x509.CertPool, name string) *Certificate {
	leaf, now := chain[0], time.Now()
	names := leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	c := &Certificate{Names: strings.Join(names, ", "), For: name, From: leaf.NotBefore, To: leaf.NotAfter}
	if err := leaf.VerifyHostname(name); err != nil {
		c.WrongName = sanitize.Line(err.Error())
	}
	if now.After(c.To) {
		now = c.To
	}
	if now.Before(c.From) {
		now = c.From
	}
	if err := verifyChain(chain, x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		c.Untrusted = sanitize.Line(strings.TrimPrefix(err.Error(), "x509: "))
	}
	return c
}
