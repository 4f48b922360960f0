// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/browser"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// chromium is a browser; each op has a tab of its own.
type chromium struct {
	*browser.Browser
	stage *stage
	at    *site
	of    string
}

func openBrowser(ctx context.Context, s *stage, at *site) (driver, error) {
	program, err := browser.Program()
	if err != nil {
		return nil, missing("%s", err)
	}
	of, err := versionOf(ctx, program, "--version")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, at.id+"-browser")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	b, err := browser.Start(program, dir)
	if err != nil {
		return nil, err
	}
	return &chromium{b, s, at, of}, nil
}

func (c *chromium) version() string { return c.of }

func (c *chromium) close() error {
	c.Close()
	return nil
}

func (c *chromium) do(ctx context.Context, q request) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	page, err := c.Open(ctx, browser.Screen{Width: 800, Height: 600})
	if err != nil {
		return "", err
	}
	if err := page.TrustAll(ctx); err != nil {
		return "", err
	}
	at, health, secret := c.at.addr, c.at.addr+"/v1/sys/health", c.at.addr+"/v1/secret/data/"+q.Name
	withToken := fmt.Sprintf(`{headers: {"X-Vault-Token": %q}}`, c.stage.RootToken)
	switch q.Op {
	case opNavigate:
		if err := page.Go(ctx, health); err != nil {
			return "", err
		}
		if err := page.Loaded(ctx); err != nil {
			return "", err
		}
		return page.Text(ctx)
	case opSame:
		text, err := fetch(ctx, page, at+"/page", secret, withToken)
		if err != nil {
			return "", err
		}
		return secretIn(text)
	case opOther:
		return fetch(ctx, page, c.stage.other+"/page", health, "{}")
	case opPreflight:
		text, err := fetch(ctx, page, c.stage.other+"/page", secret, withToken)
		if err != nil {
			return "", err
		}
		return secretIn(text)
	}
	return "", errLacks
}

// fetch makes a page fetch a URL, and returns the answer.
func fetch(ctx context.Context, page *browser.Page, from, url, init string) (string, error) {
	if err := page.Go(ctx, from); err != nil {
		return "", err
	}
	if err := page.Loaded(ctx); err != nil {
		return "", err
	}
	script := fmt.Sprintf(`window.came = null; fetch(%q, %s).then(
		async (r) => window.came = {ok: r.ok, text: await r.text()}, (e) => window.came = {text: String(e)}); null`, url, init)
	if err := page.Eval(ctx, script, new(any)); err != nil {
		return "", err
	}
	var came *struct {
		OK   bool
		Text string
	}
	err := wait.Poll(ctx, pollEvery, "fetch "+url, func(ctx context.Context) error {
		err := page.Eval(ctx, "window.came", &came)
		if err == nil && came == nil {
			err = errors.New("nothing has come")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if !came.OK {
		_, why, _ := strings.Cut(strings.Join(page.Console(), "; "), "has been ")
		return "", fmt.Errorf("%s; on the console: %s", came.Text, why)
	}
	return came.Text, nil
}
