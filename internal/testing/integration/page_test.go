// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

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
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
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
		wait.Until(p.t, when, func() bool {
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
		wait.Until(p.t, fmt.Sprintf("%s is %v", expression, want), func() bool {
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

// failoverOfPage is a site with a status page at which tabs are open, and its cluster of three.
type failoverOfPage struct {
	*pages
	cluster *standin.Cluster
	caddy   *server
	site    string
}

func openFailoverOfPage(t *testing.T) *failoverOfPage {
	t.Helper()
	cluster := standin.RunCluster(t, 3)
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
	return &failoverOfPage{pages: pages, cluster: cluster, caddy: caddy, site: site}
}

// before checks what the page shows of a cluster in which all is well.
func (f *failoverOfPage) before() {
	f.t.Helper()
	f.await("before", "redirecting main → vault-0", f.cluster.Vaults[0].URL(), "active since", "0 failovers", "vault-1", "standby", "requests are redirected here", "0 / 10000")
	f.has("document.title", "main → vault-0")
	f.has("document.querySelectorAll('rect.active').length", 1.0)
	f.has("document.querySelectorAll('rect.gap').length", 0.0)
}

// during kills the active node while no other can take over, and checks what the page shows. It returns where a client is led
// that asks then, once it is answered.
func (f *failoverOfPage) during() (location <-chan string) {
	f.t.Helper()
	for _, v := range f.cluster.Vaults[1:] {
		v.SetSealed(true)
	}
	if old, successor := f.cluster.Kill(); old != f.cluster.Vaults[0] || successor != nil {
		f.t.Fatalf("%v was active, %v is", old, successor)
	}
	led := make(chan string, 1)
	go func() { // a client, which waits
		resp, err := client.Get(f.site + "/v1/secret/data/x")
		if err != nil {
			led <- err.Error()
			return
		}
		resp.Body.Close()
		led <- resp.Header.Get("Location")
	}()
	f.await("during", "no active node main", "unreachable", "sealed", "1 / 10000", "lost", "vault-0 → none")
	f.has("document.title", "main: no active node")
	f.has("document.querySelectorAll('rect.gap').length", 1.0)
	// Words and colours: the style applies.
	f.has("getComputedStyle(document.querySelector('rect.gap')).fill.match(/[0-9]+/)[0] > 200", true)
	f.has("document.documentElement.scrollWidth <= innerWidth", true)
	return led
}

// after makes another node active, and checks where the client is led and what the page shows.
func (f *failoverOfPage) after(location <-chan string) {
	f.t.Helper()
	v2 := f.cluster.Vaults[2]
	v2.SetSealed(false)
	if now := f.cluster.StepDown(); now != v2 {
		f.t.Fatalf("%v is active", now)
	}
	if got, want := <-location, v2.URL()+"/v1/secret/data/x"; got != want {
		f.t.Errorf("the client was led to %s, want %s", got, want)
	}
	f.await("after", "redirecting main → vault-2", v2.URL(), "1 failover", "→ vault-2", "waited, then served 1", "0 / 10000")
	f.has("document.title", "main → vault-2")
	f.has("document.querySelectorAll('rect.gap').length", 2.0) // the one gap, in each of two lanes
	f.has("document.documentElement.scrollWidth <= innerWidth", true)
}

// policyHolds checks that, had there been anything on the console, it would have been heard; and that the policy holds.
func (f *failoverOfPage) policyHolds() {
	f.t.Helper()
	tab := f.tabs[0]
	var done bool
	if err := tab.Eval(f.t.Context(), "document.body.append(Object.assign(new Image(), {src: '/v1/sys/health'})), true", &done); err != nil {
		f.t.Fatal(err)
	}
	wait.Until(f.t, "the browser refuses an image", func() bool {
		return strings.Contains(strings.Join(tab.Console(), "\n"), "Content Security Policy")
	})
}

// onlyAsked checks what others see of it: the site was asked for the page and by the client, and for nothing else.
func (f *failoverOfPage) onlyAsked(uris ...string) {
	f.t.Helper()
	for line := range strings.Lines(f.caddy.Log()) {
		var entry struct{ Request *struct{ URI string } }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Request != nil && !slices.Contains(uris, entry.Request.URI) {
			f.t.Errorf("the site was asked for %s", entry.Request.URI)
		}
	}
}

// TestStatusPageInABrowser opens the page once, and checks that its own refresh shows a failover.
func TestStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	f := openFailoverOfPage(t)
	f.before()
	location := f.during()
	f.after(location)
	f.clean()
	f.policyHolds()
	f.onlyAsked("/status", "/v1/secret/data/x")
}

// TestStatusPageAnswersPrograms compares the document, on a site of its own behind a password, with that of the admin
// endpoint.
func TestStatusPageAnswersPrograms(t *testing.T) {
	t.Parallel()
	cluster := standin.RunCluster(t, 2)
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
