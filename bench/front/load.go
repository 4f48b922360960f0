// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/load"
)

// path is what is asked for, with a token.
const path, token = "/v1/secret/data/team/app?version=3", "hvs.CAESIJ0bench"

// clientTLS agrees on keys as all fronts can: OpenSSL 3.0, which nginx and HAProxy use in Debian 12, knows no way that holds
// against quantum computers.
var clientTLS = &tls.Config{
	InsecureSkipVerify: true, ServerName: serverName, NextProtos: []string{"http/1.1"}, CurvePreferences: []tls.CurveID{tls.X25519},
}

// hybridTLS agrees on keys as Go's clients do by default, and browsers.
func hybridTLS() *tls.Config {
	c := clientTLS.Clone()
	c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519}
	return c
}

// request is what clients send.
var request = []byte("GET " + path + " HTTP/1.1\r\nHost: " + serverName + "\r\nX-Vault-Token: " + token + "\r\nUser-Agent: benchfront\r\n\r\n")

// client is a connection to a front.
type client struct{ *load.Conn }

// connect connects to a front, by TLS if there is a config for it. It resumes no session.
func connect(f *front, config *tls.Config) (client, error) {
	address := f.plain
	if config != nil {
		address = f.tls
	}
	c, err := load.Connect(address, config)
	return client{c}, err
}

// ask sends a request and returns the Location of the answer.
func (c client) ask() (string, error) {
	res, _, err := c.Ask(request)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusTemporaryRedirect {
		return "", fmt.Errorf("status %s", res.Status)
	}
	return res.Header.Get("Location"), nil
}

// wrk asks as fast as it can over HTTP/1.1, and returns how many requests a second were answered.
func (b *bench) wrk(ctx context.Context, url string) (float64, error) {
	return load.Wrk(ctx, url+path, b.connections, b.lasts, "Host: "+serverName, "X-Vault-Token: "+token)
}

// h2load asks as fast as it can, over HTTP/2 where the front has it.
func (b *bench) h2load(ctx context.Context, f *front) (float64, error) {
	atOnce := 10
	if f.http1 {
		atOnce = 1 // h2load would pipeline, which clients of Vault do not
	}
	return load.H2load(ctx, "https://"+f.tls+path, b.connections, atOnce, b.lasts, ":authority: "+serverName, "x-vault-token: "+token)
}

// comeAndGo makes clients connect by TLS, ask once and leave, one after another, and returns how many there were.
func (b *bench) comeAndGo(ctx context.Context, f *front, config *tls.Config) (int, error) {
	end, n := time.Now().Add(b.lasts), 0
	for ; time.Now().Before(end) && ctx.Err() == nil; n++ {
		c, err := connect(f, config)
		if err != nil {
			return n, err
		}
		_, err = c.ask()
		if err := errors.Join(err, c.Close()); err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

// paced sends requests at a rate on kept connections. It returns how long each took from when it was due, in order.
func (b *bench) paced(ctx context.Context, f *front) ([]time.Duration, error) {
	var asks []func() error
	for range 16 {
		c, err := connect(f, nil)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		asks = append(asks, func() error { _, err := c.ask(); return err })
	}
	return load.Paced(ctx, b.rate, b.lasts, asks)
}
