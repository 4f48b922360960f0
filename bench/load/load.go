// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package load puts load on a server and measures what it costs the server: each has a core of its own.
package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
)

// The cores: servers have one, and the load, with this process, the other.
const serverCore, loadCore = "0", "1"

// Pin confines this process, and what it starts from now on, to the core of the load.
func Pin(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "taskset", "-a", "-p", "-c", loadCore, fmt.Sprint(os.Getpid())).CombinedOutput()
	if err != nil {
		return fmt.Errorf("taskset: %w: %s", err, out)
	}
	return nil
}

// OnServerCore makes a process that is not started yet run on the core of servers.
func OnServerCore(p *process.Process) {
	p.Path, p.Args = "taskset", append([]string{"-c", serverCore, p.Path}, p.Args...)
}

// NewPeer returns a program, not yet started, on the core of servers. Its config is written to a file in a folder, the last of its arguments.
func NewPeer(program, path, dir, config string, args []string) (*process.Process, error) {
	file := filepath.Join(dir, program+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p := &process.Process{Name: program, Path: path, Args: append(args, file), LogFile: filepath.Join(dir, program+".log")}
	OnServerCore(p)
	return p, nil
}

// CPU returns the CPU time that something costs a process.
func CPU(p *process.Process, load func() error) (time.Duration, error) {
	before, err := p.CPUTime()
	if err != nil {
		return 0, err
	}
	if err := load(); err != nil {
		return 0, err
	}
	after, err := p.CPUTime()
	return after - before, err
}

// Conn is a connection of HTTP/1.1.
type Conn struct {
	net.Conn
	reader *bufio.Reader
}

// Connect connects to a server, by TLS if there is a config for it.
func Connect(address string, config *tls.Config) (*Conn, error) {
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
	return &Conn{c, bufio.NewReaderSize(c, 512)}, nil
}

// Ask sends a request and returns the answer, whose body was read, and how long that is.
func (c *Conn) Ask(request []byte) (res *http.Response, length int64, err error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(request); err != nil {
		return nil, 0, err
	}
	if res, err = http.ReadResponse(c.reader, nil); err != nil {
		return nil, 0, err
	}
	length, err = io.Copy(io.Discard, res.Body)
	return res, length, err
}

// Paced does things at a rate, each when its time has come, however long others take. Each of those that ask does one at a time. It
// returns how long each took from when it was due, in order of length.
func Paced(ctx context.Context, rate int, lasts time.Duration, ask []func() error) ([]time.Duration, error) {
	total := max(1, int(float64(rate)*lasts.Seconds()))
	took := make([]time.Duration, total)
	begin, gap := time.Now().Add(50*time.Millisecond), time.Second/time.Duration(rate)
	errs := make([]error, len(ask))
	var wg sync.WaitGroup
	for i, ask := range ask {
		alarm, err := NewAlarm()
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			defer alarm.Close()
			for n := i; n < total && ctx.Err() == nil; n += len(errs) {
				due := begin.Add(time.Duration(n) * gap)
				alarm.Until(due)
				if errs[i] = ask(); errs[i] != nil {
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

var (
	wrkRate    = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkErrors  = regexp.MustCompile(`Socket errors: .*|Non-2xx or 3xx responses: .*`)
	h2loadRate = regexp.MustCompile(`finished in [^,]+, ([\d.]+) req/s`)
	h2loadSum  = regexp.MustCompile(`(\d+) failed, (\d+) errored`)
)

// Wrk asks as fast as it can over HTTP/1.1, and returns how many requests a second were answered.
func Wrk(ctx context.Context, url string, connections int, lasts time.Duration, headers ...string) (float64, error) {
	args := []string{"-t1", "-c", strconv.Itoa(connections), "-d", Seconds(lasts)}
	for _, header := range headers {
		args = append(args, "-H", header)
	}
	out, err := exec.CommandContext(ctx, "wrk", append(args, url)...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if m := wrkErrors.Find(out); m != nil {
		return 0, fmt.Errorf("wrk: %s", m)
	}
	return rateIn(wrkRate, out)
}

// H2load asks as fast as it can, over HTTP/2 where the server has it, so many requests at once on each connection.
func H2load(ctx context.Context, url string, connections, atOnce int, lasts time.Duration, headers ...string) (float64, error) {
	args := []string{"-t1", "-c", strconv.Itoa(connections), "-m", strconv.Itoa(atOnce), "-D", Seconds(lasts)}
	for _, header := range headers {
		args = append(args, "-H", header)
	}
	out, err := exec.CommandContext(ctx, "h2load", append(args, url)...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("h2load: %w: %s", err, out)
	}
	if m := h2loadSum.FindSubmatch(out); m == nil || string(m[1]) != "0" || string(m[2]) != "0" {
		return 0, fmt.Errorf("h2load: requests failed: %s", out)
	}
	return rateIn(h2loadRate, out)
}

// Seconds is how long wrk and h2load take something that lasts so long: they know whole seconds.
func Seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(d.Round(time.Second).Seconds())))
}

func rateIn(expression *regexp.Regexp, out []byte) (float64, error) {
	m := expression.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no rate in %q", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
