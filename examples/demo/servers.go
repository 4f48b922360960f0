// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the demo runs: Caddy, and a Vault cluster that is real or played.

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

//go:embed demo.Caddyfile
var caddyfile []byte

// caddyAttr: a group of its own, so that Ctrl-C reaches this program alone, which then ends Caddy.
var caddyAttr = syscall.SysProcAttr{Setpgid: true}

// caddy is the child process.
type caddy struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the process has ended
}

// startCaddy returns when Caddy redirects.
func (d *demo) startCaddy(ctx context.Context) error {
	host, port, err := net.SplitHostPort(d.listen)
	if err != nil {
		return err
	}
	config := filepath.Join(d.dir, "demo.Caddyfile")
	if err := os.WriteFile(config, caddyfile, 0o600); err != nil {
		return err
	}
	c := &caddy{log: filepath.Join(d.dir, "caddy.log"), done: make(chan struct{})}
	log, err := os.Create(c.log)
	if err != nil {
		return err
	}
	defer log.Close()
	c.cmd = exec.Command(d.options.caddy, "run", "--config", config, "--adapter", "caddyfile")
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.Dir = d.dir
	c.cmd.SysProcAttr = &caddyAttr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CONSUL_") { // the user's own Consul is not the demo's
			c.cmd.Env = append(c.cmd.Env, v)
		}
	}
	c.cmd.Env = append(c.cmd.Env, "CONSUL_HTTP_ADDR="+d.vaults.consul(), "DEMO_HOST="+host, "DEMO_PORT="+port,
		"DEMO_ADMIN=unix/"+filepath.Join(d.dir, "admin.sock"), "XDG_DATA_HOME="+d.dir, "XDG_CONFIG_HOME="+d.dir)
	started := make(chan error)
	go func() {
		// The death signal comes with the end of the thread that started the process: it stays here meanwhile.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // ProcessState says how it ended
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start caddy: %w", err)
	}
	d.caddy = c

	waiting, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("caddy does not redirect after %s", startTimeout))
	defer cancel()
	err = d.poll(waiting, 10*time.Millisecond, func() bool {
		res, _, err := d.follow(waiting, http.MethodGet, healthPath, nil)
		return err == nil && res.StatusCode == http.StatusOK
	})
	if err != nil && waiting.Err() != nil {
		err = fmt.Errorf("%w; the end of its log:\n%s", err, c.tail())
	}
	if err != nil {
		return err
	}
	d.printf("Caddy redirects at %s, %s after the start of the demo.\n", d.base, round(time.Since(d.begin)))
	d.printf("Its configuration is examples/demo/demo.Caddyfile, its log %s\n", c.log)
	return nil
}

// ended is the error after an end that nobody wanted.
func (c *caddy) ended() error {
	return fmt.Errorf("caddy has ended (%v); the end of its log:\n%s", c.cmd.ProcessState, c.tail())
}

func (c *caddy) tail() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// stop ends Caddy and returns when it is gone.
func (c *caddy) stop() error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		<-c.done
	}
	return nil
}

// close ends and removes what there is.
func (d *demo) close() error {
	var errs []error
	if d.client != nil {
		d.client.CloseIdleConnections()
	}
	if d.caddy != nil {
		errs = append(errs, d.caddy.stop())
	}
	if d.vaults != nil {
		errs = append(errs, d.vaults.close())
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

// way is how a node loses its role.
type way int

const (
	stepDown way = iota
	kill
)

func (w way) String() string { return [...]string{"steps down", "is killed (kill -9)"}[w] }

func (w way) title() string { return [...]string{"step-down", "kill -9"}[w] }

func (w way) other() way { return 1 - w }

// vaults is a Vault cluster and its Consul.
type vaults interface {
	consul() string  // its address
	program() string // the path of a vault program
	token() string   // root's; "" if none is needed
	name(addr string) string
	active(context.Context) (name string, err error)
	takeAway(context.Context, way) error // the active node
	dead() (name string)                 // the node that was killed, "" if none is
	revive(context.Context) error        // that node
	settle(context.Context)              // waits, within reason, until a failover is as quick as it can be
	close() error
}

// startVaults returns when a node is active.
func (d *demo) startVaults(ctx context.Context) (err error) {
	if d.real {
		d.vaults, err = d.startReal(ctx)
		return err
	}
	c, err := standin.NewCluster(3, "")
	if err != nil {
		return err
	}
	d.vaults = &played{Cluster: c}
	return nil
}

// played is a cluster of stand-ins.
type played struct {
	*standin.Cluster
	killed *standin.Vault
}

func (p *played) consul() string  { return p.Consul.Addr() }
func (p *played) program() string { return "" }
func (p *played) token() string   { return "" }

func (p *played) name(addr string) string {
	for _, v := range p.Vaults {
		if v.Addr() == addr {
			return v.Name()
		}
	}
	return addr
}

func (p *played) active(context.Context) (string, error) {
	if v := p.Active(); v != nil {
		return v.Name(), nil
	}
	return "", errors.New("no stand-in is active")
}

func (p *played) takeAway(_ context.Context, how way) error {
	if how == kill {
		p.killed, _ = p.Kill()
	} else {
		p.StepDown()
	}
	return nil
}

func (p *played) dead() string {
	if p.killed == nil {
		return ""
	}
	return p.killed.Name()
}

func (p *played) revive(context.Context) error {
	v := p.killed
	p.killed = nil
	return p.Restart(v)
}

func (p *played) settle(context.Context) {}

func (p *played) close() error {
	p.Close()
	return nil
}

// genuine is a cluster of real servers.
type genuine struct {
	*cluster.Cluster
	vault  string // the program
	log    *os.File
	killed *cluster.Vault
}

// startReal returns nil, not a typed one, with an error.
func (d *demo) startReal(ctx context.Context) (vaults, error) {
	g := new(genuine)
	note := time.AfterFunc(2*time.Second, func() {
		d.printf("Consul or Vault is being built. This happens once and takes some minutes ...\n")
	})
	defer note.Stop()
	consul, err := cluster.Program(ctx, "consul")
	if err != nil {
		return nil, err
	}
	if g.vault, err = cluster.Program(ctx, "vault"); err != nil {
		return nil, err
	}
	note.Stop()
	d.printf("Starting %s\nand three times %s ...\n", consul, g.vault)
	if g.log, err = os.Create(filepath.Join(d.dir, "cluster.log")); err != nil {
		return nil, err
	}
	if g.Cluster, err = cluster.Start(ctx, cluster.Options{Log: g.log, LogDir: d.dir}); err != nil {
		return nil, errors.Join(err, g.log.Close())
	}
	mount := map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}
	if err := g.Do(ctx, nil, http.MethodPost, "/v1/sys/mounts/secret", mount, nil); err != nil {
		return nil, errors.Join(err, g.close())
	}
	d.printf("%d nodes are up, their logs in %s\n", len(g.Vaults), d.dir)
	return g, nil
}

func (g *genuine) consul() string  { return g.Consuls[0].HTTPAddr }
func (g *genuine) program() string { return g.vault }
func (g *genuine) token() string   { return g.RootToken }

func (g *genuine) name(addr string) string {
	for _, v := range g.Vaults {
		if v.Addr == addr {
			return v.Name
		}
	}
	return addr
}

func (g *genuine) active(ctx context.Context) (string, error) {
	v, err := g.WaitActive(ctx)
	if err != nil {
		return "", err
	}
	return v.Name, nil
}

func (g *genuine) takeAway(ctx context.Context, how way) error {
	v, err := g.Active(ctx)
	if err != nil {
		return err
	}
	if how == stepDown {
		return v.StepDown(ctx)
	}
	g.killed = v
	return v.Kill()
}

func (g *genuine) dead() string {
	if g.killed == nil {
		return ""
	}
	return g.killed.Name
}

func (g *genuine) revive(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, failoverTimeout, fmt.Errorf("%s is not back after %s", g.killed.Name, failoverTimeout))
	defer cancel()
	if err := g.killed.Restart(ctx); err != nil {
		return err
	}
	g.killed = nil
	return g.WaitSettled(ctx)
}

// settle waits for followers that lag behind: with those an election takes up to 9 seconds, else 2.
func (g *genuine) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	_ = g.WaitHealthy(ctx) // no more than a wish
}

func (g *genuine) close() error { return errors.Join(g.Close(), g.log.Close()) }
