// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package integration tests the plugin inside a real Caddy process: with the real Vault client against real clusters of
// Consul and Vault, and against stand-ins where a fault is wanted that real servers do not show on demand.
package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/vault-redirector/caddy-vault-redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/process"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

func TestMain(m *testing.M) { os.Exit(harness.MainAsCaddy(m, caddycmd.Main)) }

// server is a running Caddy of a test.
type server struct {
	*harness.Caddy
	t *testing.T
}

// runCaddy runs Caddy with a Caddyfile made of global options and sites. In both, {ip} stands for the one address that
// it listens on.
func runCaddy(t *testing.T, options, sites string, env ...string) *server {
	t.Helper()
	return run(t, harness.Options{Caddyfile: "{\n\tdefault_bind {ip}\n" + options + "\n}\n" + sites, Env: env})
}

// runCommand runs another command of Caddy than run.
func runCommand(t *testing.T, args ...string) *server {
	t.Helper()
	return run(t, harness.Options{Args: args})
}

func run(t *testing.T, o harness.Options) *server {
	t.Helper()
	return &server{harness.Run(t, o), t}
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }

// await waits for something to be so.
func (s *server) await(what string, ok func() bool) {
	s.t.Helper()
	wait.Until(s.t, what, func() bool {
		if err := s.Ended(); err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		return ok()
	})
}

// runInFront runs a program with a config in front of Caddy, on an address of its own. The file of the config is its last argument.
func runInFront(t *testing.T, name string, config func(ip, dir string) string, args ...string) (ip string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s on PATH (Debian's package of that name): Caddy behind it is not tested", name)
	}
	if ip, err = harness.Loopback(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(config(ip, dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process.Process{Name: name, Path: path, Args: append(args, file), Dir: dir, LogFile: filepath.Join(dir, name+".log")}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.StopOrKill(10 * time.Second); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the log of %s:\n%s", name, p.Tail(40))
		}
	})
	return ip
}

// countFromEnv returns how often a test does something: as often as an environment variable says, if it is set.
func countFromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1_000_000 {
		t.Fatalf("%s is %q", name, text)
	}
	return n
}

// admin sends a request to the admin endpoint and returns the status and the answer.
func (s *server) admin(method, path, contentType, body string) (int, string) {
	s.t.Helper()
	code, answer, err := s.Ask(s.t.Context(), method, path, contentType, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return code, answer
}

// inHandler is the function in which a request is that waits for an active node.
const inHandler = "caddy-vault-redirect.(*Handler).ServeHTTP"

// goroutines returns those that Caddy has now.
func (s *server) goroutines() harness.Goroutines {
	s.t.Helper()
	g, err := s.Goroutines(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return g
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

// readHealth is the health document of a site.
func readHealth(t *testing.T, site string) harness.Health {
	t.Helper()
	var h harness.Health
	var err error
	for range 3 { // see get
		if h, err = harness.ReadHealth(t.Context(), site); err == nil {
			return h
		}
	}
	t.Fatal(err)
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
