// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"
)

// probeConn is the connection of one probe. Each probe has a new one, so that a listener that is closed, a name that has moved
// and an address behind a balancer are seen. It is kept until the next probe has answered on another: that it breaks tells
// of a death at once.
type probeConn struct {
	transport *http.Transport
	distrust  atomic.Pointer[string] // why the node's certificate is not trusted, nil if it is
	broke     atomic.Bool            // the other side has closed the connection
	closed    atomic.Bool            // this side has
}

// dialer is what the connections to one node have in common.
type dialer struct {
	dial     dialFunc
	tls      *tls.Config // with a cache of sessions
	verify   bool
	resolved *addresses
	fresh    time.Time // since when sessions are kept
}

// sessionAge is how long sessions are resumed. With a session comes the certificate of its first handshake: one that was
// replaced since would never be looked at.
const sessionAge = time.Minute

// newDialer returns the dialer for a node whose certificate must be for serverName, unless the settings name another.
//
// The certificate is verified here rather than by crypto/tls. The outcome is the same, but a handshake that is refused
// would be a line in the node's log for each probe of each redirector: so it is completed, and then nothing that the node
// says is believed.
func newDialer(dial dialFunc, base *tls.Config, serverName string) *dialer {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		config = base.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = serverName
	}
	d := &dialer{dial: dial, tls: config, verify: !config.InsecureSkipVerify, resolved: new(addresses)}
	config.InsecureSkipVerify = true
	return d
}

// newConn returns the connection of the next probe; broken is called when the other side ends its connection.
func (d *dialer) newConn(timeout time.Duration, broken func()) *probeConn {
	c := new(probeConn)
	if now := time.Now(); now.Sub(d.fresh) >= sessionAge {
		d.fresh, d.tls.ClientSessionCache = now, tls.NewLRUClientSessionCache(1)
	}
	config := d.tls.Clone() // shares the cache of sessions
	if d.verify {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			if err := verify(config, state); err != nil {
				text := err.Error()
				c.distrust.Store(&text)
			}
			return nil
		}
	}
	c.transport = &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			// The transport ends it when it is closed: the context of the request does not reach here.
			conn, err := d.resolved.dial(ctx, timeout/2, d.dial, network, address)
			if err != nil {
				return nil, err
			}
			return &watchedConn{conn, func() {
				if !c.closed.Load() && !c.broke.Swap(true) {
					broken()
				}
			}}, nil
		},
		TLSClientConfig:        config,
		MaxIdleConnsPerHost:    1,
		MaxResponseHeaderBytes: maxProbeAnswer,
		DisableCompression:     true,
	}
	return c
}

// close closes the connection, if there is one.
func (c *probeConn) close() {
	if c != nil {
		c.closed.Store(true)
		c.transport.CloseIdleConnections()
	}
}

// verify verifies the certificates of a connection, resumed or not, as crypto/tls does.
func verify(config *tls.Config, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 || config.ServerName == "" { // an empty name would match any
		return errors.New("no certificate")
	}
	return verifyChain(state.PeerCertificates, x509.VerifyOptions{Roots: config.RootCAs, DNSName: config.ServerName})
}

// verifyChain verifies the first of some certificates by means of the others.
func verifyChain(chain []*x509.Certificate, options x509.VerifyOptions) error {
	options.Intermediates = x509.NewCertPool()
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	return err
}

// watchedConn is a connection that tells when the other side is gone. An HTTP client always reads from its connections,
// and closes one that the other side takes its leave of, as TLS does before it closes.
type watchedConn struct {
	net.Conn
	gone func()
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.gone()
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}

// addresses remembers what a name stood for: that it cannot be looked up says nothing of the node.
type addresses struct{ last atomic.Pointer[string] } // where the name was reached last

// dial connects to an address. Where its name cannot be looked up, or not in time, it connects to where the name was
// reached last; and so it does where that is still one of several addresses, and another one is not reached in time.
func (a *addresses) dial(ctx context.Context, inTime time.Duration, dial dialFunc, network, address string) (net.Conn, error) {
	last, first := a.last.Load(), ctx
	again := last != nil && *last != address
	if again {
		var moved atomic.Bool // it stands for other addresses now, so that what comes of them counts
		var cancel context.CancelFunc
		first, cancel = context.WithCancel(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			DNSDone: func(found httptrace.DNSDoneInfo) { moved.Store(found.Err == nil && !among(*last, found.Addrs)) },
		}))
		defer cancel()
		defer time.AfterFunc(inTime, func() {
			if !moved.Load() {
				cancel()
			}
		}).Stop()
	}
	conn, err := dial(first, network, address)
	if err == nil {
		reached := conn.RemoteAddr().String()
		a.last.Store(&reached)
		return conn, nil
	}
	var lookup *net.DNSError
	if again && ctx.Err() == nil && (errors.As(err, &lookup) || first.Err() != nil) {
		return dial(ctx, network, *last)
	}
	return nil, err
}

// among reports whether a host and port is at one of the addresses.
func among(hostPort string, list []net.IPAddr) bool {
	host, _, _ := net.SplitHostPort(hostPort)
	return slices.ContainsFunc(list, func(a net.IPAddr) bool { return a.String() == host })
}
