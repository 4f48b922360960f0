// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/tls"
	"os/exec"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/load"
)

// measure is one thing that is measured of each front.
type measure struct {
	name    string
	program string // that it needs; "" for none
	take    func(ctx context.Context, b *bench, f *front, r *result) error
}

// The figures, by column.
const (
	plainRate, plainCPU   = "plain", "plain CPU"
	tlsRate, tlsCPU       = "TLS", "TLS CPU"
	http2Rate, http2CPU   = "HTTP/2", "HTTP/2 CPU"
	visitCPU, hybridCPU   = "visit CPU", "hybrid visit CPU"
	p50, p99              = "p50", "p99"
	plainMemory           = "memory, plain"
	tlsMemory             = "memory, TLS"
	microsecond, kilobyte = 1e6, 1 << 10
)

var measures = []measure{
	{"memory", "", func(_ context.Context, b *bench, f *front, r *result) error {
		if len(r.figures[f.name+"\x00"+plainMemory]) > 0 {
			return nil // what a process has once used, it may keep
		}
		before, err := f.process.Memory()
		if err != nil {
			return err
		}
		plain, err := b.keep(f, nil)
		defer closeAll(plain)
		if err != nil {
			return err
		}
		between, err := f.process.Memory()
		if err != nil {
			return err
		}
		secure, err := b.keep(f, clientTLS)
		defer closeAll(secure)
		if err != nil {
			return err
		}
		after, err := f.process.Memory()
		r.add(f, plainMemory, float64(between-before)/float64(b.idle)/kilobyte)
		r.add(f, tlsMemory, float64(after-between)/float64(b.idle)/kilobyte)
		return err
	}},
	{"plain", "wrk", func(ctx context.Context, b *bench, f *front, r *result) error {
		return rated(f, r, plainRate, plainCPU, b.lasts, func() (float64, error) { return b.wrk(ctx, "http://"+f.plain) })
	}},
	{"TLS", "wrk", func(ctx context.Context, b *bench, f *front, r *result) error {
		return rated(f, r, tlsRate, tlsCPU, b.lasts, func() (float64, error) { return b.wrk(ctx, "https://"+f.tls) })
	}},
	{"HTTP/2", "h2load", func(ctx context.Context, b *bench, f *front, r *result) error {
		return rated(f, r, http2Rate, http2CPU, b.lasts, func() (float64, error) { return b.h2load(ctx, f) })
	}},
	{"one TLS connection for each request", "", func(ctx context.Context, b *bench, f *front, r *result) error {
		return visited(ctx, b, f, r, visitCPU, clientTLS)
	}},
	{"the same with X25519MLKEM768", "", func(ctx context.Context, b *bench, f *front, r *result) error {
		config := hybridTLS()
		c, err := connect(f, config)
		if err != nil {
			return err
		}
		defer c.Close()
		if c.Conn.Conn.(*tls.Conn).ConnectionState().CurveID != config.CurvePreferences[0] {
			return nil // the front does not know it
		}
		return visited(ctx, b, f, r, hybridCPU, config)
	}},
	{"latency", "", func(ctx context.Context, b *bench, f *front, r *result) error {
		took, err := b.paced(ctx, f)
		if err != nil {
			return err
		}
		r.add(f, p50, took[len(took)/2].Seconds()*microsecond)
		r.add(f, p99, took[len(took)*99/100].Seconds()*microsecond)
		return nil
	}},
}

// cannot says why something cannot be measured, "" if it can.
func (b *bench) cannot(m measure) string {
	if m.program == "" {
		return ""
	}
	if _, err := exec.LookPath(m.program); err != nil {
		return m.program
	}
	return ""
}

// rated takes how many requests a second a front answers, and what each costs it.
func rated(f *front, r *result, rate, cost string, lasts time.Duration, measure func() (float64, error)) error {
	var n float64
	spent, err := load.CPU(f.process, func() (err error) { n, err = measure(); return err })
	if err != nil {
		return err
	}
	r.add(f, rate, n)
	r.add(f, cost, spent.Seconds()/(n*lasts.Round(time.Second).Seconds())*microsecond)
	return nil
}

// visited takes what clients cost that connect by TLS, ask once and leave.
func visited(ctx context.Context, b *bench, f *front, r *result, figure string, config *tls.Config) error {
	var n int
	spent, err := load.CPU(f.process, func() (err error) { n, err = b.comeAndGo(ctx, f, config); return err })
	if err != nil {
		return err
	}
	r.add(f, figure, spent.Seconds()/float64(n)*microsecond)
	return nil
}

// keep opens idle connections, on each of which one request was answered.
func (b *bench) keep(f *front, config *tls.Config) (clients []client, err error) {
	for range b.idle {
		c, err := connect(f, config)
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
		if _, err := c.ask(); err != nil {
			return clients, err
		}
	}
	return clients, nil
}

func closeAll(clients []client) {
	for _, c := range clients {
		_ = c.Close()
	}
}
