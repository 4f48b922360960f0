// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// played is a cluster of stand-ins.
type played struct {
	*standin.Cluster
	killed *standin.Vault
}

func (p *played) consul() string  { return p.Consul.Addr() }
func (p *played) program() string { return "" }
func (p *played) token() string   { return "" }

func (p *played) name(addr string) string {
	for _, v := range p.Vaults {
		if v.Addr() == addr {
			return v.Name()
		}
	}
	return addr
}

func (p *played) active(context.Context) (string, error) {
	if v := p.Active(); v != nil {
		return v.Name(), nil
	}
	return "", errors.New("no stand-in is active")
}

func (p *played) takeAway(_ context.Context, how way) error {
	if how == kill {
		p.killed, _ = p.Kill()
	} else {
		p.StepDown()
	}
	return nil
}

func (p *played) dead() string {
	if p.killed == nil {
		return ""
	}
	return p.killed.Name()
}

func (p *played) revive(context.Context) error {
	v := p.killed
	p.killed = nil
	return p.Restart(v)
}

func (p *played) settle(context.Context) {}

func (p *played) close() error {
	p.Close()
	return nil
}
