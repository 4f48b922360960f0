// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Page is a tab.
type Page struct {
	b       *Browser
	session string

	mu       sync.Mutex
	console  []string
	requests []string
}

// Screen is what a page is shown on.
type Screen struct {
	Width, Height int
	Scale         float64 // pixels of the screen for one of CSS; 0: 1
	Phone         bool
	Dark          bool
}

// Open opens an empty tab.
func (b *Browser) Open(ctx context.Context, s Screen) (*Page, error) {
	var target struct {
		ID string `json:"targetId"`
	}
	if err := b.call(ctx, "", "Target.createTarget", params{"url": "about:blank"}, &target); err != nil {
		return nil, err
	}
	var attached struct {
		Session string `json:"sessionId"`
	}
	if err := b.call(ctx, "", "Target.attachToTarget", params{"targetId": target.ID, "flatten": true}, &attached); err != nil {
		return nil, err
	}
	p := &Page{b: b, session: attached.Session}
	b.mu.Lock()
	b.hear[p.session] = p.note
	b.mu.Unlock()
	scheme := "light"
	if s.Dark {
		scheme = "dark"
	}
	for _, c := range []struct {
		method string
		params params
	}{
		{"Page.enable", nil},
		{"Runtime.enable", nil},
		{"Log.enable", nil},
		{"Network.enable", nil},
		{"Emulation.setDeviceMetricsOverride", params{"width": s.Width, "height": s.Height, "deviceScaleFactor": s.Scale, "mobile": s.Phone}},
		{"Emulation.setEmulatedMedia", params{"features": []params{{"name": "prefers-color-scheme", "value": scheme}}}},
	} {
		if err := p.call(ctx, c.method, c.params, nil); err != nil {
			return nil, err
		}
	}
	return p, nil
}

type params map[string]any

func (p *Page) call(ctx context.Context, method string, of params, to any) error {
	if of == nil {
		of = params{}
	}
	return p.b.call(ctx, p.session, method, of, to)
}

// note notes what the page asks for, and what the browser has to say of it.
func (p *Page) note(m message) {
	var e struct {
		Type    string
		Request struct{ URL string }
		Entry   struct{ Level, Source, Text, URL string }
		Args    []struct {
			Value       any
			Description string
		}
		ExceptionDetails struct{ Text string }
	}
	if json.Unmarshal(m.Params, &e) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Method {
	case "Network.requestWillBeSent":
		p.requests = append(p.requests, e.Request.URL)
	case "Log.entryAdded":
		p.console = append(p.console, fmt.Sprintf("%s: %s: %s (%s)", e.Entry.Level, e.Entry.Source, e.Entry.Text, e.Entry.URL))
	case "Runtime.consoleAPICalled":
		p.console = append(p.console, fmt.Sprintf("console.%s: %v", e.Type, e.Args))
	case "Runtime.exceptionThrown":
		p.console = append(p.console, "exception: "+e.ExceptionDetails.Text)
	}
}

// Console returns what was written to the console, by scripts and by the browser itself.
func (p *Page) Console() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.console)
}

// Requests returns the URLs that the page has asked for, but for those in the page itself.
func (p *Page) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.requests), func(u string) bool { return strings.HasPrefix(u, "data:") })
}

// Headers makes the page send headers with each request.
func (p *Page) Headers(ctx context.Context, headers map[string]string) error {
	return p.call(ctx, "Network.setExtraHTTPHeaders", params{"headers": headers}, nil)
}

// TrustAll makes the page accept every certificate.
func (p *Page) TrustAll(ctx context.Context) error {
	return p.call(ctx, "Security.setIgnoreCertificateErrors", params{"ignore": true}, nil)
}

// Go goes to a URL. It does not wait for the page.
func (p *Page) Go(ctx context.Context, url string) error {
	var result struct{ ErrorText string }
	if err := p.call(ctx, "Page.navigate", params{"url": url}, &result); err != nil {
		return err
	}
	if result.ErrorText != "" {
		return fmt.Errorf("%s: %s", url, result.ErrorText)
	}
	return nil
}

// Loaded waits until the page that Go went to is there.
func (p *Page) Loaded(ctx context.Context) error {
	for {
		var state string
		err := p.Eval(ctx, "location.href == 'about:blank' ? '' : document.readyState", &state)
		if err == nil && state == "complete" {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the page is not there: %w (%v)", ctx.Err(), err)
		}
	}
}

// Eval takes the value of an expression in the page. The rules for the page's own scripts do not apply to it.
func (p *Page) Eval(ctx context.Context, expression string, to any) error {
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	if err := p.call(ctx, "Runtime.evaluate", params{"expression": expression, "returnByValue": true}, &answer); err != nil {
		return err
	}
	if answer.ExceptionDetails != nil {
		return fmt.Errorf("%s: %s", expression, answer.ExceptionDetails.Text)
	}
	return json.Unmarshal(answer.Result.Value, to)
}

// Text returns what the page reads.
func (p *Page) Text(ctx context.Context) (text string, err error) {
	err = p.Eval(ctx, "document.body.innerText", &text)
	return text, err
}

// Picture returns what the screen shows as a PNG.
func (p *Page) Picture(ctx context.Context) ([]byte, error) {
	var picture struct{ Data []byte }
	err := p.call(ctx, "Page.captureScreenshot", params{"format": "png"}, &picture)
	return picture.Data, err
}
