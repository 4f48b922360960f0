// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// What is prepared in Vault, and how what clients did is checked there, without the redirector.

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// policy is that of all clients that log in.
const policy = `
path "secret/*" { capabilities = ["create", "read", "update", "delete", "list"] }
path "auth/token/create" { capabilities = ["create", "update"] }
`

func (s *stage) prepareVault(ctx context.Context) error {
	ca, err := os.ReadFile(s.VaultCA)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		path string
		body map[string]any
	}{
		{"sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}},
		{"sys/policies/acl/clients", map[string]any{"policy": policy}},
		{"sys/auth/userpass", map[string]any{"type": "userpass"}},
		{"sys/auth/approle", map[string]any{"type": "approle"}},
		{"sys/auth/cert", map[string]any{"type": "cert"}},
		{"sys/config/cors", map[string]any{"enabled": true, "allowed_origins": "*"}},
		{"auth/userpass/users/" + user, map[string]any{"password": password, "token_policies": "clients"}},
		{"auth/approle/role/web", map[string]any{"token_policies": "clients"}},
		{"auth/cert/certs/web", map[string]any{"certificate": string(ca), "token_policies": "clients"}},
	} {
		err := s.ask(ctx, http.MethodPost, step.path, step.body, nil)
		if err != nil && !strings.Contains(err.Error(), "path is already in use") { // by a try whose answer was lost
			return err
		}
	}
	var answer struct {
		Data struct {
			RoleID   string `json:"role_id"`
			SecretID string `json:"secret_id"`
		}
	}
	if err := s.ask(ctx, http.MethodGet, "auth/approle/role/web/role-id", nil, &answer); err != nil {
		return err
	}
	s.roleID = answer.Data.RoleID
	if err := s.ask(ctx, http.MethodPost, "auth/approle/role/web/secret-id", map[string]any{}, &answer); err != nil {
		return err
	}
	s.secretID = answer.Data.SecretID
	// A new kv-v2 mount is upgraded in the background.
	return wait.Poll(ctx, pollEvery, "wait for kv-v2", func(ctx context.Context) error { return s.put(ctx, "ready", "yes") })
}

// ask asks the active node itself. On a busy machine raft may elect another one at any time: then, it asks again.
func (s *stage) ask(ctx context.Context, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return wait.Poll(ctx, pollEvery, "ask Vault", func(ctx context.Context) error {
		err := s.Do(ctx, nil, method, "/v1/"+path, body, out)
		if refused := (*cluster.APIError)(nil); errors.As(err, &refused) && refused.Status < 500 {
			return wait.Fatal(err)
		}
		return err
	})
}

// put writes a secret.
func (s *stage) put(ctx context.Context, name, value string) error {
	body := map[string]any{"data": map[string]string{"value": value}}
	return s.ask(ctx, http.MethodPost, "secret/data/"+name, body, nil)
}

// get reads a secret; found is false if it is deleted, or was never there.
func (s *stage) get(ctx context.Context, name string) (value string, found bool, err error) {
	var answer struct {
		Data struct{ Data struct{ Value string } }
	}
	err = s.ask(ctx, http.MethodGet, "secret/data/"+name, nil, &answer)
	if refused := (*cluster.APIError)(nil); errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return "", false, nil
	}
	return answer.Data.Data.Value, err == nil, err
}

// bigValue makes 600 KiB: more than the 256 KiB of an unread body after which Go's server closes the connection, and less
// than the 1 MiB that raft takes.
func bigValue() string { return strings.Repeat(rand.Text()[:24], 600<<10/24) }

// request prepares an op of a client, whose secrets are in a folder.
func (s *stage) request(ctx context.Context, o op, folder string) (q request, err error) {
	q = request{Op: o, Value: rand.Text(), User: user, Password: password, RoleID: s.roleID, SecretID: s.secretID}
	switch o {
	case opRead, opWrap, opDelete, opTemplate, opSame, opPreflight:
		q.Name = folder + "/" + string(o)
		return q, s.put(ctx, q.Name, q.Value)
	case opList:
		q.Name = folder
		return q, s.put(ctx, folder+"/"+q.Value, "")
	case opBig:
		q.Value = bigValue()
	}
	q.Name = folder + "/" + string(o)
	return q, nil
}

// check looks at whether what was asked was done. got is what the client returned.
func (s *stage) check(ctx context.Context, q request, got string) error {
	switch q.Op {
	case opNavigate, opOther:
		if !strings.Contains(got, `"initialized":true`) {
			return fmt.Errorf("it reads %q, which is not the health of Vault", shorten(got))
		}
	case opRead, opWrap, opTemplate, opSame, opPreflight:
		if got != q.Value {
			return fmt.Errorf("%q was read, not %q", shorten(got), q.Value)
		}
	case opList:
		if !strings.Contains(got, q.Value) {
			return fmt.Errorf("%q was listed, without %q", shorten(got), q.Value)
		}
	case opWrite, opBig:
		value, found, err := s.get(ctx, q.Name)
		if err != nil {
			return err
		}
		if !found || value != q.Value {
			return fmt.Errorf("vault has %d bytes, not the %d that were written", len(value), len(q.Value))
		}
	case opDelete:
		_, found, err := s.get(ctx, q.Name)
		if err != nil {
			return err
		}
		if found {
			return errors.New("it is still there")
		}
	case opUserpass:
		return s.checkToken(ctx, got, "auth/userpass/login/"+user)
	case opAppRole:
		return s.checkToken(ctx, got, "auth/approle/login")
	case opCert:
		return s.checkToken(ctx, got, "auth/cert/login")
	case opCache:
		return s.checkToken(ctx, got, "auth/token/create", q.Value)
	}
	return nil
}

// checkToken looks at whether a token comes from a path, and was made for something.
func (s *stage) checkToken(ctx context.Context, token, path string, of ...string) error {
	var answer struct {
		Data struct {
			Path string
			Meta struct{ Of string }
		}
	}
	if err := s.ask(ctx, http.MethodPost, "auth/token/lookup", map[string]string{"token": token}, &answer); err != nil {
		return fmt.Errorf("token %q: %w", shorten(token), err)
	}
	if answer.Data.Path != path {
		return fmt.Errorf("the token comes from %q, not from %q", answer.Data.Path, path)
	}
	if len(of) > 0 && answer.Data.Meta.Of != of[0] {
		return errors.New("no error, but the token that was made lacks the metadata that were asked for")
	}
	return nil
}

// said is an error in one line, as its reader sees it, but for addresses and files of this run.
func (s *stage) said(err error) string {
	pairs := []string{s.dir, "…", s.other, "https://app.example.com"}
	for i, v := range s.Vaults {
		pairs = append(pairs, v.Addr, fmt.Sprintf("vault-%d:8200", i))
	}
	text := strings.Join(strings.Fields(strings.NewReplacer(pairs...).Replace(err.Error())), " ")
	return siteAddress.ReplaceAllString(strings.ReplaceAll(text, s.caddy.IP, "redirector"), "redirector")
}

// siteAddress is what a site's address looks like once its IP address is replaced.
var siteAddress = regexp.MustCompile(`redirector:\d+`)

func shorten(text string) string {
	if len(text) > 60 {
		return text[:60] + "…"
	}
	return text
}
