// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// mountPath is where the secrets are, in Vault.
const mountPath = "bench"

// clientTimeout is how long a client waits for one operation: the default of Vault's own.
const clientTimeout = 60 * time.Second

// client is what a user of Vault has. The context carries the trace of its requests.
type client interface {
	write(ctx context.Context, key, value string) error
	read(ctx context.Context, key string) (value string, err error) // "" if there is none
	close()
}

// clientKind is how clients go about redirects and failures.
type clientKind struct {
	key  string // in flags and paths
	name string // for tables
	open func(*bench, *front) (client, error)
}

var clientKinds = []*clientKind{
	{"vault", "Vault's own", openVaultClient},
	{"plain", "without retries", openPlainClient},
}

// vaultClient is Vault's own client for Go, with its defaults: it follows one redirect and retries twice.
type vaultClient struct {
	*api.Client
	kv        *api.KVv2
	transport *http.Transport
}

func openVaultClient(b *bench, f *front) (client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address = f.url
	if b.tls {
		if err := config.ConfigureTLS(&api.TLSConfig{CACert: b.cluster.VaultCA, TLSServerName: f.serverName}); err != nil {
			return nil, err
		}
	}
	transport, ok := config.HttpClient.Transport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("the transport of Vault's client is a %T", config.HttpClient.Transport)
	}
	if f.dial != nil {
		transport.DialContext = f.dial
	}
	c, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	c.SetToken(b.cluster.RootToken)
	return &vaultClient{c, c.KVv2(mountPath), transport}, nil
}

func (c *vaultClient) close() { c.transport.CloseIdleConnections() }

func (c *vaultClient) write(ctx context.Context, key, value string) error {
	_, err := c.kv.Put(ctx, key, map[string]any{"value": value})
	return err
}

func (c *vaultClient) read(ctx context.Context, key string) (string, error) {
	secret, err := c.kv.Get(ctx, key)
	if errors.Is(err, api.ErrSecretNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	value, _ := secret.Data["value"].(string)
	return value, nil
}

// plainClient is Go's HTTP client. It follows one redirect and does not retry, but for what Go does by itself.
type plainClient struct {
	*http.Client
	url, token string
}

func openPlainClient(b *bench, f *front) (client, error) {
	c := b.newHTTPClient()
	if f.dial != nil {
		transport := c.Transport.(*http.Transport)
		transport.DialContext, transport.DisableKeepAlives = f.dial, true // a look-up for each
		if b.tls {
			transport.TLSClientConfig.ServerName = f.serverName
		}
	}
	return &plainClient{c, f.url, b.cluster.RootToken}, nil
}

func (c *plainClient) close() { c.CloseIdleConnections() }

func (c *plainClient) write(ctx context.Context, key, value string) error {
	body, err := json.Marshal(map[string]any{"data": map[string]string{"value": value}})
	if err != nil {
		return err
	}
	_, _, err = c.do(ctx, http.MethodPut, key, body)
	return err
}

func (c *plainClient) read(ctx context.Context, key string) (string, error) {
	code, answer, err := c.do(ctx, http.MethodGet, key, nil)
	if err != nil || code == http.StatusNotFound {
		return "", err
	}
	var secret struct {
		Data struct{ Data struct{ Value string } }
	}
	if err := json.Unmarshal(answer, &secret); err != nil {
		return "", fmt.Errorf("200 with %.100q", answer)
	}
	return secret.Data.Data.Value, nil
}

// do sends a request, and once more to where it is redirected.
func (c *plainClient) do(ctx context.Context, method, key string, body []byte) (code int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	target := c.url + "/v1/" + mountPath + "/data/" + key
	code, location, answer, err := c.send(ctx, method, target, body)
	if err == nil && code == http.StatusTemporaryRedirect { // a standby redirects, too, if it cannot forward
		code, _, answer, err = c.send(ctx, method, location, body)
	}
	if err == nil && code != http.StatusOK && (code != http.StatusNotFound || method != http.MethodGet) {
		err = statusError(code, answer)
	}
	return code, answer, err
}

func (c *plainClient) send(ctx context.Context, method, target string, body []byte) (code int, location string, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("X-Vault-Token", c.token)
	res, err := c.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer res.Body.Close()
	if location, err := res.Location(); err == nil {
		target = location.String()
	}
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, target, answer, err
}

// statusError is an answer that is no success, as explain tells that of Vault's own client.
func statusError(code int, answer []byte) error {
	failed := &api.ResponseError{StatusCode: code}
	if json.Unmarshal(answer, failed) != nil {
		failed.Errors = []string{string(answer)}
	}
	return failed
}

// addresses have other ports each time.
var addresses = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+:\d+`)

// explain says why an operation failed, in one line and without what differs from one to the next.
func explain(err error) string {
	text := ""
	if failed := (*api.ResponseError)(nil); errors.As(err, &failed) {
		text = fmt.Sprintf("%d: %s", failed.StatusCode, strings.Join(failed.Errors, "; "))
	} else {
		if failed := (*url.Error)(nil); errors.As(err, &failed) {
			err = failed.Err
		}
		text = err.Error()
	}
	text = strings.Join(strings.Fields(addresses.ReplaceAllString(text, "…")), " ")
	return text[:min(len(text), 200)]
}

// newHTTPClient returns a client that keeps its connections and follows no redirect by itself.
func (b *bench) newHTTPClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: b.trust.Clone()}, // without HTTP/2: what fails is a request, not a connection
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// trusting returns the trust in one CA, without HTTP/2.
func trusting(file string) (*tls.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return &tls.Config{RootCAs: roots}, nil
}
