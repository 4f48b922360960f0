// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the Caddy that is tried: its start and end, its memory and its goroutines.

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

const caddyfile = `{
	admin {ip}:2019
	persist_config off
	default_bind {ip}
}
http://{ip}:8080 {
	vault_redirect {
		consul {consul} {
			poll_interval 2s
		}
		scheme http
	}
}
`

// caddyAttr: a group of its own, so that Ctrl-C reaches this program alone.
var caddyAttr = syscall.SysProcAttr{Setpgid: true}

// caddy is the child process.
type caddy struct {
	cmd   *exec.Cmd
	ip    string
	log   string
	done  chan struct{} // closed when it has ended
	admin *http.Client
}

// startCaddy returns when Caddy redirects. It asks the cluster's first Consul server.
func startCaddy(ctx context.Context, program, dir string, c *cluster.Cluster) (*caddy, error) {
	y := &caddy{
		ip: c.IP(cluster.FirstFreeHost), log: filepath.Join(dir, "caddy.log"), done: make(chan struct{}),
		admin: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	config := filepath.Join(dir, "Caddyfile")
	text := strings.NewReplacer("{ip}", y.ip, "{consul}", c.Consuls[0].HTTPAddr).Replace(caddyfile)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(y.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	y.cmd = exec.Command(program, "run", "--config", config, "--adapter", "caddyfile")
	y.cmd.Stdout, y.cmd.Stderr, y.cmd.SysProcAttr = log, log, &caddyAttr
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CONSUL_") && !strings.HasPrefix(kv, "XDG_") {
			y.cmd.Env = append(y.cmd.Env, kv)
		}
	}
	y.cmd.Env = append(y.cmd.Env, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	started := make(chan error)
	go func() {
		// The death signal comes with the end of the thread that started the process: it stays here meanwhile.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := y.cmd.Start()
		started <- err
		if err == nil {
			_ = y.cmd.Wait()
			close(y.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start caddy: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("not after 30s"))
	defer cancel()
	for !y.healthy(ctx) {
		err := y.ended()
		if err == nil && sleep(ctx, 20*time.Millisecond) != nil {
			err = fmt.Errorf("wait for redirects: %w\n%s", context.Cause(ctx), y.tail())
		}
		if err != nil {
			y.stop()
			return nil, err
		}
	}
	return y, nil
}

func (y *caddy) site() string { return "http://" + y.ip + ":8080" }

func (y *caddy) healthy(ctx context.Context) bool {
	resp, err := y.ask(ctx, y.site()+"/vault-redirector-health")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// knows tells whether Caddy redirects to a URL and has heard from Consul that it is to.
func (y *caddy) knows(ctx context.Context, url string) bool {
	resp, err := y.ask(ctx, y.site()+"/vault-redirector-health")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var d struct {
		Reason     string `json:"reason"`
		RedirectTo string `json:"redirect_to"`
	}
	return json.NewDecoder(resp.Body).Decode(&d) == nil && d.Reason == "ok" && d.RedirectTo == url
}

func (y *caddy) ask(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Host = "localhost:2019" // of the names that Caddy allows for its admin API; the site does not care
	if strings.HasPrefix(url, y.site()) {
		req.Host = ""
	}
	return y.admin.Do(req)
}

// ended is an error after an end that nobody wanted.
func (y *caddy) ended() error {
	select {
	case <-y.done:
		return fmt.Errorf("caddy has ended (%v):\n%s", y.cmd.ProcessState, y.tail())
	default:
		return nil
	}
}

func (y *caddy) tail() string {
	text, err := os.ReadFile(y.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// stop ends Caddy and returns when it is gone.
func (y *caddy) stop() {
	_ = y.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-y.done:
	case <-time.After(10 * time.Second):
		_ = y.cmd.Process.Kill()
		<-y.done
	}
}

// usage is what Caddy takes.
type usage struct {
	memory     int // resident, in bytes
	goroutines int
}

func (y *caddy) usage(ctx context.Context) (u usage, err error) {
	if err := y.ended(); err != nil {
		return u, err
	}
	resp, err := y.ask(ctx, "http://"+y.ip+":2019/debug/pprof/goroutine?debug=1")
	if err != nil {
		return u, err
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil {
		return u, fmt.Errorf("goroutines of caddy: %w", err)
	}
	if _, err := fmt.Sscanf(line, "goroutine profile: total %d", &u.goroutines); err != nil {
		return u, fmt.Errorf("goroutines of caddy: %q: %w", line, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", y.cmd.Process.Pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kb, err := strconv.Atoi(fields[1])
			u.memory = kb << 10
			return u, err
		}
	}
	return u, errors.New("memory of caddy: no VmRSS")
}
