// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// This file holds the test of the status page in a real browser, through a failover.

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/browser"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// openBrowser starts a Chromium that ends with the test, which is skipped where there is none.
func openBrowser(t *testing.T) *browser.Browser {
	t.Helper()
	program, err := browser.Program()
	if err != nil {
		t.Skip("the status page is not tested in a browser: ", err)
	}
	b, err := browser.Start(program, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close()
		if t.Failed() {
			t.Logf("Chromium's output:\n%s", tail(b.Output(), 1000))
		}
	})
	return b
}

// pages are the tabs of a test, all at the status page of a site.
type pages struct {
	t    *testing.T
	url  string
	tabs []*browser.Page
}

func openPages(t *testing.T, url string, screens ...browser.Screen) *pages {
	t.Helper()
	b := openBrowser(t)
	p := &pages{t: t, url: url}
	for _, screen := range screens {
		page, err := b.Open(t.Context(), screen)
		if err != nil {
			t.Fatal(err)
		}
		if err := page.Go(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		p.tabs = append(p.tabs, page)
	}
	return p
}

// await waits until all tabs read so, by their own refresh.
func (p *pages) await(when string, parts ...string) {
	p.t.Helper()
	for i, page := range p.tabs {
		var text string
		p.t.Cleanup(func() {
			if p.t.Failed() {
				p.t.Logf("tab %d, %s, reads:\n%s", i, when, text)
			}
		})
		await(p.t, when, func() bool {
			now, err := page.Text(p.t.Context())
			if err != nil { // it is being loaded again
				return false
			}
			text = strings.Join(strings.Fields(now), " ")
			return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
		})
	}
}

// has waits until an expression has a value in all tabs.
func (p *pages) has(expression string, want any) {
	p.t.Helper()
	for _, page := range p.tabs {
		await(p.t, fmt.Sprintf("%s is %v", expression, want), func() bool {
			var got any
			return page.Eval(p.t.Context(), expression, &got) == nil && got == want
		})
	}
}

// clean fails if a tab has asked for anything but the page, or has anything on its console.
func (p *pages) clean() {
	p.t.Helper()
	for _, page := range p.tabs {
		if got := page.Console(); len(got) > 0 {
			p.t.Errorf("on the console: %q", got)
		}
		for _, url := range page.Requests() {
			if url != p.url {
				p.t.Errorf("the page asks for %s", url)
			}
		}
	}
}

// TestStatusPageInABrowser opens the page once, and has it show a failover by its own refresh.
func TestStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	cluster, err := standin.NewCluster(3, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	caddy := runCaddy(t, "", `
http://{ip}:8080 {
	log
	@operator {
		path /status
		remote_ip 127.0.0.0/8
	}
	vault_redirect_status @operator {
		refresh 1s
	}
	vault_redirect `+cluster.Consul.Addr()+` {
		name   main
		scheme http
		hold   50s
	}
}`)
	site := "http://" + caddy.IP + ":8080"
	pages := openPages(
		t, site+"/status",
		browser.Screen{Width: 1200, Height: 800, Scale: 1, Dark: true},
		browser.Screen{Width: 360, Height: 640, Scale: 2, Phone: true},
	)
	v0, v2 := cluster.Vaults[0], cluster.Vaults[2]

	pages.await("before", "redirecting main → vault-0", v0.URL(), "active since", "0 failovers", "vault-1", "standby", "requests are redirected here", "0 / 10000")
	pages.has("document.title", "main → vault-0")
	pages.has("document.querySelectorAll('rect.active').length", 1.0)
	pages.has("document.querySelectorAll('rect.gap').length", 0.0)

	for _, v := range cluster.Vaults[1:] {
		v.SetSealed(true)
	}
	if old, successor := cluster.Kill(); old != v0 || successor != nil {
		t.Fatalf("%v was active, %v is", old, successor)
	}
	location := make(chan string, 1)
	go func() { // a client, which waits
		resp, err := client.Get(site + "/v1/secret/data/x")
		if err != nil {
			location <- err.Error()
			return
		}
		resp.Body.Close()
		location <- resp.Header.Get("Location")
	}()
	pages.await("during", "no active node main", "unreachable", "sealed", "1 / 10000", "lost", "vault-0 → none")
	pages.has("document.title", "main: no active node")
	pages.has("document.querySelectorAll('rect.gap').length", 1.0)
	// Words and colours: the style applies.
	pages.has("getComputedStyle(document.querySelector('rect.gap')).fill.match(/[0-9]+/)[0] > 200", true)
	pages.has("document.documentElement.scrollWidth <= innerWidth", true)

	v2.SetSealed(false)
	if now := cluster.StepDown(); now != v2 {
		t.Fatalf("%v is active", now)
	}
	if got, want := <-location, v2.URL()+"/v1/secret/data/x"; got != want {
		t.Errorf("the client was led to %s, want %s", got, want)
	}
	pages.await("after", "redirecting main → vault-2", v2.URL(), "1 failover", "→ vault-2", "waited, then served 1", "0 / 10000")
	pages.has("document.title", "main → vault-2")
	pages.has("document.querySelectorAll('rect.gap').length", 2.0) // the one gap, in each of two lanes
	pages.has("document.documentElement.scrollWidth <= innerWidth", true)
	pages.clean()

	// Had there been anything on the console, it would have been heard; and the policy holds.
	tab := pages.tabs[0]
	var done bool
	if err := tab.Eval(t.Context(), "document.body.append(Object.assign(new Image(), {src: '/v1/sys/health'})), true", &done); err != nil {
		t.Fatal(err)
	}
	await(t, "the browser refuses an image", func() bool {
		return strings.Contains(strings.Join(tab.Console(), "\n"), "Content Security Policy")
	})

	// What others see of it: the site was asked for the page and by the client, and for nothing else.
	for line := range strings.Lines(caddy.Log()) {
		var entry struct{ Request *struct{ URI string } }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Request != nil && entry.Request.URI != "/status" && entry.Request.URI != "/v1/secret/data/x" {
			t.Errorf("the site was asked for %s", entry.Request.URI)
		}
	}
}

// TestStatusPageAnswersPrograms compares the document, on a site of its own behind a password, with that of the admin
// endpoint.
func TestStatusPageAnswersPrograms(t *testing.T) {
	t.Parallel()
	cluster, err := standin.NewCluster(2, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	caddy := runCaddy(t, "", `
http://{ip}:8080 {
	vault_redirect `+cluster.Consul.Addr()+` {
		scheme http
	}
}
http://{ip}:8081 {
	@stranger not header X-Operator yes
	respond @stranger 403
	vault_redirect_status
}`)
	url := "http://" + caddy.IP + ":8081/any/path"
	ask := func() (code int, body string) {
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Operator", "yes")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, readAll(t, resp)
	}
	if code, _, body := get(t, url); code != http.StatusForbidden {
		t.Errorf("a stranger got %d: %s", code, body)
	}
	// What changes by itself from one moment to the next.
	volatile := regexp.MustCompile(`"(at|last_success|seconds|index|waiting)": [^\n]*`)
	caddy.await("both show the same, with a standby", func() bool {
		code, body := ask()
		_, want := caddy.admin("GET", "/vault_redirect/status", "", "")
		return code == http.StatusOK && strings.Contains(body, `"standby"`) && volatile.ReplaceAllString(body, "") == volatile.ReplaceAllString(want, "")
	})
}
