// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/spf13/cobra"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/check"
	"github.com/vault-redirector/caddy-vault-redirect/internal/consul"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/instance"
	"github.com/vault-redirector/caddy-vault-redirect/internal/logswitch"
	"github.com/vault-redirector/caddy-vault-redirect/internal/nodes"
	"github.com/vault-redirector/caddy-vault-redirect/internal/sanitize"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "vault-redirect",
		Usage: "[flags] CONSUL_HOST_PORT | --vault URL...",
		Short: "Redirects Vault clients to the active node, with the flags of vault-redirector",
		Long: `
Answers every request with a 307 Temporary Redirect to the active node of the
Vault cluster that is registered in Consul. It takes the flags of the Python
program vault-redirector, with their meaning and their defaults.

CONSUL_HOST_PORT is the address of a Consul agent in host:port form. What the
flags cannot say (a token, TLS to Consul, ...) is taken from the environment
variables of Consul's own client, such as CONSUL_HTTP_TOKEN and CONSUL_CACERT.

Without Consul, the nodes themselves can be asked: --vault https://vault-0:8200
--vault https://vault-1:8200; then -p is the probe interval.

Without -C the active node is found by the tags that Vault registers itself
with, else by the check service:vault, else by all checks of the instance.

The health of the redirector is served at /vault-redirector-health.

The signal USR1 turns logging on, and USR2 off. They set the level of the log
through Caddy's admin endpoint, which is at localhost:2019, or where CADDY_ADMIN
says. Where there are no such signals, a request to it does the same:

    curl --json '"INFO"'  localhost:2019/config/logging/logs/default/level
    curl --json '"FATAL"' localhost:2019/config/logging/logs/default/level

Everything else is easier with a Caddyfile: see ` + instance.SourceURL + `.`,
		CobraFunc: func(cmd *cobra.Command) {
			f := cmd.Flags()
			f.CountP("verbose", "v", "Log more: -v for INFO, with a line per request; -vv for DEBUG (default: WARN)")
			f.BoolP("log-disable", "l", false, "Log nothing once the program has started; SIGUSR1 turns logging on")
			f.BoolP("version", "V", false, "Print the version and exit")
			f.BoolP("https", "S", false, "Redirect to https instead of http")
			f.BoolP("ip", "I", false, "Redirect to the address of the active node instead of its name")
			f.Float64P("poll-interval", "p", 5, "Longest time between two queries of Consul, from 0.1 to 600 seconds (below 1 it is 1); changes arrive at once in any case")
			f.IntP("port", "P", 8080, "Port to listen on")
			f.StringP("checkid", "C", "", `ID of the Consul check that passes on the active node only (default: Vault's tags, else "service:vault", else all checks)`)
			f.StringP("cert-path", "c", "", "PEM file with the certificate for serving https, followed by its chain; needs -k")
			f.StringP("key-path", "k", "", "PEM file with the private key of the certificate; needs -c")
			f.StringArray("vault", nil, "URL of a Vault node, instead of CONSUL_HOST_PORT: the nodes themselves say which is active (repeatable)")
			cmd.RunE = caddycmd.WrapCommandFuncForCobra(runCommand)
			status.AddCommands(cmd)
			cmd.AddCommand(check.Command(loadForCheck))
		},
	})
}

// runCommand runs Caddy with the config of the flags.
func runCommand(fs caddycmd.Flags) (int, error) {
	if fs.Bool("version") {
		fmt.Printf("vault-redirector %s (see <%s> for source code)\n", instance.Version(), instance.SourceURL)
		return caddy.ExitCodeSuccess, nil
	}
	config, err := commandConfig(fs)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	caddy.TrapSignals()
	if err := caddy.Run(config); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	logswitch.ObeySignals(logLevelOf(fs))
	select {}
}

// hostPort matches the addresses that vault-redirector accepts.
var hostPort = regexp.MustCompile(`^.+:[0-9]+$`)

// commandConfig returns the config of the flags.
func commandConfig(fs caddycmd.Flags) (*caddy.Config, error) {
	vault, _ := fs.GetStringArray("vault") // an error means that it is no list, which it is
	seconds, port, cert, key := fs.Float64("poll-interval"), fs.Int("port"), fs.String("cert-path"), fs.String("key-path")
	switch {
	case len(vault) > 0 && fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q: CONSUL_HOST_PORT and --vault are mutually exclusive", fs.Arg(0))
	case len(vault) > 0 && (fs.Changed("checkid") || fs.Changed("ip")):
		return nil, errors.New("-C/--checkid and -I/--ip cannot be used with --vault: they are for Consul")
	case len(vault) > 0:
		for _, u := range vault {
			if _, err := nodes.ParseURL(u); err != nil {
				return nil, fmt.Errorf("--vault: %w", err)
			}
		}
	case fs.NArg() == 0:
		return nil, errors.New("CONSUL_HOST_PORT is missing: the address of a Consul agent, such as 127.0.0.1:8500")
	case fs.NArg() > 1:
		return nil, fmt.Errorf("unexpected argument %q: only CONSUL_HOST_PORT goes there", fs.Arg(1))
	case !hostPort.MatchString(fs.Arg(0)):
		return nil, errors.New("CONSUL_HOST_PORT must be in host:port or ip:port format, such as 127.0.0.1:8500; the commands beside it are check, history and status")
	}
	_, certErr := os.Stat(cert)
	switch {
	case !(seconds >= 0.1 && seconds <= 600): // NaN is neither
		return nil, fmt.Errorf("-p/--poll-interval: %v is not a number of seconds from 0.1 to 600", seconds)
	case port < 1 || port > 65535:
		return nil, fmt.Errorf("-P/--port: %d is not between 1 and 65535", port)
	case cert != "" && key == "" && errors.Is(certErr, os.ErrNotExist):
		return nil, fmt.Errorf("-c/--cert-path: there is no file %q; if it is the ID of a Consul check, which was -c in the first vault-redirector, that is -C (--checkid) now", cert)
	case (cert == "") != (key == ""):
		return nil, errors.New("-k|--key-path and -c|--cert-path must be specified together")
	}
	if cert != "" {
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			return nil, fmt.Errorf("-c/--cert-path %s, -k/--key-path %s: %w", cert, key, err)
		}
	}
	return &caddy.Config{
		Admin:   &caddy.AdminConfig{Config: &caddy.ConfigSettings{Persist: new(bool)}},
		Logging: commandLogging(fs),
		AppsRaw: commandApps(commandHandler(fs, vault, seconds), port, cert, key),
	}, nil
}

// commandHandler returns the handler of the flags.
func commandHandler(fs caddycmd.Flags, vault []string, seconds float64) Handler {
	var h Handler
	if fs.Bool("https") {
		h.Scheme = "https"
	}
	every := caddy.Duration(seconds * float64(time.Second))
	if len(vault) > 0 {
		h.DiscoveryRaw = caddyconfig.JSONModuleObject(Vault{URLs: vault}, "source", "vault", nil)
		if fs.Changed("poll-interval") {
			h.Probe = &Probe{Interval: every}
		}
		return h
	}
	source := Consul{Address: fs.Arg(0), PollInterval: max(every, caddy.Duration(minPoll))}
	if id := fs.String("checkid"); id != "" {
		source.ActiveBy, source.CheckID = discovery.ByCheck, id
	}
	h.DiscoveryRaw = caddyconfig.JSONModuleObject(source, "source", "consul", nil)
	h.Scheme, h.RedirectTo = cmp.Or(h.Scheme, "http"), engine.ToNodeName
	if fs.Bool("ip") {
		h.RedirectTo = engine.ToNodeAddress
	}
	return h
}

// commandApps returns the apps: one server with only the handler.
func commandApps(handler Handler, port int, cert, key string) caddy.ModuleMap {
	server := &caddyhttp.Server{
		Listen: []string{fmt.Sprintf(":%d", port)},
		Routes: caddyhttp.RouteList{{
			HandlersRaw: []json.RawMessage{caddyconfig.JSONModuleObject(handler, "handler", "vault_redirect", nil)},
		}},
		AutoHTTPS: &caddyhttp.AutoHTTPSConfig{Disabled: true},
		Logs:      new(caddyhttp.ServerLogConfig), // at INFO, so that the level turns them on and off
	}
	app := caddyhttp.App{
		GracePeriod: caddy.Duration(10 * time.Second),
		Servers:     map[string]*caddyhttp.Server{"vault-redirect": server},
	}
	// Nothing is stored, so that the program needs no writable folder.
	tlsApp := caddytls.TLS{DisableStorageCheck: true, DisableStorageClean: true}
	if cert != "" {
		const tag = "vault-redirect"
		// The certificate is served for any name that the client asks for, as vault-redirector did.
		server.TLSConnPolicies = caddytls.ConnectionPolicies{{
			CertSelection: &caddytls.CustomCertSelectionPolicy{AnyTag: []string{tag}},
		}}
		files := caddytls.FileLoader{{Certificate: cert, Key: key, Tags: []string{tag}}}
		tlsApp.CertificatesRaw = caddy.ModuleMap{"load_files": caddyconfig.JSON(files, nil)}
		if port == caddyhttp.DefaultHTTPPort {
			app.HTTPPort = caddyhttp.DefaultHTTPSPort // Caddy does not serve TLS on its HTTP port
		}
	}
	return caddy.ModuleMap{"http": caddyconfig.JSON(app, nil), "tls": caddyconfig.JSON(tlsApp, nil)}
}

// logLevelOf returns the level of the log for the number of -v.
func logLevelOf(fs caddycmd.Flags) string {
	verbose, _ := fs.GetCount("verbose") // an error means that it is no count, which it is
	return []string{"WARN", "INFO", "DEBUG"}[min(verbose, 2)]
}

// commandLogging returns the logging for the flags: one log, from which tokens are filtered.
func commandLogging(fs caddycmd.Flags) *caddy.Logging {
	level := logLevelOf(fs)
	if fs.Bool("log-disable") {
		level = logswitch.Off
	}
	fields := map[string]any{}
	for _, name := range sanitize.SecretHeaders {
		fields["request>headers>"+name] = map[string]string{"filter": "delete"}
	}
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		"default": {BaseLog: caddy.BaseLog{
			Level:      level,
			EncoderRaw: caddyconfig.JSON(map[string]any{"format": "filter", "fields": fields}, nil),
		}},
	}}
}

// loadForCheck decodes, validates and completes a handler for the command check.
func loadForCheck(ctx caddy.Context, raw json.RawMessage) (check.Subject, error) {
	var h Handler
	if err := caddy.StrictUnmarshalJSON(raw, &h); err != nil {
		return check.Subject{}, err
	}
	if err := h.Validate(); err != nil {
		return check.Subject{}, err
	}
	config, err := h.complete(ctx)
	return check.Subject{Discoverer: h.discoverer, Config: config, Secrets: secretsOf(h.discoverer)}, err
}

// secretsOf returns the secrets of a discovery, which must not be printed.
func secretsOf(d discovery.Discoverer) (list []string) {
	c, ok := d.(*Consul)
	if !ok {
		return nil
	}
	list = append(list, c.resolved.token)
	if c.resolved.auth != nil {
		list = append(list, c.resolved.auth.Password)
	}
	if c.resolved.TokenFile != "" {
		if token, err := consul.ReadToken(c.resolved.TokenFile); err == nil {
			list = append(list, token)
		}
	}
	return list
}
