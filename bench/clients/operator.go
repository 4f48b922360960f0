// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// What an operator's own tools meet: the vault program's commands for one node, or for the cluster's data, sent to the
// redirector. It comes last: a node is started sealed, and the data are restored.

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const snapshotLine = "proxy path /v1/sys/storage/raft/snapshot*"

// operator runs the tools.
type operator struct {
	*command
	plain, mended *site
}

// tool is one of them. run finds out what comes of it; an error is a surprise.
type tool struct {
	name    string
	run     func(*operator, context.Context) (came string, err error)
	instead string // what to do instead, in Markdown
}

var tools = []tool{
	{"`vault status`", (*operator).status, "`VAULT_ADDR` at the node"},
	{"`vault operator init`", (*operator).initialise, "`VAULT_ADDR` at one of the nodes: without an active node, the redirector answers 503"},
	{"`vault operator unseal`", (*operator).unseal, "`VAULT_ADDR` at each sealed node"},
	{"`vault monitor`", (*operator).monitor, "`VAULT_ADDR` at a standby for its log"},
	{"`vault debug`", (*operator).debug, "`VAULT_ADDR` at a standby for what is in it"},
	{"`vault operator raft snapshot save`", (*operator).save, "`" + snapshotLine + "`: **proxied**; or `VAULT_ADDR` at `redirect_url` of the health document"},
	{"`vault operator raft snapshot restore`", (*operator).restore, "the same"},
}

// operate runs all tools.
func (m *matrix) operate(ctx context.Context) error {
	d, err := openVaultCLI(ctx, m.stage, m.operatorSite)
	if err != nil {
		return err
	}
	o := &operator{d.(*command), m.operatorSite, m.snapshotSite}
	// The node that was killed comes back, sealed.
	if err := m.stage.victim.Start(); err != nil {
		return err
	}
	if err := m.stage.victim.WaitHealth(ctx, http.StatusServiceUnavailable); err != nil {
		return err
	}
	for _, t := range tools {
		begin := time.Now()
		came, err := t.run(o, ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		m.tools = append(m.tools, []string{t.name, came, t.instead})
		m.tell("%s: %s, in %s", t.name, came, time.Since(begin).Round(time.Millisecond))
	}
	return nil
}

// at makes the vault program use another address.
func (o *operator) at(addr string) *command {
	c := *o.command
	c.env = append(c.env[:len(c.env):len(c.env)], "VAULT_ADDR="+addr)
	return &c
}

// through runs the vault program at a site, and wants to know that the request was answered so.
func (o *operator) through(ctx context.Context, at *site, answer string, args ...string) (string, error) {
	if err := at.skip(); err != nil {
		return "", err
	}
	out, err := o.at(at.addr).run(ctx, "", args...)
	results, logErr := at.results(ctx)
	if logErr == nil && results[answer] == 0 {
		logErr = fmt.Errorf("the redirector answered %v", results)
	}
	if logErr != nil {
		return "", errors.Join(logErr, err)
	}
	return out, err
}

func (o *operator) status(ctx context.Context) (string, error) {
	out, err := o.through(ctx, o.plain, "redirected", "status")
	if err != nil {
		return "", err
	}
	if fields := strings.Join(strings.Fields(out), " "); !strings.Contains(fields, "Sealed false") || !strings.Contains(fields, "HA Mode active") {
		return "", fmt.Errorf("not the status of the active node:\n%s", out)
	}
	return "redirect: that of the active node, even if another node is sealed", nil
}

func (o *operator) initialise(ctx context.Context) (string, error) {
	_, err := o.through(ctx, o.plain, "redirected", "operator", "init")
	if err == nil || !strings.Contains(err.Error(), "already initialized") {
		return "", fmt.Errorf("want an error that it is initialised already: %w", err)
	}
	return "redirect: `Vault is already initialized`, as the active node says", nil
}

func (o *operator) unseal(ctx context.Context) (string, error) {
	s := o.stage
	out, err := o.through(ctx, o.plain, "redirected", "operator", "unseal", s.UnsealKey())
	if err != nil {
		return "", err
	}
	if !strings.Contains(strings.Join(strings.Fields(out), " "), "Sealed false") {
		return "", fmt.Errorf("not the answer of a node that is unsealed:\n%s", out)
	}
	if code, err := s.victim.Health(ctx); err != nil || code != http.StatusServiceUnavailable {
		return "", fmt.Errorf("the node that was sealed: health %d, %w", code, err)
	}
	if _, err := o.at(s.victim.URL).run(ctx, "", "operator", "unseal", s.UnsealKey()); err != nil {
		return "", err
	}
	if err := s.victim.WaitHealth(ctx, http.StatusTooManyRequests, http.StatusOK); err != nil {
		return "", err
	}
	return "redirect: the active node says `Sealed false`, and the sealed node stays sealed", s.WaitHealthy(ctx)
}

func (o *operator) monitor(ctx context.Context) (string, error) {
	s := o.stage
	p := &process.Process{
		Name: "vault monitor", Path: o.path, Args: []string{"monitor", "-log-level=info"}, Dir: s.dir,
		Env: o.env, LogFile: filepath.Join(s.dir, "monitor.log"),
	}
	if err := o.plain.skip(); err != nil {
		return "", err
	}
	if err := p.Start(); err != nil {
		return "", err
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// The nodes are configured to log warnings only.
	if err := s.ask(ctx, http.MethodPost, "sys/loggers", map[string]string{"level": "info"}, nil); err != nil {
		return "", err
	}
	n := 0
	err := wait.Poll(ctx, 200*time.Millisecond, "wait for a line of Vault's log", func(ctx context.Context) error {
		n++
		if err := s.ask(ctx, http.MethodPost, fmt.Sprintf("sys/mounts/monitored-%d", n), map[string]string{"type": "kv"}, nil); err != nil {
			return err
		}
		if err := p.Ended(); err != nil {
			return err
		}
		if !strings.Contains(p.Log(), "successful mount") {
			return fmt.Errorf("it reads %q", p.Tail(3))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if results, err := o.plain.results(ctx); err != nil || results["redirected"] == 0 {
		return "", fmt.Errorf("the redirector answered %v, %w", results, err)
	}
	return "redirect: the log of the active node, as it comes", nil
}

func (o *operator) debug(ctx context.Context) (string, error) {
	dir := filepath.Join(o.stage.dir, "debug")
	_, err := o.through(ctx, o.plain, "redirected", "debug", "-duration=5s", "-interval=5s", "-metrics-interval=5s", "-compress=false",
		"-target=server-status", "-target=host", "-output="+dir)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, "server_status.json"))
	if err != nil {
		return "", err
	}
	if !strings.Contains(strings.Join(strings.Fields(string(text)), ""), `"standby":false`) {
		return "", fmt.Errorf("not the status of the active node:\n%.1000s", text)
	}
	return "redirect: the bundle of the active node", nil
}

func (o *operator) snapshot() string { return filepath.Join(o.stage.dir, "raft.snap") }

func (o *operator) save(ctx context.Context) (string, error) {
	s := o.stage
	if err := s.put(ctx, "operator", "before"); err != nil {
		return "", err
	}
	_, err := o.through(ctx, o.plain, "redirected", "operator", "raft", "snapshot", "save", o.snapshot())
	if err == nil {
		return "", errors.New("it works through a redirect now")
	}
	said := s.said(err)
	if _, err := o.through(ctx, o.mended, "proxied", "operator", "raft", "snapshot", "save", o.snapshot()); err != nil {
		return "", err
	}
	if _, err := o.run(ctx, "", "operator", "raft", "snapshot", "inspect", o.snapshot()); err != nil {
		return "", err
	}
	return "**no**: " + code(said) + " ([hashicorp/vault#15258](https://github.com/hashicorp/vault/issues/15258))", nil
}

func (o *operator) restore(ctx context.Context) (string, error) {
	s := o.stage
	if err := s.put(ctx, "operator", "after"); err != nil {
		return "", err
	}
	came := "redirect: the data are restored"
	_, err := o.through(ctx, o.plain, "redirected", "operator", "raft", "snapshot", "restore", o.snapshot())
	if err != nil {
		came = "**no**: " + code(s.said(err))
	} else if value, _, err := s.get(ctx, "operator"); err != nil || value != "before" {
		came = "**no**: it says nothing, and nothing is restored"
	}
	if err := s.put(ctx, "operator", "after"); err != nil {
		return "", err
	}
	if _, err := o.through(ctx, o.mended, "proxied", "operator", "raft", "snapshot", "restore", o.snapshot()); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return came, wait.Poll(ctx, pollEvery, "wait for the restored data", func(ctx context.Context) error {
		value, _, err := s.get(ctx, "operator")
		if err == nil && value != "before" {
			err = fmt.Errorf("the secret is %q", value)
		}
		return err
	})
}
