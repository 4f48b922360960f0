// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// raw asks Caddy and returns the whole answer as it came: net/http loses the order of the headers.
func (d *demo) raw(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path, nil)
	if err != nil {
		return "", err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.listen)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := req.Write(conn); err != nil {
		return "", err
	}
	var text bytes.Buffer
	res, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &text)), req)
	if err != nil {
		return "", fmt.Errorf("GET %s: %w", req.URL, err)
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return text.String(), err
}

// target returns the host:port that Caddy redirects to now, "" if to none.
func (d *demo) target(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+secretPath, nil)
	if err != nil {
		return "", err
	}
	res, err := d.client.Do(req)
	if err != nil {
		return "", err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusTemporaryRedirect {
		return "", nil
	}
	location, err := url.Parse(res.Header.Get("Location"))
	if err != nil {
		return "", err
	}
	return location.Host, nil
}

// follow asks Caddy and follows its redirect, as Vault's own client does.
func (d *demo) follow(ctx context.Context, method, path string, body []byte) (*http.Response, []byte, error) {
	client := *d.client
	client.CheckRedirect = nil
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if token := d.vaults.token(); token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, text, err
}

// writeSecret writes what the demo reads, by way of the redirect.
func (d *demo) writeSecret(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errors.New("the secret cannot be written"))
	defer cancel()
	return d.poll(ctx, 50*time.Millisecond, func() bool {
		res, _, err := d.follow(ctx, http.MethodPut, secretPath, []byte(`{"data":{"greeting":"hello"}}`))
		return err == nil && res.StatusCode < 300
	})
}

// poll asks again and again until ok; Caddy's end and that of ctx are errors.
func (d *demo) poll(ctx context.Context, every time.Duration, ok func() bool) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-d.caddy.Done():
			return d.caddy.Ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return nil
}
