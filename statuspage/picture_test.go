// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package statuspage

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/browser"
)

// TestStatusPagePictures makes the pictures of the status page that the documentation shows:
//
//	VAULT_REDIRECT_PICTURES=$PWD/docs/img go test -run TestStatusPagePictures ./statuspage
func TestStatusPagePictures(t *testing.T) {
	program, err := browser.Program()
	if err != nil {
		t.Skip(err)
	}
	b, err := browser.Start(program, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	p := newPage(func() status.Document { return day(time.Now()) })
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.ServeHTTP(w, r, nil); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(site.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	for name, screen := range map[string]browser.Screen{
		"status-dark.png":  {Width: 1200, Height: 1020, Scale: 1, Dark: true},
		"status-phone.png": {Width: 360, Height: 780, Scale: 2, Phone: true},
	} {
		page, err := b.Open(ctx, screen)
		if err != nil {
			t.Fatal(err)
		}
		if err := page.Go(ctx, site.URL); err != nil {
			t.Fatal(err)
		}
		if err := page.Loaded(ctx); err != nil {
			t.Fatal(err)
		}
		var width int
		if err := page.Eval(ctx, "document.documentElement.scrollWidth", &width); err != nil || width > screen.Width {
			t.Errorf("%s: the page is %d wide, the screen %d: %v", name, width, screen.Width, err)
		}
		picture, err := page.Picture(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(picture) > 150_000 {
			t.Errorf("%s has %d bytes", name, len(picture))
		}
		if got := page.Console(); len(got) > 0 {
			t.Errorf("%s: console: %q", name, got)
		}
		if dir := os.Getenv("VAULT_REDIRECT_PICTURES"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
				t.Error(err)
			}
		}
	}
}
