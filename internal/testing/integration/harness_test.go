// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the tests have in common: a Caddy of their own, clients, and waiting for something to be so.

// Package integration tests the plugin inside a real Caddy process: with the real Vault client against real clusters of
// Consul and Vault, and against stand-ins where a fault is wanted that real servers do not show on demand.
package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/vault-redirector/caddy-vault-redirect"
)

// asCaddy in the environment makes the test binary a Caddy: one with the race detector, and without another build.
const asCaddy = "VAULT_REDIRECT_TEST_AS_CADDY"

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	os.Exit(m.Run())
}

// server is a running Caddy.
type server struct {
	t       *testing.T
	ip      string // an address of its own
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended
	logFile string
	dataDir string
}

// loopback returns an address that nothing else uses. All of 127.0.0.0/8 is loopback, so that servers need not share ports.
func loopback(t *testing.T) string {
	for range 100 {
		ip := fmt.Sprintf("127.%d.%d.%d", 10+rand.IntN(200), 1+rand.IntN(254), 1+rand.IntN(254))
		l, err := net.Listen("tcp", ip+":2019")
		if err != nil {
			continue
		}
		l.Close()
		return ip
	}
	t.Fatal("no free loopback address")
	return ""
}

// command returns a Caddy that is not started, with folders of its own and without the environment's Consul.
func command(t *testing.T, ip string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return programCommand(t, self, ip, args...)
}

// programCommand is command with another binary.
func programCommand(t *testing.T, bin, ip string, args ...string) *exec.Cmd {
	cmd := exec.Command(bin, args...)
	dir := t.TempDir()
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CONSUL_") && !strings.HasPrefix(kv, "VAULT_") && !strings.HasPrefix(kv, "XDG_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, asCaddy+"=1", "CADDY_ADMIN="+ip+":2019",
		"XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	return cmd
}

// runCaddy runs Caddy with a Caddyfile made of global options and sites. In the sites, {ip} stands for the one address
// that it listens on.
func runCaddy(t *testing.T, options, sites string, env ...string) *server {
	t.Helper()
	ip := loopback(t)
	caddyfile := "{\n\tdefault_bind {ip}\n" + options + "\n}\n" + sites
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(caddyfile, "{ip}", ip)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startCaddy(t, ip, env, "run", "--config", file, "--adapter", "caddyfile")
	s.await("the config runs", func() bool { return strings.Contains(s.log(), "serving initial configuration") })
	return s
}

// startCaddy starts Caddy; it ends with the test.
func startCaddy(t *testing.T, ip string, env []string, args ...string) *server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, self, ip, env, args...)
}

// startProgram is startCaddy with another binary.
func startProgram(t *testing.T, bin, ip string, env []string, args ...string) *server {
	t.Helper()
	s := &server{t: t, ip: ip, cmd: programCommand(t, bin, ip, args...), done: make(chan struct{})}
	s.logFile = filepath.Join(t.TempDir(), "caddy.log")
	out, err := os.Create(s.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, kv := range s.cmd.Env {
		if dir, ok := strings.CutPrefix(kv, "XDG_DATA_HOME="); ok {
			s.dataDir = dir
		}
	}
	s.cmd.Env = append(s.cmd.Env, env...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait()
	}()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("Caddy's log:\n%s", tail(s.log(), 8000))
		}
		if strings.Contains(s.log(), "DATA RACE") {
			t.Errorf("the race detector found something:\n%s", s.log())
		}
	})
	return s
}

// stop ends Caddy as a service manager would.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
		s.t.Error("Caddy did not end by itself within 20s")
	}
}

func (s *server) log() string {
	data, err := os.ReadFile(s.logFile)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }

// await waits for something to be so.
func (s *server) await(what string, ok func() bool) {
	s.t.Helper()
	await(s.t, what, func() bool {
		select {
		case <-s.done:
			s.t.Fatalf("%s: Caddy has ended", what)
		default:
		}
		return ok()
	})
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		}
	}
}

// admin sends a request to the admin endpoint and returns the status and the answer.
func (s *server) admin(method, path, contentType, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+s.ip+":2019"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Host = "localhost:2019" // of the names that Caddy allows
	req.Header.Set("Content-Type", contentType)
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, readAll(s.t, resp)
}

// client follows no redirect and keeps no connection.
var client = &http.Client{
	Timeout:       30 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// get asks for a URL; a failure is the test's. While it replaces a server, Caddy resets some connections that it has just
// accepted, whatever handler is behind (a static response shows it); clients try again.
func get(t *testing.T, url string) (code int, location, body string) {
	t.Helper()
	var resp *http.Response
	var err error
	for range 3 {
		if resp, err = client.Get(url); err == nil {
			defer resp.Body.Close()
			return resp.StatusCode, resp.Header.Get("Location"), readAll(t, resp)
		}
	}
	t.Fatal(err)
	return 0, "", ""
}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// health is what the tests look at of the health document.
type health struct {
	Healthy     bool    `json:"healthy"`
	ActiveVault *string `json:"active_vault"`
	Reason      string  `json:"reason"`
	Detail      string  `json:"detail"`
	RedirectTo  string  `json:"redirect_to"`
}

func readHealth(t *testing.T, site string) health {
	t.Helper()
	_, _, body := get(t, site+"/vault-redirector-health")
	var h health
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Fatalf("health of %s: %v: %s", site, err, body)
	}
	return h
}

// awaitTarget waits until the site redirects to a URL.
func (s *server) awaitTarget(site, url string) {
	s.t.Helper()
	s.await(site+" redirects to "+url, func() bool { return readHealth(s.t, site).RedirectTo == url })
}

// awaitReason waits until the site's health document gives a reason.
func (s *server) awaitReason(site, reason string) {
	s.t.Helper()
	s.await(site+" says "+reason, func() bool { return readHealth(s.t, site).Reason == reason })
}

// timeout is the context for what is done to a cluster.
func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// trusting returns a client that trusts the CAs in a file and no others.
func trusting(t *testing.T, caFile string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", caFile)
	}
	return &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}},
	}
}

// freePort returns a port that is free on every address, for what cannot be told to listen on one.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
