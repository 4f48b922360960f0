// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// APIError is Vault's answer when it is not a success.
type APIError struct {
	Status int
	Errors []string // Vault's own words
}

func (e *APIError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Status, http.StatusText(e.Status), strings.Join(e.Errors, "; "))
}

// Do sends a request with the root token to one node (nil: the active one). body, unless nil, is sent as JSON; the
// answer is decoded into out, unless nil. The path begins with "/v1/". A status of 300 or above is an *APIError.
func (c *Cluster) Do(ctx context.Context, v *Vault, method, path string, body, out any) error {
	if v == nil {
		var err error
		if v, err = c.Active(ctx); err != nil {
			return err
		}
	}
	if err := c.do(ctx, v, method, path, body, out); err != nil {
		return fmt.Errorf("%s %s of %s at %s: %w", method, path, v.Name, v.Addr, err)
	}
	return nil
}

func (c *Cluster) do(ctx context.Context, v *Vault, method, path string, body, out any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, v.URL+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if c.RootToken != "" {
		req.Header.Set("X-Vault-Token", c.RootToken)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err = io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		e := &APIError{Status: res.StatusCode}
		if json.Unmarshal(text, e) != nil { // not Vault's own form
			e.Errors = []string{string(text)}
		}
		return e
	}
	if out == nil || len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, out)
}

// initialise makes the keys at v, with one share, and unseals v.
func (c *Cluster) initialise(ctx context.Context, v *Vault) error {
	var keys struct {
		Keys      []string `json:"keys"`
		RootToken string   `json:"root_token"`
	}
	shares := map[string]int{"secret_shares": 1, "secret_threshold": 1}
	if err := c.Do(ctx, v, http.MethodPut, "/v1/sys/init", shares, &keys); err != nil {
		return err
	}
	if len(keys.Keys) != 1 || keys.RootToken == "" {
		return fmt.Errorf("initialise %s at %s: no key in the answer", v.Name, v.Addr)
	}
	c.unsealKey, c.RootToken = keys.Keys[0], keys.RootToken
	return v.Unseal(ctx)
}

// join makes v part of the cluster that leader leads, and unseals it.
func (c *Cluster) join(ctx context.Context, v, leader *Vault) error {
	if c.options.Storage != Raft {
		return v.Unseal(ctx) // the storage is the cluster
	}
	if err := v.WaitHealth(ctx, http.StatusNotImplemented); err != nil {
		return err
	}
	body := map[string]any{"leader_api_addr": leader.URL}
	if c.vaultAuthority != nil {
		body["leader_ca_cert"] = string(c.vaultAuthority.CertPEM())
	}
	if err := c.Do(ctx, v, http.MethodPost, "/v1/sys/storage/raft/join", body, nil); err != nil {
		return err
	}
	return v.Unseal(ctx)
}

// quickVotes lets a node vote 1 second after it has joined, not 10: until then a cluster survives no failure.
func (c *Cluster) quickVotes(ctx context.Context, v *Vault) error {
	return c.Do(ctx, v, http.MethodPost, "/v1/sys/storage/raft/autopilot/configuration",
		map[string]any{"server_stabilization_time": "1s"}, nil)
}

func (c *Cluster) waitVoters(ctx context.Context) error {
	return wait.Poll(ctx, pollEvery, "wait for every node's vote", func(ctx context.Context) error {
		var answer struct {
			Data struct {
				Config struct {
					Servers []struct {
						Voter bool `json:"voter"`
					} `json:"servers"`
				} `json:"config"`
			} `json:"data"`
		}
		if err := c.Do(ctx, nil, http.MethodGet, "/v1/sys/storage/raft/configuration", nil, &answer); err != nil {
			return err
		}
		voters := 0
		for _, s := range answer.Data.Config.Servers {
			if s.Voter {
				voters++
			}
		}
		if voters < len(c.Vaults) {
			return fmt.Errorf("%d of %d nodes vote", voters, len(c.Vaults))
		}
		return nil
	})
}

// Active asks all nodes but the excepted ones for their health and returns the first that says it is active.
func (c *Cluster) Active(ctx context.Context, except ...*Vault) (*Vault, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel() // the answers of the others are not waited for: one may be paused
	type answer struct {
		v      *Vault
		status int
		err    error
	}
	answers := make(chan answer, len(c.Vaults))
	asked := 0
	for _, v := range c.Vaults {
		if contains(except, v) {
			continue
		}
		asked++
		go func() {
			status, err := v.Health(ctx)
			answers <- answer{v, status, err}
		}()
	}
	var errs []error
	for range asked {
		a := <-answers
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
		case a.status == http.StatusOK:
			return a.v, nil
		default:
			errs = append(errs, fmt.Errorf("health of %s is %d", a.v.Name, a.status))
		}
	}
	return nil, fmt.Errorf("no active node: %w", errors.Join(errs...))
}

// WaitActive waits until a node other than the excepted ones is active.
func (c *Cluster) WaitActive(ctx context.Context, except ...*Vault) (active *Vault, err error) {
	err = wait.Poll(ctx, pollEvery, "wait for an active node", func(ctx context.Context) (err error) {
		active, err = c.Active(ctx, except...)
		return err
	})
	return active, err
}

// EnableAudit has every node append to one audit file, as JSON lines: which client called what, from what address.
// A relative path is in the cluster's folder. It returns the file's path.
func (c *Cluster) EnableAudit(ctx context.Context, path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.dir, path)
	}
	body := map[string]any{"type": "file", "options": map[string]string{"file_path": path}}
	return path, c.Do(ctx, nil, http.MethodPut, "/v1/sys/audit/file", body, nil)
}

func contains(vaults []*Vault, v *Vault) bool {
	for _, other := range vaults {
		if other == v {
			return true
		}
	}
	return false
}
