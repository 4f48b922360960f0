// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/vault-redirector/caddy-vault-redirect/bench/load"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.MainAsCaddy(m, caddycmd.Main)) }

// TestMeasure takes each figure once in each setting.
func TestMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nginx and HAProxy, and keeps a core busy")
	}
	if _, err := exec.LookPath("taskset"); err != nil {
		t.Skip("taskset is not installed")
	}
	r, err := run(t.Context(), options{rounds: 1, lasts: 200 * time.Millisecond, connections: 2, clients: 2, rate: 50, delays: []time.Duration{0, 2 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.fronts {
		for _, tls := range []bool{false, true} {
			for _, delay := range r.delays {
				s := setting{delay, tls}
				trips := 2.0
				if f.process == nil {
					trips = 1
				}
				took := r.figures[key{f.name, s, p50}]
				if len(took) != 1 || took[0] < trips*delay.Seconds()*milliseconds || len(r.figures[key{f.name, s, p99}]) != 1 {
					t.Errorf("%s, %s: p50 %v ms, p99 %v", f.name, s, took, r.figures[key{f.name, s, p99}])
				}
			}
			cost := r.figures[key{f.name, setting{tls: tls}, readsCPU}]
			if _, err := exec.LookPath("wrk"); err == nil && (len(cost) == 1) != f.proxies {
				t.Errorf("%s, TLS %v: CPU %v", f.name, tls, cost)
			}
		}
	}
	text := r.markdown()
	for _, program := range r.missing {
		if !strings.Contains(text, "not installed:") || !strings.Contains(text, program) {
			t.Errorf("it does not say that %s is not installed", program)
		}
	}
}

// TestClient reads directly, over a link that redirects wrongly, and from what is no node.
func TestClient(t *testing.T) {
	n, err := newNode(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	g := &stage{bench: &bench{}, node: n.addr()}
	c, err := g.newClient(&front{name: "directly", entry: n.addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for range 3 {
		if err := c.read(); err != nil {
			t.Fatal(err)
		}
	}
	c.request = []byte("GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := c.read(); err == nil {
		t.Error("the health document passes for the secret")
	}
	c.node, c.request = c.front, []byte("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := c.read(); err == nil || !strings.Contains(err.Error(), "Location") {
		t.Errorf("no redirect: %v", err)
	}
}

// TestNode answers as Vault does, on kept connections and on others.
func TestNode(t *testing.T) {
	for _, body := range []string{secret, health} {
		if !json.Valid([]byte(body)) {
			t.Errorf("it is no JSON: %s", body)
		}
	}
	n, err := newNode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		request string
		body    string
		again   bool
	}{
		{"GET /v1/secret/data/app HTTP/1.1\r\nHost: x\r\nX-Vault-Token: y\r\n\r\n", secret, true},
		{"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n", health, true},
		{"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", health, false},
		{"GET /v1/sys/health HTTP/1.0\r\n\r\n", health, false},
	} {
		c, err := load.Connect(n.addr(), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, length, err := c.Ask([]byte(row.request))
		if err != nil || res.StatusCode != 200 || length != int64(len(row.body)) {
			t.Errorf("%q: %v, %d bytes, %v", row.request, res, length, err)
		}
		if _, _, err := c.Ask([]byte(row.request)); (err == nil) != row.again {
			t.Errorf("%q again: %v", row.request, err)
		}
		c.Close()
	}
	c, err := load.Connect(n.addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := n.close(); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Ask([]byte("GET / HTTP/1.1\r\n\r\n")); err == nil {
		t.Error("a node that is closed answers")
	}
}

func TestTables(t *testing.T) {
	r := newResult(t.Context(), options{rounds: 3, delays: []time.Duration{0, time.Millisecond}})
	direct, proxy := &front{name: "directly"}, &front{name: "a proxy", proxies: true}
	r.note([]*front{direct, proxy})
	r.note([]*front{{name: "of the next setting"}})
	for _, v := range []float64{3, 1, 2} {
		r.add(direct, setting{}, p50, v/10)
		r.add(direct, setting{}, p99, v)
		r.add(proxy, setting{tls: true}, readsRate, v*1000)
		r.add(proxy, setting{tls: true}, readsCPU, v*10)
	}
	if got, want := r.latencies(false), "| front | no delay | links of 1ms |\n| --- | --- | --- |\n| directly | 0.20 (2.00) | – (–) |\n| a proxy | – (–) | – (–) |\n"; got != want {
		t.Errorf("%s", got)
	}
	if got, want := r.throughputs(), "\n| a proxy | – | – | 2.0 (1.0–3.0) | 20 (10–30) |\n"; !strings.HasSuffix(got, want) || strings.Contains(got, "directly") {
		t.Errorf("%s", got)
	}
	if text := r.markdown(); strings.Contains(text, "%!") || strings.Contains(text, "not installed") {
		t.Error(text)
	}
}
