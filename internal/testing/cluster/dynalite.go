// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const dynalitePort = 4567

// errNoDynalite says what a test that needs it lacks.
var errNoDynalite = errors.New("dynalite, which plays DynamoDB, is not installed: make tools-dynalite, which needs Node.js and npm")

// findDynalite returns how dynalite is run: Node.js, the script, and what is loaded before it.
func findDynalite() (command []string, err error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, errNoDynalite
	}
	pinned, folder, err := dynaliteFolders()
	if err != nil {
		return nil, err
	}
	script := filepath.Join(folder, "node_modules", "dynalite", "cli.js")
	if _, err := os.Stat(script); err != nil {
		return nil, errNoDynalite
	}
	return []string{node, "--require", filepath.Join(pinned, "outlive.js"), script}, nil
}

// dynaliteFolders returns the folder that pins dynalite, and the one in the user's cache where it is installed.
func dynaliteFolders() (pinned, installed string, err error) {
	if pinned, err = toolFolder("dynalite", "package-lock.json"); err != nil {
		return "", "", err
	}
	locked, err := os.ReadFile(filepath.Join(pinned, "package-lock.json"))
	if err != nil {
		return "", "", fmt.Errorf("what dynalite consists of: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", fmt.Errorf("cache folder for dynalite: %w", err)
	}
	return pinned, filepath.Join(cache, "caddy-vault-redirect", fmt.Sprintf("dynalite-%.8x", sha256.Sum256(locked))), nil
}

// InstallDynalite installs what tools/dynalite pins into the user's cache folder, unless it is there already.
func InstallDynalite(ctx context.Context, progress func(format string, args ...any)) error {
	pinned, folder, err := dynaliteFolders()
	if err != nil {
		return err
	}
	if _, err := findDynalite(); err == nil {
		progress("dynalite: in the cache: %s", folder)
		return nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errNoDynalite
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return fmt.Errorf("cache folder for dynalite: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(folder), "dynalite-*.tmp")
	if err != nil {
		return fmt.Errorf("install dynalite: %w", err)
	}
	defer os.RemoveAll(tmp)
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(pinned, name))
		if err != nil {
			return fmt.Errorf("install dynalite: %w", err)
		}
		if err := os.WriteFile(filepath.Join(tmp, name), text, 0o600); err != nil {
			return fmt.Errorf("install dynalite: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install dynalite: npm ci: %w\n%s", err, out)
	}
	// In one step, so that half of it is never started.
	if err := os.Rename(tmp, folder); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("install dynalite: %w", err)
	}
	progress("dynalite: installed: %s", folder)
	return nil
}

// startDynamo starts dynalite, with its data in memory.
func (c *Cluster) startDynamo(ctx context.Context) error {
	command, err := findDynalite()
	if err != nil {
		return err
	}
	c.Dynamo = c.process("dynalite", command[0])
	c.Dynamo.Args = append(command[1:], "--host", c.IP(firstConsulHost), "--port", fmt.Sprint(dynalitePort), "--createTableMs", "0")
	if err := c.Dynamo.Start(); err != nil {
		return err
	}
	return waitAnswer(ctx, c.Dynamo, c.client, c.dynamoURL())
}

func (c *Cluster) dynamoURL() string { return "http://" + c.net.addr(firstConsulHost, dynalitePort) }

// waitAnswer waits until a process answers requests, with whatever status.
func waitAnswer(ctx context.Context, p *process.Process, client *http.Client, url string) error {
	return wait.Poll(ctx, pollEvery, "wait for an answer of "+p.Label, func(ctx context.Context) error {
		if err := p.Ended(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
}

// dynamoStorage is the storage of a Vault node. After a crash of the active node, the lock is free when its 15 seconds are
// over; Vault has no setting for that.
func (c *Cluster) dynamoStorage() map[string]any {
	return map[string]any{"dynamodb": map[string]any{
		"endpoint": c.dynamoURL(), "region": "us-east-1", "table": "vault", "ha_enabled": "true",
		"access_key": "any", "secret_key": "any", "max_parallel": "128",
	}}
}
