// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/block"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// Probe asks the nodes themselves whether they are active, with GET /v1/sys/health at the address that redirects lead to (and,
// with redirect_to leader, GET /v1/sys/leader). No token is sent.
//
// Each probe uses a new connection (with TLS sessions resumed), so that a closed listener or a changed address is noticed. The
// connection of the last probe is kept until then: that it breaks shows at once that the node is dead. While the active node
// has not answered a probe for three times as long as it usually takes, and at least for 100ms, requests wait until it answers
// or another node is active, as long as hold lets them. Other nodes are probed every 10 intervals, at least every 10s. All
// nodes are probed at once when the active node is lost, and a node is probed at once when discovery has news of it.
type Probe struct {
	// Mode says how much the answers of a node count:
	//
	//   - auto: as far as they can be trusted. If a node answers over plain http (as trustworthy as the redirect itself) or
	//     with a trusted certificate, its answer decides, even against Consul. If its certificate is not trusted, the
	//     probes decide only whether it is alive: a dead node is not used, but only Consul can elect it. If it says, just
	//     elected or still elected, that it is not active, requests wait for up to 2 seconds. If a node could never be
	//     reached, Consul decides. If it is dead by the probes, but Consul still reports it active and passing, and no
	//     other node says that it is active, it is used again after 15 seconds: perhaps only this machine is cut off from
	//     it.
	//   - strict: only a node is used that says itself, over plain http or a trusted connection, that it is active.
	//   - off: nodes are not probed.
	//
	// A node that is in maintenance in Consul is never used, even if it says that it is active. A node whose checks are
	// critical is used only if it says itself that it is active. Default: auto; with discovery vault, strict, which is the only one there.
	Mode string `json:"mode,omitempty"`
	// Interval is the longest time between two probes of the active node. While requests are redirected or proxied to it, it is
	// probed once for every ten of them, at most every 100ms (or every interval, if that is shorter): a probe costs Vault a fraction of
	// what these clients do. At least 50ms. Default: 500ms.
	Interval caddy.Duration `json:"interval,omitempty"`
	// Timeout of one probe. At least 50ms. Default: 1s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// Fall is how many probes in a row must go unanswered before a node is dead. A refused or broken connection, and the
	// answer that it is not active, count at once. From 1 to 100. Default: 3.
	Fall int `json:"fall,omitempty"`
	// TLS settings of the connection to the nodes. Clients use their own trust store.
	TLS *TLS `json:"tls,omitempty"`
}

// Defaults and limits of probes.
const (
	defaultProbeInterval = 500 * time.Millisecond
	defaultProbeTimeout  = time.Second
	defaultFall          = 3
	maxFall              = 100
	minProbe             = 50 * time.Millisecond

	probeAuto   = "auto"
	probeStrict = "strict"
	probeOff    = "off"
)

// mode returns the engine's mode, given the discovery's mode of selection.
func (p *Probe) mode(by string) (engine.Mode, error) {
	switch mode := p.Mode; {
	case by == discovery.ByProbe && (mode == "" || mode == probeStrict):
		return engine.ProbeStrict, nil
	case by == discovery.ByProbe:
		return "", fmt.Errorf("mode: %q cannot be used with this discovery: only the nodes themselves know which is active, so the mode is strict", mode)
	case mode == "", mode == probeAuto:
		return engine.ProbeAuto, nil
	case mode == probeStrict:
		return engine.ProbeStrict, nil
	case mode == probeOff:
		return engine.ProbeOff, nil
	}
	return "", fmt.Errorf("mode: %q is not auto, strict or off", p.Mode)
}

// engine completes and checks the settings.
func (p *Probe) engine(by string) (engine.Probe, error) {
	mode, err := p.mode(by)
	if err != nil {
		return engine.Probe{}, err
	}
	if mode == engine.ProbeOff {
		return engine.Probe{}, p.checkOff()
	}
	c := engine.Probe{
		Mode:     mode,
		Interval: cmp.Or(time.Duration(p.Interval), defaultProbeInterval),
		Timeout:  cmp.Or(time.Duration(p.Timeout), defaultProbeTimeout),
		Fall:     cmp.Or(p.Fall, defaultFall),
	}
	if err := checkProbe("interval", c.Interval); err != nil {
		return c, err
	}
	if err := checkProbe("timeout", c.Timeout); err != nil {
		return c, err
	}
	if c.Fall < 1 || c.Fall > maxFall {
		return c, fmt.Errorf("fall: %d is not between 1 and %d", c.Fall, maxFall)
	}
	c.TLS, c.TLSKey, err = p.TLS.load()
	return c, err
}

// checkOff checks the settings of probes that are off.
func (p *Probe) checkOff() error {
	if *p != (Probe{Mode: p.Mode}) {
		return errors.New("mode off cannot be used with interval, timeout, fall or tls")
	}
	return nil
}

func checkProbe(name string, d time.Duration) error {
	if d < minProbe {
		return fmt.Errorf("%s: %s is too short, the minimum is %s", name, d, minProbe)
	}
	return nil
}

// parse parses the option probe. d is at its name.
func (p *Probe) parse(d *caddyfile.Dispenser) error {
	o := p.options(d)
	args := d.RemainingArgs()
	if len(args) > 0 && slices.Contains([]string{probeAuto, probeStrict, probeOff}, args[0]) {
		p.Mode, args = args[0], args[1:]
	}
	if len(args) > 0 {
		interval, err := caddy.ParseDuration(args[0])
		if err != nil {
			return d.Errf("probe: %q is not auto, strict, off or a duration such as 500ms", args[0])
		}
		if err := checkProbe("probe", interval); err != nil {
			return d.WrapErr(err)
		}
		p.Interval = caddy.Duration(interval)
		o["interval"] = func() error { return d.Err("interval is given twice") }
	}
	if len(args) > 1 {
		return d.Errf("probe: unexpected argument %q: it takes a mode and an interval", args[1])
	}
	if p.Mode == probeOff && len(args) > 0 {
		return d.Err("probe off: takes no interval")
	}
	if err := block.Parse(d, o); err != nil || p.Mode != probeOff {
		return err
	}
	if err := p.checkOff(); err != nil {
		return d.Errf("probe off: %v", err)
	}
	return nil
}

// options returns the parsers of the options in its block.
func (p *Probe) options(d *caddyfile.Dispenser) block.Options {
	return block.Options{
		"interval": block.Checked(d, block.Duration(d, &p.Interval, 0), func() error { return checkProbe("interval", time.Duration(p.Interval)) }),
		"timeout":  block.Checked(d, block.Duration(d, &p.Timeout, 0), func() error { return checkProbe("timeout", time.Duration(p.Timeout)) }),
		"fall":     block.Number(d, &p.Fall, maxFall),
		"tls":      parseTLS(d, &p.TLS),
	}
}
