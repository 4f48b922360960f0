// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// The library vault/api, which the vault program, Vault Agent, consul-template and Terraform's provider use, too.

package main

import (
	"context"
	"errors"
	"strings"

	"github.com/hashicorp/vault/api"
)

func newAPI() (client, error) {
	c, err := openAPI("", "")
	if err != nil {
		return nil, err
	}
	c.SetToken(setting.token)
	ctx, kv := context.Background(), c.KVv2("secret")
	write := func(q request) (string, error) {
		_, err := kv.Put(ctx, q.Name, map[string]any{"value": q.Value})
		return "", err
	}
	return client{
		"write": write,
		"big":   write,
		"read": func(q request) (string, error) {
			secret, err := kv.Get(ctx, q.Name)
			if err != nil {
				return "", err
			}
			return text(secret.Data["value"])
		},
		"list": func(q request) (string, error) {
			secret, err := c.Logical().List("secret/metadata/" + q.Name)
			if err != nil {
				return "", err
			}
			if secret == nil {
				return "", errors.New("nothing is listed")
			}
			return keys(secret.Data)
		},
		"delete":   func(q request) (string, error) { return "", kv.Delete(ctx, q.Name) },
		"wrap":     func(q request) (string, error) { return wrapByAPI(c, q) },
		"userpass": apiLogin("", "", func(q request) string { return "auth/userpass/login/" + q.User }),
		"approle":  apiLogin("", "", func(request) string { return "auth/approle/login" }),
		"cert":     apiLogin(setting.cert, setting.key, func(request) string { return "auth/cert/login" }),
	}, nil
}

func openAPI(cert, key string) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = setting.addr
	if err := config.ConfigureTLS(&api.TLSConfig{CACert: setting.ca, ClientCert: cert, ClientKey: key}); err != nil {
		return nil, err
	}
	return api.NewClient(config)
}

func wrapByAPI(c *api.Client, q request) (string, error) {
	wrapping, err := c.Clone()
	if err != nil {
		return "", err
	}
	wrapping.SetToken(setting.token)
	wrapping.SetWrappingLookupFunc(func(string, string) string { return "60s" })
	wrapped, err := wrapping.Logical().Read("secret/data/" + q.Name)
	if err != nil {
		return "", err
	}
	secret, err := c.Logical().Unwrap(wrapped.WrapInfo.Token)
	if err != nil {
		return "", err
	}
	return value(secret.Data)
}

// apiLogin logs in at a path, and returns the token.
func apiLogin(cert, key string, path func(request) string) func(request) (string, error) {
	return func(q request) (string, error) {
		c, err := openAPI(cert, key)
		if err != nil {
			return "", err
		}
		secret, err := c.Logical().Write(path(q), credentials(path(q), q))
		if err != nil {
			return "", err
		}
		return secret.Auth.ClientToken, nil
	}
}

// credentials is the body of a login.
func credentials(path string, q request) map[string]any {
	switch {
	case strings.HasPrefix(path, "auth/userpass/"):
		return map[string]any{"password": q.Password}
	case path == "auth/approle/login":
		return map[string]any{"role_id": q.RoleID, "secret_id": q.SecretID}
	}
	return map[string]any{"name": "web"}
}

// value takes the value from the data of a secret in kv-v2.
func value(data map[string]any) (string, error) {
	inner, _ := data["data"].(map[string]any)
	return text(inner["value"])
}

func text(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", errors.New("no value in the answer")
	}
	return s, nil
}

// keys takes the keys from the data of a list.
func keys(data map[string]any) (string, error) {
	list, _ := data["keys"].([]any)
	var all []string
	for _, key := range list {
		s, err := text(key)
		if err != nil {
			return "", err
		}
		all = append(all, s)
	}
	return strings.Join(all, ","), nil
}
