// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// vault is a client that knows one address.
type vault struct {
	address string
	token   string
	http    *http.Client
}

// secret is an answer of Vault.
type secret struct {
	LeaseID       string `json:"lease_id"`
	LeaseDuration int    `json:"lease_duration"`
	Data          struct{ Username, Password string }
	Auth          struct {
		ClientToken string `json:"client_token"`
	}
	Errors []string
}

// ttl is how long a lease lasts.
func (s *secret) ttl() time.Duration { return time.Duration(s.LeaseDuration) * time.Second }

func (v *vault) ask(ctx context.Context, method, path string, body any) (*secret, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, v.address+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", v.token)
	resp, err := v.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := new(secret)
	if err := json.Unmarshal(answer, s); err != nil && len(answer) > 0 {
		return nil, fmt.Errorf("%s: status %d: %w", path, resp.StatusCode, err)
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s: status %d: %v", path, resp.StatusCode, s.Errors)
	}
	return s, nil
}

// login logs in by AppRole.
func (v *vault) login(ctx context.Context, role, secretID string) error {
	s, err := v.ask(ctx, http.MethodPost, "auth/approle/login", map[string]string{"role_id": role, "secret_id": secretID})
	if err == nil {
		v.token = s.Auth.ClientToken
	}
	return err
}

// lease asks for new credentials.
func (v *vault) lease(ctx context.Context) (*secret, error) {
	return v.ask(ctx, http.MethodGet, "database/creds/todo", nil)
}

// renew makes a lease last longer.
func (v *vault) renew(ctx context.Context, id string) (*secret, error) {
	return v.ask(ctx, http.MethodPost, "sys/leases/renew", map[string]string{"lease_id": id})
}
