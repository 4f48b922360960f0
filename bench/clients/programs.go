// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// Clients that are programs and do one thing a call: vault and curl.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// command is a driver that runs a program for each op.
type command struct {
	stage *stage
	path  string
	env   []string
	of    string
	ops   map[op]opFunc
}

func (c *command) version() string { return c.of }
func (c *command) close() error    { return nil }

func (c *command) do(ctx context.Context, q request) (string, error) { return c.ops[q.Op](ctx, c, q) }

// run runs the program and returns what it writes to stdout.
func (c *command) run(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Env, cmd.Dir = c.env, c.stage.dir
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()+out.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// opFunc does what is asked.
type opFunc = func(ctx context.Context, c *command, q request) (string, error)

var versionNumber = regexp.MustCompile(`\d+\.\d+\.\d+\S*`)

// versionOf is the first version number in what a program says of itself.
func versionOf(ctx context.Context, path, flag string) (string, error) {
	text, err := exec.CommandContext(ctx, path, flag).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", path, flag, err)
	}
	return strings.TrimSuffix(versionNumber.FindString(string(text)), ","), nil
}

func openVaultCLI(ctx context.Context, s *stage, at *site) (driver, error) {
	path, err := cluster.Program(ctx, "vault", nil)
	if err != nil {
		return nil, err
	}
	of, err := versionOf(ctx, path, "version")
	if err != nil {
		return nil, err
	}
	write := func(ctx context.Context, c *command, q request) (string, error) {
		file := filepath.Join(c.stage.dir, "value")
		if err := os.WriteFile(file, []byte(q.Value), 0o600); err != nil {
			return "", err
		}
		_, err := c.run(ctx, "", "kv", "put", "-mount=secret", q.Name, "value=@"+file)
		return "", err
	}
	login := func(args ...string) opFunc {
		return func(ctx context.Context, c *command, q request) (string, error) {
			return c.run(ctx, "", append([]string{"login", "-no-store", "-token-only"}, args...)...)
		}
	}
	return &command{stage: s, path: path, env: s.env(at), of: of, ops: map[op]opFunc{
		opWrite: write,
		opBig:   write,
		opRead: func(ctx context.Context, c *command, q request) (string, error) {
			return c.run(ctx, "", "kv", "get", "-mount=secret", "-field=value", q.Name)
		},
		opList: func(ctx context.Context, c *command, q request) (string, error) {
			return c.run(ctx, "", "kv", "list", "-mount=secret", q.Name)
		},
		opDelete: func(ctx context.Context, c *command, q request) (string, error) {
			return c.run(ctx, "", "kv", "delete", "-mount=secret", q.Name)
		},
		opWrap: func(ctx context.Context, c *command, q request) (string, error) {
			text, err := c.run(ctx, "", "kv", "get", "-mount=secret", "-wrap-ttl=60s", "-format=json", q.Name)
			if err != nil {
				return "", err
			}
			wrapped, err := parseAnswer(text)
			if err != nil {
				return "", err
			}
			if text, err = c.run(ctx, "", "unwrap", "-format=json", wrapped.WrapInfo.Token); err != nil {
				return "", err
			}
			return secretIn(text)
		},
		opUserpass: login("-method=userpass", "username="+user, "password="+password),
		opCert:     login("-method=cert", "-client-cert="+s.clientCert, "-client-key="+s.clientKey, "name=web"),
		opAppRole: func(ctx context.Context, c *command, q request) (string, error) {
			return c.run(ctx, "", "write", "-field=token", "auth/approle/login", "role_id="+q.RoleID, "secret_id="+q.SecretID)
		},
	}}, nil
}

// vaultAnswer is what is looked at of Vault's answers.
type vaultAnswer struct {
	Data struct {
		Data struct{ Value string }
		Keys []string
	}
	WrapInfo struct{ Token string } `json:"wrap_info"`
	Auth     struct {
		ClientToken string `json:"client_token"`
	}
}

func parseAnswer(text string) (a vaultAnswer, err error) {
	if text == "" {
		return a, errors.New("the answer is empty")
	}
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("%w: %s", err, shorten(text))
	}
	return a, nil
}

// secretIn is the value of the secret in an answer.
func secretIn(text string) (string, error) {
	a, err := parseAnswer(text)
	return a.Data.Data.Value, err
}

// openCurl opens curl with the header that its user sends the token in.
func openCurl(header string) func(context.Context, *stage, *site) (driver, error) {
	return func(ctx context.Context, s *stage, at *site) (driver, error) {
		path, err := exec.LookPath("curl")
		if err != nil {
			return nil, missing("not on PATH")
		}
		of, err := versionOf(ctx, path, "--version")
		if err != nil {
			return nil, err
		}
		c := &command{stage: s, path: path, env: s.env(at), of: of}
		send := func(ctx context.Context, method, path string, body any, more ...string) (string, error) {
			args := append([]string{"-sS", "-L", "--fail-with-body", "--cacert", s.VaultCA, "-X", method, at.addr + "/v1/" + path}, more...)
			input, err := jsonBody(body)
			if err != nil {
				return "", err
			}
			if input != "" {
				args = append(args, "-d", "@-")
			}
			return c.run(ctx, input, args...)
		}
		c.ops = httpOps(s, httpClient{send: send, header: "-H", token: header, certArgs: []string{"--cert", s.clientCert, "--key", s.clientKey}})
		return c, nil
	}
}

// httpClient is what a program needs that sends requests, given as arguments.
type httpClient struct {
	send     func(ctx context.Context, method, path string, body any, more ...string) (string, error)
	header   string   // the flag of a header
	token    string   // the header of a token, up to the token
	certArgs []string // that make it show a certificate
	noAuth   bool     // whatever it asks adds the token by itself
}

// jsonBody is what to send, "" for nothing.
func jsonBody(body any) (string, error) {
	if body == nil {
		return "", nil
	}
	text, err := json.Marshal(body)
	return string(text), err
}

// answerOf reads the answer of Go's client.
func answerOf(resp *http.Response, err error) (text string, header http.Header, _ error) {
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("status %d: %.300s", resp.StatusCode, content)
	}
	return string(content), resp.Header, err
}

// httpOps are the ops by plain requests.
func httpOps(s *stage, h httpClient) map[op]opFunc {
	auth := []string{h.header, h.token + s.RootToken}
	if h.noAuth {
		auth = nil
	}
	write := func(ctx context.Context, _ *command, q request) (string, error) {
		text, err := h.send(ctx, "PUT", "secret/data/"+q.Name, map[string]any{"data": map[string]string{"value": q.Value}}, auth...)
		if err == nil {
			_, err = parseAnswer(text)
		}
		return "", err
	}
	login := func(path string, body func(q request) any, more ...string) opFunc {
		return func(ctx context.Context, _ *command, q request) (string, error) {
			text, err := h.send(ctx, "POST", "auth/"+path, body(q), more...)
			if err != nil {
				return "", err
			}
			a, err := parseAnswer(text)
			return a.Auth.ClientToken, err
		}
	}
	return map[op]opFunc{
		opWrite: write,
		opBig:   write,
		opRead: func(ctx context.Context, _ *command, q request) (string, error) {
			text, err := h.send(ctx, "GET", "secret/data/"+q.Name, nil, auth...)
			if err != nil {
				return "", err
			}
			return secretIn(text)
		},
		opList: func(ctx context.Context, _ *command, q request) (string, error) {
			text, err := h.send(ctx, "LIST", "secret/metadata/"+q.Name, nil, auth...)
			if err != nil {
				return "", err
			}
			a, err := parseAnswer(text)
			return strings.Join(a.Data.Keys, ","), err
		},
		opDelete: func(ctx context.Context, _ *command, q request) (string, error) {
			return h.send(ctx, "DELETE", "secret/data/"+q.Name, nil, auth...)
		},
		opWrap:     h.wrap(auth),
		opUserpass: login("userpass/login/"+user, func(q request) any { return map[string]string{"password": q.Password} }),
		opAppRole:  login("approle/login", func(q request) any { return map[string]string{"role_id": q.RoleID, "secret_id": q.SecretID} }),
		opCert:     login("cert/login", func(request) any { return map[string]string{"name": "web"} }, h.certArgs...),
	}
}

// wrap reads a secret wrapped, and unwraps it. auth are the flags with the token.
func (h httpClient) wrap(auth []string) opFunc {
	return func(ctx context.Context, _ *command, q request) (string, error) {
		text, err := h.send(ctx, "GET", "secret/data/"+q.Name, nil, append(slices.Clone(auth), h.header, "X-Vault-Wrap-TTL: 60s")...)
		if err != nil {
			return "", err
		}
		wrapped, err := parseAnswer(text)
		if err != nil {
			return "", err
		}
		if text, err = h.send(ctx, "POST", "sys/wrapping/unwrap", nil, h.header, h.token+wrapped.WrapInfo.Token); err != nil {
			return "", err
		}
		return secretIn(text)
	}
}
