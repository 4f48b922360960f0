// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// Command clients finds out which clients of Vault work through the redirector: real ones, each with what clients do,
// against real Vault and Consul over TLS, before and after the death of the active node. It writes what came of it into
// docs/clients.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/vault-redirector/caddy-vault-redirect"
	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

func main() {
	if harness.AsCaddy() { // this program is the Caddy that the clients meet
		caddycmd.Main()
		return
	}
	o := options{fetch: true, tell: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
	var out string
	flag.StringVar(&out, "out", "", "`file` in which the Markdown replaces that of the last run")
	flag.StringVar(&o.only, "only", "", "run only clients whose name contains this `text`")
	flag.StringVar(&o.line, "option", "", "an option of vault_redirect for all sites, such as `\"standby method GET LIST\"`")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := mainRun(ctx, o, out); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func mainRun(ctx context.Context, o options, out string) error {
	if out != "" && (o.only != "" || o.line != "") {
		return errors.New("a page is written by a whole run only: without -only and -option")
	}
	m, err := run(ctx, o)
	if err != nil {
		return err
	}
	text := m.markdown()
	fmt.Print(text)
	if out != "" {
		if err := page.Replace(out, "clients", text); err != nil {
			return err
		}
	}
	return m.surprises()
}
