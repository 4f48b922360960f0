// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// Clients that are libraries: a program in the library's language runs from before the failover until after it, takes one
// request a line, and answers each by one line of JSON.

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
)

// answer is a line that a program says. The first one has the version, or why the program cannot work.
type answer struct {
	Version string
	Missing string
	Value   string
	Error   string
	Lacks   bool
}

// scripted is a driver in another program.
type scripted struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan []byte
	errors bytes.Buffer // what the program writes to stderr; to be read when it has ended
	of     string
}

// withoutEnv are the variables that would change what clients do.
var withoutEnv = []string{
	"VAULT_", "CONSUL_", "HTTP_PROXY=", "HTTPS_PROXY=", "NO_PROXY=", "http_proxy=", "https_proxy=", "no_proxy=", "ALL_PROXY=", "all_proxy=",
	"NODE_", "SSL_CERT_", "REQUESTS_CA_BUNDLE=", "CURL_CA_BUNDLE=", "TF_",
}

// env is the environment of a client that is to use a site.
func (s *stage) env(at *site, more ...string) []string {
	return process.Environ(append([]string{
		"VAULT_ADDR=" + at.addr, "VAULT_TOKEN=" + s.RootToken, "VAULT_CACERT=" + s.VaultCA, "HOME=" + s.dir,
		"CLIENT_CERT=" + s.clientCert, "CLIENT_KEY=" + s.clientKey, "NODE_EXTRA_CA_CERTS=" + s.VaultCA,
	}, more...), append(withoutEnv, "HOME=")...)
}

// openScripted starts a program.
func openScripted(ctx context.Context, env []string, program string, args ...string) (driver, error) {
	d := &scripted{cmd: exec.Command(program, args...), lines: make(chan []byte)}
	d.cmd.Env = env
	d.cmd.Stderr = &d.errors
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := d.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.in = in
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.lines)
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			d.lines <- line
		}
	}()
	first, err := d.hear(ctx)
	if err == nil && first.Missing != "" {
		err = missing("%s", first.Missing)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.of = first.Version
	return d, nil
}

func (d *scripted) version() string { return d.of }

func (d *scripted) do(ctx context.Context, q request) (string, error) {
	text, err := json.Marshal(q)
	if err != nil {
		return "", err
	}
	if _, err := d.in.Write(append(text, '\n')); err != nil {
		return "", err
	}
	a, err := d.hear(ctx)
	switch {
	case err != nil:
		return "", err
	case a.Lacks:
		return "", errLacks
	case a.Error != "":
		return "", errors.New(a.Error)
	}
	return a.Value, nil
}

// hear takes the next line.
func (d *scripted) hear(ctx context.Context) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	select {
	case line, ok := <-d.lines:
		if !ok {
			_ = d.cmd.Wait()
			return a, fmt.Errorf("%s has ended: %s", d.cmd, d.errors.String())
		}
		return a, json.Unmarshal(line, &a)
	case <-ctx.Done():
		return a, fmt.Errorf("%s says nothing: %w", d.cmd, ctx.Err())
	}
}

// close ends the program, which has nothing left to do once its input ends.
func (d *scripted) close() error {
	_ = d.in.Close()
	_ = d.cmd.Process.Kill()
	for range d.lines { // so that its reader ends
	}
	_ = d.cmd.Wait()
	return nil
}
