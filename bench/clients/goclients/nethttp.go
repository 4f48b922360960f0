// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

// vaultAnswer is what is looked at of an answer.
type vaultAnswer struct {
	Data     map[string]any
	WrapInfo struct{ Token string } `json:"wrap_info"`
	Auth     struct {
		ClientToken string `json:"client_token"`
	}
}

func newHTTP() (client, error) {
	plain, err := openHTTP()
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(setting.cert, setting.key)
	if err != nil {
		return nil, err
	}
	withCert, err := openHTTP(pair)
	if err != nil {
		return nil, err
	}
	write := func(q request) (string, error) {
		_, err := send(plain, "PUT", "secret/data/"+q.Name, map[string]any{"data": map[string]any{"value": q.Value}}, token(setting.token))
		return "", err
	}
	login := func(c *http.Client, path func(request) string) func(request) (string, error) {
		return func(q request) (string, error) {
			a, err := send(c, "POST", path(q), credentials(path(q), q), nil)
			return a.Auth.ClientToken, err
		}
	}
	return client{
		"write": write,
		"big":   write,
		"read": func(q request) (string, error) {
			a, err := send(plain, "GET", "secret/data/"+q.Name, nil, token(setting.token))
			if err != nil {
				return "", err
			}
			return value(a.Data)
		},
		"list": func(q request) (string, error) {
			a, err := send(plain, "LIST", "secret/metadata/"+q.Name, nil, token(setting.token))
			if err != nil {
				return "", err
			}
			return keys(a.Data)
		},
		"delete": func(q request) (string, error) {
			_, err := send(plain, "DELETE", "secret/data/"+q.Name, nil, token(setting.token))
			return "", err
		},
		"wrap":     func(q request) (string, error) { return wrapByHTTP(plain, q) },
		"userpass": login(plain, func(q request) string { return "auth/userpass/login/" + q.User }),
		"approle":  login(plain, func(request) string { return "auth/approle/login" }),
		"cert":     login(withCert, func(request) string { return "auth/cert/login" }),
	}, nil
}

func openHTTP(certs ...tls.Certificate) (*http.Client, error) {
	pem, err := os.ReadFile(setting.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, Certificates: certs}
	return &http.Client{Transport: t}, nil
}

func token(t string) http.Header { return http.Header{"X-Vault-Token": {t}} }

func wrapByHTTP(c *http.Client, q request) (string, error) {
	header := token(setting.token)
	header.Set("X-Vault-Wrap-TTL", "60s")
	wrapped, err := send(c, "GET", "secret/data/"+q.Name, nil, header)
	if err != nil {
		return "", err
	}
	a, err := send(c, "POST", "sys/wrapping/unwrap", nil, token(wrapped.WrapInfo.Token))
	if err != nil {
		return "", err
	}
	return value(a.Data)
}

func send(c *http.Client, method, path string, body any, header http.Header) (a vaultAnswer, err error) {
	var content []byte
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return a, err
		}
	}
	req, err := http.NewRequest(method, setting.addr+"/v1/"+path, bytes.NewReader(content))
	if err != nil {
		return a, err
	}
	if header != nil {
		req.Header = header
	}
	resp, err := c.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if content, err = io.ReadAll(resp.Body); err != nil {
		return a, err
	}
	if resp.StatusCode >= 300 {
		return a, fmt.Errorf("status %d: %.200s", resp.StatusCode, content)
	}
	if len(content) == 0 {
		return a, nil
	}
	return a, json.Unmarshal(content, &a)
}
