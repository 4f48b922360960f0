// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

const (
	user, password = "ann", "correct horse"
	pollEvery      = 20 * time.Millisecond
	firstSitePort  = 9001
	statusPort     = 8080 // of a site over plain http, for the health document
)

// stage is a running cluster with a running Caddy.
type stage struct {
	*cluster.Cluster
	caddy                 *harness.Caddy
	dir                   string
	roleID, secretID      string
	clientCert, clientKey string         // files
	other                 string         // a site that redirects nothing
	fetch                 bool           // clients may be downloaded
	victim                *cluster.Vault // was killed in the failover
	closers               []func() error
}

// site is a site of Caddy that one client uses.
type site struct {
	id   string // of its client; folder of its secrets
	addr string // https://…
	line string // an option of its vault_redirect
	log  string // file of its access log
	read int64  // how much of it has been looked at
}

// newStage starts everything. The sites get their addresses, and all of them the option in line.
func newStage(ctx context.Context, sites []*site, line string) (s *stage, err error) {
	s = &stage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "clients-"); err != nil {
		return s, err
	}
	s.closers = append(s.closers, func() error { return os.RemoveAll(s.dir) })
	if s.Cluster, err = cluster.Start(ctx, cluster.Options{TLS: true, RaftMultiplier: 5}); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.Cluster.Close)
	if s.clientCert, s.clientKey, err = s.Cert("client.example.com"); err != nil {
		return s, err
	}
	if err := s.prepareVault(ctx); err != nil {
		return s, err
	}
	if err := s.startCaddy(ctx, sites, line); err != nil {
		return s, err
	}
	return s, nil
}

func (s *stage) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// startCaddy starts a Caddy whose sites, like Vault, have certificates of a private authority.
func (s *stage) startCaddy(ctx context.Context, sites []*site, line string) error {
	ip, err := harness.Loopback()
	if err != nil {
		return err
	}
	cert, key, err := s.Cert(ip)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "{\n\tdefault_bind {ip}\n\tskip_install_trust\n\tauto_https off\n}\nhttp://{ip}:%d {\n\tvault_redirect %s\n}\n",
		statusPort, s.Consuls[0].HTTPAddr)
	for i, at := range sites {
		at.addr = fmt.Sprintf("https://%s:%d", ip, firstSitePort+i)
		at.log = filepath.Join(s.dir, fmt.Sprintf("site-%d.log", i))
		fmt.Fprintf(&text, `%s {
	tls %s %s
	log {
		output file %s
	}
	vault_redirect %s {
		probe {
			tls {
				ca %s
			}
		}
		%s
		%s
	}
	respond /page "a page of this origin"
}
`, at.addr, cert, key, at.log, s.Consuls[0].HTTPAddr, s.VaultCA, at.line, line)
	}
	s.other = fmt.Sprintf("https://%s:%d", ip, firstSitePort+len(sites))
	fmt.Fprintf(&text, "%s {\n\ttls %s %s\n\trespond /page \"a page of another origin\"\n}\n", s.other, cert, key)
	if s.caddy, err = harness.Start(ctx, harness.Options{Caddyfile: text.String(), IP: ip}); err != nil {
		return err
	}
	s.closers = append(s.closers, s.caddy.Close)
	return s.awaitRedirects(ctx)
}

// awaitRedirects waits until requests are redirected to the node that is active.
func (s *stage) awaitRedirects(ctx context.Context) error {
	return wait.Poll(ctx, pollEvery, "wait for redirects to the active node", func(ctx context.Context) error {
		active, err := s.Active(ctx)
		if err != nil {
			return err
		}
		h, err := harness.ReadHealth(ctx, fmt.Sprintf("http://%s:%d", s.caddy.IP, statusPort))
		if err == nil && h.RedirectTo != active.URL {
			err = fmt.Errorf("%s is active, requests are redirected to %q", active.URL, h.RedirectTo)
		}
		return err
	})
}

// failover kills the active node and returns when its successor is redirected to.
func (s *stage) failover(ctx context.Context) error {
	active, err := s.Active(ctx)
	if err != nil {
		return err
	}
	s.victim = active
	if err := active.Kill(); err != nil {
		return err
	}
	if _, err := s.WaitActive(ctx, active); err != nil {
		return err
	}
	return s.awaitRedirects(ctx)
}

// results returns how the requests were answered that have come since it was asked last: "redirected", "proxied" and so
// on. Caddy writes an answer into its log when it has given it, each by itself; so the first is waited for, and where an
// option may make Caddy proxy a request, that one: of two requests, a redirect and a proxied one, either may be logged first.
func (at *site) results(ctx context.Context) (map[string]int, error) {
	results := map[string]int{}
	limited, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("no request came to the redirector"))
	defer cancel()
	err := wait.Poll(limited, pollEvery, "look at the log of "+at.addr, func(context.Context) error {
		f, err := os.Open(at.log)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Seek(at.read, io.SeekStart); err != nil {
			return err
		}
		for r := bufio.NewReader(f); ; {
			line, err := r.ReadBytes('\n')
			if err != nil { // the end, or a line that is not whole yet
				break
			}
			at.read += int64(len(line))
			var entry struct {
				Result string `json:"vault_result"`
			}
			if err := json.Unmarshal(line, &entry); err != nil {
				return wait.Fatal(err)
			}
			results[entry.Result]++
		}
		switch {
		case len(results) == 0:
			return errors.New("it has no new line")
		case at.line != "" && results["proxied"] == 0:
			return errors.New("no request was proxied")
		}
		return nil
	})
	if len(results) > 0 && limited.Err() != nil && ctx.Err() == nil {
		return results, nil // nothing was proxied: that is for the caller to judge
	}
	return results, err
}

// skip forgets what has come so far.
func (at *site) skip() error {
	info, err := os.Stat(at.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		at.read = info.Size()
	}
	return err
}
