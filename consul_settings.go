// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how the config of the discovery through Consul is completed, and checked.

package vaultredirect

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/consul"
)

// consulSettings is the config made complete: a copy, since what placeholders stand for must not show in the config.
type consulSettings struct {
	Consul
	endpoint    consul.Endpoint
	token       string
	fileToken   string // what the token file holds now
	auth        *api.HttpBasicAuth
	tlsSettings TLS
	tls         *tls.Config
	tlsKey      [sha256.Size]byte
}

// resolve fills placeholders, then gaps from the environment, then defaults, and checks the outcome.
func (c *Consul) resolve(repl *caddy.Replacer, getenv func(string) string) (*consulSettings, error) {
	s := &consulSettings{Consul: *c}
	s.resolved = nil
	if c.TLS != nil {
		s.tlsSettings = *c.TLS
	}
	if c.Token != nil {
		s.token = *c.Token
	}
	for name, field := range map[string]*string{
		"address": &s.Address, "service": &s.Service, "tag": &s.Tag, "check_id": &s.CheckID, "token": &s.token,
		"token_file": &s.TokenFile, "datacenter": &s.Datacenter, "namespace": &s.Namespace, "partition": &s.Partition,
		"peer": &s.Peer,
	} {
		var err error
		if *field, err = repl.ReplaceOrErr(*field, true, true); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := s.tlsSettings.expand(repl); err != nil {
		return nil, err
	}
	if s.Token != nil && s.TokenFile != "" {
		return nil, errTwoTokens
	}
	if err := s.fillFromEnv(getenv); err != nil {
		return nil, err
	}
	s.Service = cmp.Or(s.Service, "vault")
	s.ActiveBy = cmp.Or(s.ActiveBy, discovery.ByAuto)
	s.Tag = cmp.Or(s.Tag, "active")
	s.Consistency = cmp.Or(s.Consistency, consul.ConsistencyDefault)
	s.PollInterval = cmp.Or(s.PollInterval, caddy.Duration(30*time.Second))
	if err := s.check(); err != nil {
		return nil, err
	}
	var err error
	if s.tls, s.tlsKey, err = s.tlsSettings.config(); err != nil {
		return nil, err
	}
	if s.TokenFile != "" {
		s.fileToken, err = consul.ReadToken(s.TokenFile)
	}
	return s, err
}

// fillFromEnv fills what the config leaves out, as Consul's own client would, and finds the endpoint.
func (s *consulSettings) fillFromEnv(getenv func(string) string) error {
	fill := func(field *string, names ...string) {
		for _, name := range names {
			*field = cmp.Or(*field, getenv(name))
		}
	}
	source := "address"
	if s.Address == "" {
		source = api.HTTPAddrEnvName
		fill(&s.Address, api.HTTPAddrEnvName)
		s.Address = cmp.Or(s.Address, "127.0.0.1:8500")
	}
	useTLS, err := envBool(getenv, api.HTTPSSLEnvName, false)
	if err != nil {
		return err
	}
	useTLS = useTLS || s.TLS != nil // settings for TLS mean TLS
	if s.endpoint, err = consul.ParseEndpoint(s.Address, useTLS); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if useTLS && source != "address" {
		s.endpoint.Scheme = "https" // as Consul's own client: from the environment, TLS is never taken back by http://
	}
	if s.TLS != nil && s.endpoint.Scheme != "https" {
		return fmt.Errorf("tls: there are settings for it, but the address %s says http", s.endpoint)
	}
	if s.Token == nil && s.TokenFile == "" {
		if fill(&s.TokenFile, api.HTTPTokenFileEnvName); s.TokenFile == "" {
			fill(&s.token, api.HTTPTokenEnvName)
		}
	}
	if auth := getenv(api.HTTPAuthEnvName); auth != "" {
		user, password, _ := strings.Cut(auth, ":")
		s.auth = &api.HttpBasicAuth{Username: user, Password: password}
	}
	fill(&s.Namespace, api.HTTPNamespaceEnvName)
	fill(&s.Partition, api.HTTPPartitionEnvName)
	fill(&s.tlsSettings.CA, api.HTTPCAFile, api.HTTPCAPath)
	if s.tlsSettings.ServerName == "" {
		fill(&s.tlsSettings.ServerName, api.HTTPTLSServerName)
		if host, _, err := net.SplitHostPort(s.tlsSettings.ServerName); err == nil {
			s.tlsSettings.ServerName = host
		}
	}
	if s.tlsSettings.Cert == "" && s.tlsSettings.Key == "" {
		fill(&s.tlsSettings.Cert, api.HTTPClientCert)
		fill(&s.tlsSettings.Key, api.HTTPClientKey)
	}
	// Consul's own client takes a value that it cannot parse for "do not verify".
	verify, err := envBool(getenv, api.HTTPSSLVerifyEnvName, true)
	if err != nil {
		return err
	}
	if s.TLS == nil { // settings in the config are the whole of it
		s.tlsSettings.InsecureSkipVerify = !verify
	}
	return nil
}

func envBool(getenv func(string) string, name string, fallback bool) (bool, error) {
	text := getenv(name)
	if text == "" {
		return fallback, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("environment variable %s: %q is not true or false", name, text)
	}
	return v, nil
}

// check checks what does not need a file.
func (s *consulSettings) check() error {
	switch s.ActiveBy {
	case discovery.ByAuto, discovery.ByTag, discovery.ByCheck:
	default:
		return fmt.Errorf("active_by: %q is not auto, tag or check", s.ActiveBy)
	}
	switch s.Consistency {
	case consul.ConsistencyDefault, consul.ConsistencyStale, consul.ConsistencyConsistent:
	default:
		return fmt.Errorf("consistency: %q is not default, stale or consistent", s.Consistency)
	}
	if err := checkService(s.Service); err != nil {
		return err
	}
	return checkPollInterval(s.PollInterval)
}

func checkService(name string) error {
	if strings.ContainsAny(name, "/?#%") {
		return fmt.Errorf("service: %q is not the name of a service", name)
	}
	return nil
}

// The bounds of poll_interval.
const (
	minPoll = time.Second
	maxPoll = 10 * time.Minute
)

func checkPollInterval(d caddy.Duration) error {
	if d := time.Duration(d); d < minPoll || d > maxPoll {
		return fmt.Errorf("poll_interval: %s is not between 1s and 10m (changes arrive at once whatever it is)", d)
	}
	return nil
}

var errTwoTokens = errors.New("token and token_file: give one of them")
