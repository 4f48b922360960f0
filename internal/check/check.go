// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package check is the command check: it finds out what is wrong with the handlers of a config, or with a cluster that its flags
// name, and needs no running Caddy.
package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/consul"
	"github.com/vault-redirector/caddy-vault-redirect/internal/doctor"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/nodes"
)

// exitWrong is the exit code if the check found something wrong.
const exitWrong = 2

// maxTimeout limits --timeout.
const maxTimeout = 10 * time.Minute

// Loader decodes, validates and completes the JSON of a handler. It uses no network.
type Loader func(ctx caddy.Context, raw json.RawMessage) (Subject, error)

// Subject has the settings of a handler for its cluster.
type Subject struct {
	Discoverer discovery.Discoverer
	Config     engine.Config
	Secrets    []string // must not be printed
}

// Command returns the command check.
func Command(load Loader) *cobra.Command {
	check := &cobra.Command{
		Use:   "check [CONSUL_HOST_PORT | --vault URL... | --config FILE [--adapter NAME]] [--scheme http|https] [--token-file FILE] [--json] [--timeout 10s]",
		Short: "Finds out what is wrong with Consul, the Vault nodes and the connections to them",
		Long: `
Sends the queries of vault_redirect to Consul and the Vault nodes, from this
machine, and says what is right, what is wrong, and what to do about it. It
needs no running Caddy, opens no port and sends no token to Vault.

It checks every vault_redirect handler of a config file (Caddyfile or JSON), or
the Consul agent at CONSUL_HOST_PORT, or the nodes that --vault names. Without
any of these it checks the Consul agent that CONSUL_HTTP_ADDR names, else that
at 127.0.0.1:8500. The environment variables of Consul's own client are used as
in a config.

A query that waits for a change is watched for a tenth of --timeout, 1s unless
you say otherwise. A proxy in front of Consul that cuts such queries short after
30s shows with --timeout 6m.

Each line is ok, warning or wrong. Exit code: 0 if nothing is wrong, 2 if
something is, 1 if nothing could be checked.`,
		PreRun: func(cmd *cobra.Command, _ []string) { cmd.SilenceErrors = true }, // the exit code says enough; other errors are logged
		RunE:   caddycmd.WrapCommandFuncForCobra(func(fs caddycmd.Flags) (int, error) { return Run(os.Stdout, fs, load) }),
	}
	f := check.Flags()
	f.StringArray("vault", nil, "URL of a Vault node, in place of CONSUL_HOST_PORT (repeatable)")
	f.String("config", "", "Config file with the vault_redirect handlers to check")
	f.String("adapter", "", "Adapter of the config file (default: caddyfile, or none for JSON)")
	f.String("scheme", "", "Scheme of the redirects, http or https (default: https)")
	f.String("token-file", "", "File with the ACL token for Consul")
	f.Bool("json", false, "Print the findings as a JSON list of {check, subject, result, detail, remedy}")
	f.Duration("timeout", 10*time.Second, "Longest time to wait for Consul and the first probes, and then for each node; a tenth of it for a query that waits for a change")
	return check
}

// Run checks the handlers that the flags name, prints the findings, and returns the exit code.
func Run(to io.Writer, fs caddycmd.Flags, load Loader) (int, error) {
	reports, err := check(fs, load)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if fs.Bool("json") {
		err = doctor.PrintJSON(to, reports)
	} else {
		err = doctor.Print(to, reports)
	}
	switch {
	case err != nil:
		return caddy.ExitCodeFailedStartup, err
	case doctor.Count(reports, doctor.Wrong) > 0:
		return exitWrong, nil
	}
	return caddy.ExitCodeSuccess, nil
}

// check returns a report on each cluster that the flags name.
func check(fs caddycmd.Flags, load Loader) ([]doctor.Report, error) {
	timeout := fs.Duration("timeout")
	if timeout <= 0 || timeout > maxTimeout {
		return nil, fmt.Errorf("--timeout: %s is not between 0 and %s", timeout, maxTimeout)
	}
	handlers, err := handlersByFlags(fs)
	if err != nil {
		return nil, err
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	d, secrets := doctor.New(), []string{os.Getenv(api.HTTPTokenEnvName)}
	for _, h := range handlers {
		s, err := load(ctx, h.raw)
		if err == nil {
			err = d.Add(s.Discoverer, s.Config, h.sites...)
		}
		switch {
		case err != nil && h.place != "":
			return nil, fmt.Errorf("%s: %w", h.place, err)
		case err != nil:
			return nil, err
		}
		secrets = append(secrets, s.Secrets...)
	}
	var reports []doctor.Report
	for _, o := range d.Observe(ctx, timeout) {
		r := doctor.Report{Title: o.Title(), Findings: o.Findings()}
		r.Clean(secrets)
		reports = append(reports, r)
	}
	return reports, nil
}

// handlersByFlags returns the handlers that the flags name or describe.
func handlersByFlags(fs caddycmd.Flags) ([]handler, error) {
	vault, _ := fs.GetStringArray("vault") // an error means that it is no list, which it is
	config, scheme, tokenFile := fs.String("config"), fs.String("scheme"), fs.String("token-file")
	switch {
	case fs.NArg() > 1:
		return nil, fmt.Errorf("%d arguments: only one CONSUL_HOST_PORT can be given", fs.NArg())
	case fs.NArg() > 0 && len(vault) > 0, fs.NArg() > 0 && config != "", len(vault) > 0 && config != "":
		return nil, errors.New("CONSUL_HOST_PORT, --vault and --config are mutually exclusive")
	case config == "" && fs.String("adapter") != "":
		return nil, errors.New("--adapter needs --config")
	case config == "" && fs.Changed("config"):
		return nil, errors.New("--config: the name of the file is missing")
	case config != "" && (scheme != "" || tokenFile != ""):
		return nil, errors.New("--scheme and --token-file cannot be used with --config, which sets both")
	case len(vault) > 0 && tokenFile != "":
		return nil, errors.New("--token-file cannot be used with --vault: it is for Consul")
	case config != "":
		return handlersByConfig(config, fs.String("adapter"))
	}
	source := map[string]any{"source": "consul", "address": fs.Arg(0), "token_file": tokenFile}
	if len(vault) > 0 {
		for _, u := range vault {
			if _, err := nodes.ParseURL(u); err != nil {
				return nil, fmt.Errorf("--vault: %w", err)
			}
		}
		source = map[string]any{"source": "vault", "urls": vault}
	}
	if fs.NArg() > 0 {
		if !strings.Contains(fs.Arg(0), ":") { // the argument is not shown: it may be a token
			return nil, errors.New("CONSUL_HOST_PORT must be in host:port form, such as 127.0.0.1:8500")
		}
		if _, err := consul.ParseEndpoint(fs.Arg(0), false); err != nil {
			return nil, fmt.Errorf("CONSUL_HOST_PORT: %w", err)
		}
	}
	if _, err := os.Stat(tokenFile); tokenFile != "" && err != nil { // the name is not shown: it may be the token itself
		return nil, fmt.Errorf("--token-file takes the name of a file: %w", errors.Unwrap(err))
	}
	// Empty values get their defaults.
	raw, err := json.Marshal(map[string]any{"scheme": scheme, "discovery": source})
	return []handler{{raw: raw}}, err
}
