// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the probes of the nodes' own health, and when they are sent.

package vaultredirect

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Probe says how the nodes themselves are asked whether they are active: with GET /v1/sys/health, which needs no token.
//
// While a node is active, only that one is probed. When it fails, or when discovery has something new, all are probed at
// once, and then more often, until one is active. When it has not answered for 100ms, or its connection breaks, requests
// wait for what it turns out to be, as long as hold lets them: a node that steps down leaves all requests unanswered
// first, and then fails them. A probe outranks what Consul says, both ways; only a node that is critical or in maintenance
// in Consul's own words is not elected whatever it answers.
type Probe struct {
	// Interval between two probes of the active node. An active node whose process dies is out at once: the connection of
	// the probes breaks. One whose machine or network is gone is out within interval + timeout. At least 50ms. Default: 1s.
	Interval caddy.Duration `json:"interval,omitempty"`
	// Timeout of one probe. A node that does not answer in time is not active. At least 50ms. Default: 1s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// TLS settings of the connection to the nodes. Clients have trust of their own.
	TLS *TLS `json:"tls,omitempty"`
}

// The limits of probes.
const (
	defaultProbe     = time.Second
	minProbe         = 50 * time.Millisecond
	firstSearch      = 5 * time.Millisecond // between two rounds of probes while no node is active, doubled from here
	maxSearch        = 100 * time.Millisecond
	muteAfter        = 100 * time.Millisecond // the active node leaves a probe unanswered
	maxProbeAnswer   = 64 << 10
	probeIdleTimeout = 90 * time.Second
	probesAtOnce     = 64 // however many nodes there are
)

// probeConfig is a Probe made complete. It is comparable; the zero value means that there are no probes.
type probeConfig struct {
	interval, timeout time.Duration
	tls               TLS
	caDigest          [sha256.Size]byte
	leader            bool // ask for the leader's address, too
}

// config completes and checks the settings.
func (p *Probe) config() (probeConfig, error) {
	c := probeConfig{interval: defaultProbe, timeout: defaultProbe}
	if p.Interval != 0 {
		c.interval = time.Duration(p.Interval)
	}
	if p.Timeout != 0 {
		c.timeout = time.Duration(p.Timeout)
	}
	if err := checkProbe("interval", c.interval); err != nil {
		return c, err
	}
	if err := checkProbe("timeout", c.timeout); err != nil {
		return c, err
	}
	if p.TLS != nil {
		c.tls = *p.TLS
	}
	err := c.tls.expand(caddy.NewReplacer())
	if err != nil {
		return c, err
	}
	_, c.caDigest, err = c.tls.config()
	return c, err
}

func checkProbe(name string, d time.Duration) error {
	if d < minProbe {
		return fmt.Errorf("%s: %s is shorter than %s: nodes would have nothing else to do", name, d, minProbe)
	}
	return nil
}

// prober probes the nodes of one view.
type prober struct {
	probeConfig
	view    *view
	tls     *tls.Config
	changed chan struct{} // has an element when discovery has something new
	broken  chan struct{} // has an element when a connection has broken
	results chan probeResult
	slots   chan struct{} // bounds the probes that are under way
	mute    *time.Timer   // runs out when the active node has left a probe unanswered for too long
	nodes   map[string]*probed
	group   sync.WaitGroup
}

// probed is a node that is probed.
type probed struct {
	node   Node
	target target
	client *http.Client
	busy   bool // a probe is under way
	again  bool // and another is wanted after it, since what it finds may be outdated
	broken atomic.Bool
	early  bool // it was probed before its time, since its connection had broken
}

type probeResult struct {
	p       *probed
	verdict verdict
}

func newProber(c probeConfig, v *view) (*prober, error) {
	config, _, err := c.tls.config()
	if err != nil {
		return nil, err
	}
	return &prober{
		probeConfig: c, view: v, tls: config, nodes: map[string]*probed{},
		changed: make(chan struct{}, 1), broken: make(chan struct{}, 1), results: make(chan probeResult), slots: make(chan struct{}, probesAtOnce),
		mute: time.NewTimer(muteAfter),
	}, nil
}

// poke tells the prober that discovery has something new. It never blocks.
func (p *prober) poke() { signal(p.changed) }

// signal puts an element into a channel that holds one, unless it is there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run probes until the context ends.
func (p *prober) run(ctx context.Context) {
	defer func() {
		p.group.Wait()
		for _, n := range p.nodes {
			n.client.CloseIdleConnections()
		}
	}()
	search := firstSearch
	timer := time.NewTimer(0)
	defer timer.Stop()
	p.mute.Stop()
	defer p.mute.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
			p.update()
			p.all(ctx)
			search = firstSearch
			timer.Reset(search)
		case <-timer.C:
			if n := p.nodes[p.view.activeKey()]; n != nil {
				n.early = false
				p.probe(ctx, n)
				search = firstSearch
				timer.Reset(p.interval)
				continue
			}
			p.all(ctx)
			timer.Reset(search)
			search = min(search*2, max(maxSearch, p.interval/10))
		case <-p.broken:
			n := p.nodes[p.view.activeKey()]
			// Once between two probes: a node may have its reasons to close connections that are not used.
			if n == nil || !n.broken.Swap(false) || n.early {
				continue
			}
			n.early, n.again = true, n.busy
			p.view.mute(n.node.key()) // until it answers on another connection
			p.probe(ctx, n)
		case <-p.mute.C:
			if n := p.nodes[p.view.activeKey()]; n != nil && n.busy {
				p.view.mute(n.node.key())
			}
		case r := <-p.results:
			r.p.busy = false
			if r.p.again {
				r.p.again = false
				p.probe(ctx, r.p)
				continue
			}
			if p.nodes[r.p.node.key()] != r.p {
				continue // no longer there
			}
			was := p.view.activeKey()
			p.view.judge(r.p.node, r.verdict)
			switch is := p.view.activeKey(); {
			case is == was:
			case is == "": // lost: look for the next one at once
				p.all(ctx)
				search = firstSearch
				timer.Reset(search)
			default:
				timer.Reset(p.interval)
			}
		}
	}
}

// update takes over the nodes of the last report.
func (p *prober) update() {
	seen := map[string]bool{}
	for _, node := range p.view.reported() {
		key := node.key()
		seen[key] = true
		t, err := p.view.addressing.target(&node)
		if err != nil {
			delete(seen, key)
			continue
		}
		old := p.nodes[key]
		if old != nil && old.target == t && old.node.ServerName == node.ServerName {
			old.again = old.again || old.busy && !old.node.saysSame(node)
			old.node = node
			continue
		}
		if old != nil {
			old.client.CloseIdleConnections()
		}
		n := &probed{node: node, target: t}
		n.client = p.newClient(node.ServerName, func() {
			n.broken.Store(true)
			signal(p.broken)
		})
		p.nodes[key] = n
	}
	for key, n := range p.nodes {
		if !seen[key] {
			n.client.CloseIdleConnections()
			delete(p.nodes, key)
		}
	}
}

// newClient returns a client that keeps one connection and tells when it is broken, even while no probe is under way: the
// death of the node's process is noticed at once.
func (p *prober) newClient(serverName string, broken func()) *http.Client {
	config := p.tls.Clone()
	if config.ServerName == "" {
		config.ServerName = serverName
	}
	dialer := &net.Dialer{Timeout: p.timeout}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return &watchedConn{conn, broken}, nil
			},
			TLSClientConfig:     config,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     probeIdleTimeout,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// watchedConn is a connection that tells when the other side is gone. An HTTP client always reads from its connections.
type watchedConn struct {
	net.Conn
	broken func()
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && !errors.Is(err, net.ErrClosed) { // which is this side's doing
		c.broken()
	}
	return n, err
}

// all probes every node.
func (p *prober) all(ctx context.Context) {
	for _, n := range p.nodes {
		p.probe(ctx, n)
	}
}

// probe probes a node unless it is being probed already.
func (p *prober) probe(ctx context.Context, n *probed) {
	if n.busy {
		return
	}
	n.busy = true
	if n.node.key() == p.view.activeKey() {
		p.mute.Reset(muteAfter)
	}
	client, url := n.client, n.target.url
	p.group.Go(func() {
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return
		}
		v := p.ask(ctx, client, url)
		select {
		case p.results <- probeResult{n, v}:
		case <-ctx.Done():
		}
	})
}

// ask asks one node.
// See https://developer.hashicorp.com/vault/api-docs/system/health and https://developer.hashicorp.com/vault/api-docs/system/leader.
func (p *prober) ask(ctx context.Context, client *http.Client, base string) verdict {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	code, body, err := fetch(ctx, client, base+"/v1/sys/health")
	if err != nil {
		return verdict{known: true, detail: "probe: " + err.Error()}
	}
	v := verdictOf(code, body)
	if v.active && p.leader {
		code, body, err := fetch(ctx, client, base+"/v1/sys/leader")
		var leader struct {
			IsSelf  bool   `json:"is_self"`
			Address string `json:"leader_address"`
		}
		if err == nil && (code != http.StatusOK || json.Unmarshal(body, &leader) != nil || leader.Address == "") {
			err = errors.New("no leader_address")
		}
		if err != nil {
			return verdict{known: true, detail: "probe: " + base + "/v1/sys/leader: " + err.Error()}
		}
		v.leader = leader.Address
	}
	return v
}

// verdictOf reads an answer of /v1/sys/health.
func verdictOf(code int, body []byte) verdict {
	v := verdict{known: true}
	switch code {
	case http.StatusOK:
		// Anything can answer 200 to anything: it must say so itself.
		var health struct{ Initialized, Sealed, Standby *bool }
		if json.Unmarshal(body, &health) != nil || health.Initialized == nil || health.Sealed == nil || health.Standby == nil {
			v.detail = "probe: 200, but not from Vault"
			return v
		}
		v.active = *health.Initialized && !*health.Sealed && !*health.Standby
		v.standby = *health.Standby
		v.detail = "probe: 200, but not active"
	case http.StatusTooManyRequests:
		v.standby, v.detail = true, "probe: 429, standby"
	case 472:
		v.standby, v.detail = true, "probe: 472, disaster recovery secondary"
	case 473:
		v.standby, v.detail = true, "probe: 473, performance standby"
	case 474:
		v.standby, v.detail = true, "probe: 474, standby that cannot reach the active node"
	case http.StatusNotImplemented:
		v.detail = "probe: 501, not initialized"
	case http.StatusServiceUnavailable:
		v.detail = "probe: 503, sealed"
	case 530:
		v.detail = "probe: 530, removed from the cluster"
	default:
		v.detail = fmt.Sprintf("probe: %d", code)
	}
	return v
}

func fetch(ctx context.Context, client *http.Client, target string) (code int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err
		}
		if ctx.Err() != nil {
			err = errors.New("no answer in time")
		}
		return 0, nil, fmt.Errorf("%s: %s", strings.TrimSuffix(target, "/v1/sys/health"), oneLine(err.Error()))
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxProbeAnswer))
	return resp.StatusCode, body, err
}
