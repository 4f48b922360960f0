// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package consul

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Env has the values of the environment variables of Consul's own client, empty if they are not set.
type Env struct {
	Address          string
	TLS              bool // CONSUL_HTTP_SSL
	Verify           bool // CONSUL_HTTP_SSL_VERIFY, true unless it is set
	Token, TokenFile string
	Auth             *api.HttpBasicAuth
	Namespace        string
	Partition        string
	CA, Cert, Key    string // files; CA may be a folder
	ServerName       string
}

// ReadEnv reads the environment as Consul's own client does. A value that is neither true nor false is an error, while the client
// takes it for "do not verify".
func ReadEnv(getenv func(string) string) (e Env, err error) {
	e = Env{
		Address: getenv(api.HTTPAddrEnvName), Token: getenv(api.HTTPTokenEnvName), TokenFile: getenv(api.HTTPTokenFileEnvName),
		Namespace: getenv(api.HTTPNamespaceEnvName), Partition: getenv(api.HTTPPartitionEnvName),
		CA: cmp.Or(getenv(api.HTTPCAFile), getenv(api.HTTPCAPath)), Cert: getenv(api.HTTPClientCert), Key: getenv(api.HTTPClientKey),
		ServerName: getenv(api.HTTPTLSServerName),
	}
	if e.TLS, err = envBool(getenv, api.HTTPSSLEnvName, false); err != nil {
		return e, err
	}
	if e.Verify, err = envBool(getenv, api.HTTPSSLVerifyEnvName, true); err != nil {
		return e, err
	}
	if auth := getenv(api.HTTPAuthEnvName); auth != "" {
		user, password, _ := strings.Cut(auth, ":")
		e.Auth = &api.HttpBasicAuth{Username: user, Password: password}
	}
	if host, _, err := net.SplitHostPort(e.ServerName); err == nil {
		e.ServerName = host
	}
	return e, nil
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
