// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package harness runs Caddy as a child process: for the integration tests, the demo, the soak and the benchmark of
// failovers. Each child has a folder, an admin endpoint and (on Linux) a loopback address of its own, sees nothing of
// the environment's Consul and Vault, and ends with the process that started it.
package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const (
	startTimeout = time.Minute      // for a machine that is busy with other tests
	stopTimeout  = 20 * time.Second // the same
	pollEvery    = 20 * time.Millisecond
)

// asCaddy in the environment makes a program that asks AsCaddy a Caddy.
const asCaddy = "VAULT_REDIRECT_TEST_AS_CADDY"

// AsCaddy tells whether this process was started to be a Caddy, for Options without a Program. A test binary then calls
// caddycmd.Main in its TestMain: so Caddy has the race detector where the tests have it, holds modules that only tests
// need, and is not built twice.
func AsCaddy() bool { return os.Getenv(asCaddy) != "" }

// Options say what to start. In Caddyfile, JSON and Args, {ip} stands for the address that the child has for itself.
type Options struct {
	Program   string   // path of a Caddy; default this program itself, see AsCaddy
	Caddyfile string   // the config, this or JSON
	JSON      string   // the config
	Args      []string // without a config: the command with its flags, such as vault-redirect
	Env       []string // added to the environment, after what is taken from it

	IP    string // default a loopback address that nothing else uses, see Loopback
	Admin string // host:port of the admin endpoint; default a socket in the folder, on which no reload breaks a connection
	Dir   string // folder for config, log and Caddy's own data; default a temporary one, which Close removes
}

// Caddy is a child process, and its admin endpoint. Load, Goroutines and others that ask it are in admin.go.
type Caddy struct {
	*process.Process
	IP      string // an address of its own, with all of its ports
	Admin   string // of the admin endpoint, as CADDY_ADMIN takes it: host:port or unix/<path>
	DataDir string // what Caddy stores: DataDir/caddy/pki and so on

	dir        string // "" if it is not to be removed
	configFile string
	adapter    []string // flags that say what the config is
	client     *http.Client
}

// New prepares a Caddy and does not start it. Close removes what it made.
func New(o Options) (*Caddy, error) {
	c := &Caddy{IP: o.IP, Process: &process.Process{Name: "caddy", Path: o.Program}}
	var err error
	if c.IP == "" {
		if c.IP, err = Loopback(); err != nil {
			return nil, err
		}
	}
	if c.Path == "" {
		if c.Path, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("program of caddy: %w", err)
		}
	}
	dir := o.Dir
	if dir == "" {
		// Not a test's own folder, whose name may be too long for a socket's path.
		if dir, err = os.MkdirTemp("", "caddy-"); err != nil {
			return nil, fmt.Errorf("folder of caddy: %w", err)
		}
		c.dir = dir
	}
	c.DataDir, c.Dir, c.LogFile = dir, dir, filepath.Join(dir, "caddy.log")
	c.Admin = cmp.Or(o.Admin, "unix/"+filepath.Join(dir, "admin.sock"))
	c.client = adminClient(c.Admin)
	if err := c.configure(o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	env := []string{"CADDY_ADMIN=" + c.Admin}
	if o.Program == "" {
		env = append(env, asCaddy+"=1")
	}
	env = append(env, "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	// With the race detector, each process waits for a second before it ends, unless it is told not to.
	env = append(env, "GORACE=atexit_sleep_ms=0")
	c.Env = process.Environ(append(env, o.Env...), "CONSUL_", "VAULT_", "XDG_", "HOME=", "CADDY_", "GORACE=")
	return c, nil
}

// configure says what Caddy is to do.
func (c *Caddy) configure(o Options) error {
	if len(c.Admin) > 100 { // the kernel's limit is 107; Caddy's own error does not say so
		return fmt.Errorf("the path of the admin socket %s is too long: set TMPDIR to a shorter folder", c.Admin)
	}
	switch {
	case o.Caddyfile != "" && o.JSON != "" || (o.Caddyfile+o.JSON != "") == (len(o.Args) > 0):
		return errors.New("caddy: one of Caddyfile, JSON and Args must say what to run")
	case len(o.Args) > 0:
		for _, arg := range o.Args {
			c.Args = append(c.Args, c.here(arg))
		}
		return nil
	case o.Caddyfile != "":
		c.configFile, c.adapter = filepath.Join(c.Dir, "Caddyfile"), []string{"--adapter", "caddyfile"}
	default:
		c.configFile = filepath.Join(c.Dir, "config.json")
	}
	c.Args = append([]string{"run", "--config", c.configFile}, c.adapter...)
	return c.writeConfig(o.Caddyfile + o.JSON)
}

// here replaces what stands for this Caddy's address.
func (c *Caddy) here(text string) string { return strings.ReplaceAll(text, "{ip}", c.IP) }

func (c *Caddy) writeConfig(config string) error {
	return os.WriteFile(c.configFile, []byte(c.here(config)), 0o600)
}

// Command returns another command of the same Caddy, with the same folders and environment, that is not started.
func (c *Caddy) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Path, args...)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	return cmd
}

// Start starts Caddy and returns when its config runs and its servers listen, or with the end of its log when it has
// ended. Without a deadline in ctx it gives up after a minute.
func (c *Caddy) Start(ctx context.Context) error {
	if err := c.Process.Start(); err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not up after %s", startTimeout))
		defer cancel()
	}
	// The admin endpoint is there first, but it does not show a config before all of it has started.
	err := wait.Poll(ctx, pollEvery, "wait for the config to run", func(ctx context.Context) error {
		if err := c.Ended(); err != nil {
			return err
		}
		code, config, err := c.askOnce(ctx, http.MethodGet, "/config/", "", "")
		if err == nil && (code != http.StatusOK || strings.TrimSpace(config) == "null") {
			err = fmt.Errorf("status %d: no config yet", code)
		}
		return err
	})
	if err != nil && c.Running() {
		err = fmt.Errorf("%w; the end of its log:\n%s", err, c.Tail(10))
	}
	return err
}

// Close ends Caddy as a service manager would, and removes the folder that New made. It is an error if Caddy does not
// end by itself in 20 seconds. It is safe to call on nil, twice, and before the start.
func (c *Caddy) Close() error {
	if c == nil {
		return nil
	}
	c.client.CloseIdleConnections()
	err := c.StopOrKill(stopTimeout)
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// Start prepares a Caddy and starts it. After an error nothing is left.
func Start(ctx context.Context, o Options) (*Caddy, error) {
	c, err := New(o)
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
