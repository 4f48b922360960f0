// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"time"

	"github.com/hashicorp/vault-client-go"
	"github.com/hashicorp/vault-client-go/schema"
)

func newClientGo() (client, error) {
	c, err := openClientGo("", "")
	if err != nil {
		return nil, err
	}
	if err := c.SetToken(setting.token); err != nil {
		return nil, err
	}
	ctx, mount := context.Background(), vault.WithMountPath("secret")
	write := func(q request) (string, error) {
		body := schema.KvV2WriteRequest{Data: map[string]any{"value": q.Value}}
		_, err := c.Secrets.KvV2Write(ctx, q.Name, body, mount)
		return "", err
	}
	return client{
		"write": write,
		"big":   write,
		"read": func(q request) (string, error) {
			r, err := c.Secrets.KvV2Read(ctx, q.Name, mount)
			if err != nil {
				return "", err
			}
			return text(r.Data.Data["value"])
		},
		"list": func(q request) (string, error) {
			r, err := c.List(ctx, "secret/metadata/"+q.Name)
			if err != nil {
				return "", err
			}
			return keys(r.Data)
		},
		"delete": func(q request) (string, error) {
			_, err := c.Secrets.KvV2Delete(ctx, q.Name, mount)
			return "", err
		},
		"wrap": func(q request) (string, error) {
			wrapped, err := c.Read(ctx, "secret/data/"+q.Name, vault.WithResponseWrapping(time.Minute))
			if err != nil {
				return "", err
			}
			r, err := vault.Unwrap[map[string]any](ctx, c, wrapped.WrapInfo.Token)
			if err != nil {
				return "", err
			}
			return value(r.Data)
		},
		"userpass": clientGoLogin("", "", func(q request) string { return "auth/userpass/login/" + q.User }),
		"approle":  clientGoLogin("", "", func(request) string { return "auth/approle/login" }),
		"cert":     clientGoLogin(setting.cert, setting.key, func(request) string { return "auth/cert/login" }),
	}, nil
}

func openClientGo(cert, key string) (*vault.Client, error) {
	tls := vault.TLSConfiguration{}
	tls.ServerCertificate.FromFile = setting.ca
	tls.ClientCertificate.FromFile, tls.ClientCertificateKey.FromFile = cert, key
	return vault.New(vault.WithAddress(setting.addr), vault.WithTLS(tls))
}

// clientGoLogin logs in at a path, and returns the token.
func clientGoLogin(cert, key string, path func(request) string) func(request) (string, error) {
	return func(q request) (string, error) {
		c, err := openClientGo(cert, key)
		if err != nil {
			return "", err
		}
		r, err := c.Write(context.Background(), path(q), credentials(path(q), q))
		if err != nil {
			return "", err
		}
		return r.Auth.ClientToken, nil
	}
}
