// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the environment variables of Consul's own client add to the config.

package vaultredirect

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/consul"
)

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
