// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// This file holds Terraform with its provider for Vault.

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// terraform runs `terraform apply` for each op, in a folder of its own.
type terraform struct {
	command
	dir string
}

func openTerraform(ctx context.Context, s *stage, at *site) (driver, error) {
	path, err := exec.LookPath("terraform")
	if err != nil {
		return nil, missing("not on PATH")
	}
	provider, err := s.program(ctx, "terraform-provider-vault")
	if err != nil {
		return nil, err
	}
	of, err := versionOf(ctx, path, "version")
	if err != nil {
		return nil, err
	}
	t := &terraform{command{stage: s, path: path}, filepath.Join(s.dir, at.id)}
	// The provider is taken from a folder, not from a registry: there must be nothing else in it.
	plugins := filepath.Join(t.dir, "plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink(provider, filepath.Join(plugins, "terraform-provider-vault")); err != nil {
		return nil, err
	}
	config := filepath.Join(t.dir, "terraform.rc")
	overrides := fmt.Sprintf("provider_installation {\n dev_overrides {\n \"hashicorp/vault\" = %q\n}\n}\n", plugins)
	if err := os.WriteFile(config, []byte(overrides), 0o600); err != nil {
		return nil, err
	}
	t.env = s.env(at, "TF_CLI_CONFIG_FILE="+config, "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1")
	t.of = of
	if _, version, err := cluster.ToolVersion("terraform-provider-vault"); err == nil {
		t.of += ", provider " + strings.TrimPrefix(version, "v")
	}
	lacks := func(context.Context, *command, request) (string, error) { return "", errLacks }
	t.ops = map[op]func(context.Context, *command, request) (string, error){
		opList: lacks, opWrap: lacks, opUserpass: lacks, opCert: lacks,
		opRead: func(ctx context.Context, _ *command, q request) (string, error) {
			return t.output(ctx, q, fmt.Sprintf("data vault_generic_secret it {\n path = \"secret/%s\"\n}\n", q.Name), "data.vault_generic_secret.it.data.value")
		},
		opAppRole: func(ctx context.Context, _ *command, q request) (string, error) {
			text := fmt.Sprintf("resource vault_approle_auth_backend_login it {\n role_id = %q\n secret_id = %q\n}\n", q.RoleID, q.SecretID)
			return t.output(ctx, q, text, "vault_approle_auth_backend_login.it.client_token")
		},
		opWrite: t.write,
		opBig:   t.write,
		opDelete: func(ctx context.Context, c *command, q request) (string, error) {
			if _, err := t.write(ctx, c, q); err != nil {
				return "", err
			}
			_, err := t.terraform(ctx, q, "destroy", "-auto-approve")
			return "", err
		},
	}
	return t, nil
}

// write has a secret be there.
func (t *terraform) write(ctx context.Context, _ *command, q request) (string, error) {
	dir, err := t.folder(q)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "value"), []byte(q.Value), 0o600); err != nil {
		return "", err
	}
	text := fmt.Sprintf("resource vault_generic_secret it {\n path = \"secret/%s\"\n data_json = jsonencode({ value = file(\"value\") })\n}\n", q.Name)
	return "", t.apply(ctx, q, text)
}

// output applies a configuration and returns what an expression is then.
func (t *terraform) output(ctx context.Context, q request, text, expression string) (string, error) {
	if err := t.apply(ctx, q, text+fmt.Sprintf("output it {\n value = %s\n sensitive = true\n}\n", expression)); err != nil {
		return "", err
	}
	return t.terraform(ctx, q, "output", "-raw", "it")
}

func (t *terraform) apply(ctx context.Context, q request, text string) error {
	dir, err := t.folder(q)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(text), 0o600); err != nil {
		return err
	}
	_, err = t.terraform(ctx, q, "apply", "-auto-approve", "-input=false")
	return err
}

func (t *terraform) folder(q request) (string, error) {
	dir := filepath.Join(t.dir, string(q.Op))
	return dir, os.MkdirAll(dir, 0o700)
}

func (t *terraform) terraform(ctx context.Context, q request, args ...string) (string, error) {
	return t.run(ctx, "", append([]string{"-chdir=" + filepath.Join(t.dir, string(q.Op)), args[0], "-no-color"}, args[1:]...)...)
}
