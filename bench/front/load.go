// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// path is what is asked for.
const path = "/v1/secret/data/team/app?version=3"

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

// client is a connection of HTTP/1.1.
type client struct {
	net.Conn
	reader *bufio.Reader
}

// connect connects to a front, by TLS if there is a config for it. It resumes no session.
func connect(f *front, config *tls.Config) (*client, error) {
	address := f.plain
	if config != nil {
		address = f.tls
	}
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if config != nil {
		t := tls.Client(c, config)
		if err := t.Handshake(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c = t
	}
	return &client{c, bufio.NewReaderSize(c, 512)}, nil
}

// ask sends a request and returns the Location of the answer.
func (c *client) ask() (string, error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: " + serverName + "\r\nX-Vault-Token: hvs.CAESIJ0bench\r\nUser-Agent: benchfront\r\n\r\n")); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusTemporaryRedirect {
		return "", fmt.Errorf("status %s", res.Status)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil { // some have one
		return "", err
	}
	return res.Header.Get("Location"), nil
}

var (
	wrkRate    = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkErrors  = regexp.MustCompile(`Socket errors: .*`)
	h2loadRate = regexp.MustCompile(`finished in [^,]+, ([\d.]+) req/s`)
	h2loadSum  = regexp.MustCompile(`(\d+) failed, (\d+) errored`)
)

// wrk asks as fast as it can over HTTP/1.1, and returns how many requests a second were answered.
func (b *bench) wrk(ctx context.Context, url string) (float64, error) {
	out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c", strconv.Itoa(b.connections), "-d", seconds(b.lasts),
		"-H", "Host: "+serverName, "-H", "X-Vault-Token: hvs.CAESIJ0bench", url+path).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if m := wrkErrors.Find(out); m != nil {
		return 0, fmt.Errorf("wrk: %s", m)
	}
	return rateIn(wrkRate, out)
}

// h2load asks as fast as it can, over HTTP/2 where the front has it.
func (b *bench) h2load(ctx context.Context, f *front) (float64, error) {
	atOnce := "10"
	if f.http1 {
		atOnce = "1" // h2load would pipeline, which clients of Vault do not
	}
	out, err := exec.CommandContext(ctx, "h2load", "-t1", "-c", strconv.Itoa(b.connections), "-m", atOnce, "-D", seconds(b.lasts),
		"-H", ":authority: "+serverName, "-H", "x-vault-token: hvs.CAESIJ0bench", "https://"+f.tls+path).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("h2load: %w: %s", err, out)
	}
	if m := h2loadSum.FindSubmatch(out); m == nil || string(m[1]) != "0" || string(m[2]) != "0" {
		return 0, fmt.Errorf("h2load: requests failed: %s", out)
	}
	return rateIn(h2loadRate, out)
}

func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(d.Round(time.Second).Seconds())))
}

func rateIn(expression *regexp.Regexp, out []byte) (float64, error) {
	m := expression.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no rate in %q", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
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

// paced sends requests at a rate on kept connections, each when its time has come, however long others take. It returns how
// long each took from then on, in order.
func (b *bench) paced(ctx context.Context, f *front) ([]time.Duration, error) {
	const connections = 16
	total := int(float64(b.rate) * b.lasts.Seconds())
	took := make([]time.Duration, total)
	begin, gap := time.Now().Add(50*time.Millisecond), time.Second/time.Duration(b.rate)
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for i := range connections {
		c, err := connect(f, nil)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		wg.Go(func() {
			for n := i; n < total && ctx.Err() == nil; n += connections {
				due := begin.Add(time.Duration(n) * gap)
				time.Sleep(time.Until(due))
				if _, errs[i] = c.ask(); errs[i] != nil {
					return
				}
				took[n] = time.Since(due)
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took, errors.Join(append(errs, ctx.Err())...)
}
