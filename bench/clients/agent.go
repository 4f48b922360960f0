// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// Clients that go on running: Vault Agent and Vault Proxy, which log in by themselves and serve others, and consul-template.

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const agentTimeout = time.Minute // for a machine that is busy with other tests

// agent is `vault agent` or `vault proxy`: one that runs, and one more for each login.
type agent struct {
	command
	kind   string // agent or proxy
	at     *site
	proc   *process.Process
	listen string // address of its own listener
	file   string // that its template makes
}

func openAgent(kind string) func(context.Context, *stage, *site) (driver, error) {
	return func(ctx context.Context, s *stage, at *site) (driver, error) {
		path, err := cluster.Program(ctx, "vault", nil)
		if err != nil {
			return nil, err
		}
		of, err := versionOf(ctx, path, "version")
		if err != nil {
			return nil, err
		}
		ip, err := harness.Loopback()
		if err != nil {
			return nil, err
		}
		a := &agent{command: command{stage: s, path: path, of: of}, kind: kind, at: at, listen: net.JoinHostPort(ip, "8100")}
		for name, text := range map[string]string{"role-id": s.roleID, "secret-id": s.secretID} {
			if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
				return nil, err
			}
		}
		config := a.config(opAppRole, "") + fmt.Sprintf("api_proxy {\n use_auto_auth_token = true\n}\ncache {}\nlistener \"tcp\" {\n address = %q\n tls_disable = true\n}\n", a.listen)
		if kind == "agent" {
			if err := s.put(ctx, at.id+"/"+string(opTemplate), "the first one"); err != nil {
				return nil, err
			}
			a.file = filepath.Join(s.dir, at.id+"-rendered")
			config += template(at, a.file) + "template_config {\n static_secret_render_interval = \"1s\"\n}\n"
		}
		if a.proc, err = a.start("serving", config); err != nil {
			return nil, err
		}
		a.ops = httpOps(s, httpClient{send: a.send, header: "-H", token: "X-Vault-Token: ", noAuth: true})
		a.ops[opAppRole], a.ops[opCert], a.ops[opTemplate] = a.login, a.login, a.rendered
		a.ops[opCache] = a.cached
		return a, a.await(ctx)
	}
}

// config is what an agent needs to log in.
func (a *agent) config(how op, sink string) string {
	method := fmt.Sprintf("method \"approle\" {\n config = {\n role_id_file_path = %q\n secret_id_file_path = %q\n remove_secret_id_file_after_reading = false\n}\n}",
		filepath.Join(a.stage.dir, "role-id"), filepath.Join(a.stage.dir, "secret-id"))
	if how == opCert {
		method = fmt.Sprintf("method \"cert\" {\n config = {\n name = \"web\"\n ca_cert = %q\n client_cert = %q\n client_key = %q\n}\n}",
			a.stage.VaultCA, a.stage.clientCert, a.stage.clientKey)
	}
	if sink != "" {
		method += fmt.Sprintf("\nsink \"file\" {\n config = {\n path = %q\n}\n}", sink)
	}
	return fmt.Sprintf("vault {\n address = %q\n ca_cert = %q\n}\nauto_auth {\n%s\n}\n", a.at.addr, a.stage.VaultCA, method)
}

// template is one of the agent or of consul-template.
func template(at *site, file string) string {
	return fmt.Sprintf("template {\n contents = \"{{ with secret \\\"secret/data/%s/%s\\\" }}{{ .Data.data.value }}{{ end }}\"\n destination = %q\n}\n",
		at.id, opTemplate, file)
}

// start starts one of the client's processes.
func (a *agent) start(name, config string, flags ...string) (*process.Process, error) {
	file := filepath.Join(a.stage.dir, a.at.id+"-"+name+".hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	args := append([]string{a.kind, "-config=" + file}, flags...)
	p := &process.Process{
		Name: "vault " + a.kind, Path: a.path, Args: args, Dir: a.stage.dir, LogFile: file + ".log",
		Env: process.Environ([]string{"HOME=" + a.stage.dir}, append(withoutEnv, "HOME=")...),
	}
	return p, p.Start()
}

// await waits until the agent has a token and serves.
func (a *agent) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	return wait.Poll(ctx, pollEvery, "wait for vault "+a.kind, func(ctx context.Context) error {
		if err := a.proc.Ended(); err != nil {
			return err
		}
		_, err := a.send(ctx, http.MethodGet, "auth/token/lookup-self", nil)
		return err
	})
}

func (a *agent) do(ctx context.Context, q request) (string, error) {
	value, err := a.command.do(ctx, q)
	if err != nil {
		err = errors.Join(err, a.proc.Ended())
	}
	return value, err
}

func (a *agent) close() error { return a.proc.Close() }

// send sends a request to the agent's listener. Each is a new one to its cache.
func (a *agent) send(ctx context.Context, method, path string, body any, more ...string) (string, error) {
	text, _, err := sendHTTP(ctx, method, "http://"+a.listen+"/v1/"+path, body, append(more, "-H", "X-Nonce: "+time.Now().String())...)
	return text, err
}

// login starts another agent, which logs in and ends, and returns the token that it leaves.
func (a *agent) login(ctx context.Context, _ *command, q request) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	sink := filepath.Join(a.stage.dir, a.at.id+"-sink-"+string(q.Op))
	if err := os.Remove(sink); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	p, err := a.start("login", a.config(q.Op, sink), "-exit-after-auth")
	if err != nil {
		return "", err
	}
	defer p.Close()
	if code, err := p.Wait(ctx); err != nil || code != 0 {
		return "", fmt.Errorf("vault %s: %w, exit status %d: %s", a.kind, err, code, p.Tail(3))
	}
	token, err := os.ReadFile(sink)
	return string(token), err
}

// rendered waits until the template shows the secret.
func (a *agent) rendered(ctx context.Context, _ *command, q request) (string, error) {
	return awaitFile(ctx, a.file, q.Value, a.proc)
}

// cached makes the same token twice: the second time, it comes from the cache.
func (a *agent) cached(ctx context.Context, _ *command, q request) (string, error) {
	var tokens []string
	for _, want := range []string{"MISS", "HIT"} {
		body := map[string]any{"ttl": "10m", "meta": map[string]string{"of": q.Value}}
		text, header, err := sendHTTP(ctx, http.MethodPost, "http://"+a.listen+"/v1/auth/token/create", body)
		if err != nil {
			return "", err
		}
		if got := header.Get("X-Cache"); got != want {
			return "", fmt.Errorf("X-Cache is %q, not %q", got, want)
		}
		answer, err := parseAnswer(text)
		if err != nil {
			return "", err
		}
		tokens = append(tokens, answer.Auth.ClientToken)
	}
	if tokens[0] != tokens[1] {
		return "", errors.New("the cache has another token")
	}
	return tokens[0], nil
}

// awaitFile waits until a process has written a value into a file.
func awaitFile(ctx context.Context, file, value string, p *process.Process) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	var text []byte
	err := wait.Poll(ctx, pollEvery, "wait for the template", func(context.Context) (err error) {
		if err := p.Ended(); err != nil {
			return err
		}
		if text, err = os.ReadFile(file); err == nil && string(text) != value {
			err = fmt.Errorf("it reads %q", text)
		}
		return err
	})
	return string(text), err
}

// consulTemplate is a running consul-template.
type consulTemplate struct {
	proc *process.Process
	of   string
	file string
}

func openConsulTemplate(ctx context.Context, s *stage, at *site) (driver, error) {
	path, err := s.program(ctx, "consul-template")
	if err != nil {
		return nil, err
	}
	of, err := versionOf(ctx, path, "-v")
	if err != nil {
		return nil, err
	}
	if err := s.put(ctx, at.id+"/"+string(opTemplate), "the first one"); err != nil {
		return nil, err
	}
	c := &consulTemplate{of: of, file: filepath.Join(s.dir, at.id+"-rendered")}
	config := filepath.Join(s.dir, at.id+".hcl")
	text := fmt.Sprintf("vault {\n address = %q\n token = %q\n renew_token = false\n default_lease_duration = \"1s\"\n ssl {\n enabled = true\n ca_cert = %q\n}\n}\n",
		at.addr, s.RootToken, s.VaultCA) + template(at, c.file)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	c.proc = &process.Process{
		Name: "consul-template", Path: path, Args: []string{"-config=" + config}, Dir: s.dir, LogFile: config + ".log",
		Env: process.Environ([]string{"HOME=" + s.dir}, append(withoutEnv, "HOME=")...),
	}
	return c, c.proc.Start()
}

func (c *consulTemplate) version() string { return c.of }
func (c *consulTemplate) close() error    { return c.proc.Close() }

func (c *consulTemplate) do(ctx context.Context, q request) (string, error) {
	return awaitFile(ctx, c.file, q.Value, c.proc)
}

// sendHTTP sends a request. more are headers, each after "-H".
func sendHTTP(ctx context.Context, method, url string, body any, more ...string) (text string, header http.Header, err error) {
	content, err := jsonBody(body)
	if err != nil {
		return "", nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(content))
	if err != nil {
		return "", nil, err
	}
	for i := 1; i < len(more); i += 2 {
		name, value, _ := strings.Cut(more[i], ": ")
		req.Header.Set(name, value)
	}
	return answerOf(http.DefaultClient.Do(req))
}
