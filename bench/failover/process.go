// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"path/filepath"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
)

// start starts a program that ends with the run; its log is in the run's folder. One that ends before is an error.
func (b *bench) start(name, path string, args ...string) (*process.Process, error) {
	p := &process.Process{
		Name: name, Path: path, Args: args, LogFile: filepath.Join(b.dir, name+".log"),
		Env: process.Environ(nil, "CONSUL_"), // the user's own Consul is not meant
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, func() error {
		if err := p.Ended(); err != nil {
			return err
		}
		_ = p.StopOrKill(10 * time.Second) // what it does in the end does not matter
		return nil
	})
	return p, nil
}
