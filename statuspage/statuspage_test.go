// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package statuspage

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
)

// day is a made-up day of a cluster: two failovers, and a standby that is sealed. Its nodes have names as long as real ones.
func day(now time.Time) status.Document {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	at := func(d time.Duration) *time.Time { t := ago(d); return &t }
	node := func(i int) (name, url string) {
		return fmt.Sprintf("vault-%d", i), fmt.Sprintf("https://vault-%d.example.com:8200", i)
	}
	change := func(d time.Duration, from, to int, gap float64) status.Change {
		e := status.Change{At: ago(d), Cluster: "vault", Event: "active_changed", Reason: discovery.ReasonOK, GapSeconds: gap, By: engine.ByProbe}
		e.Node, e.URL = node(to)
		if from >= 0 {
			e.PreviousNode, e.PreviousURL = node(from)
		}
		return e
	}
	lost := func(d time.Duration, from int, reason discovery.Reason) status.Change {
		e := status.Change{At: ago(d), Cluster: "vault", Event: "active_lost", Reason: reason}
		e.PreviousNode, e.PreviousURL = node(from)
		return e
	}
	c := status.Cluster{
		Cluster: "vault", Healthy: true, Ready: true, Reason: discovery.ReasonOK, Since: at(4 * time.Hour), Candidates: 1,
		Active:    &status.Active{Node: "vault-2", ID: "2", URL: "https://vault-2.example.com:8200", Since: ago(4 * time.Hour), By: engine.ByProbe, Changes: 3},
		Discovery: engine.DiscoveryStatus{Source: "consul", Endpoint: "127.0.0.1:8500", Service: "vault", Up: true, LastSuccess: at(12 * time.Second)},
		Requests:  map[string]uint64{"redirected": 48217, "unavailable": 3},
		Hold:      map[string]uint64{"limit": 10000, "released": 37, "abandoned": 1},
		History: []status.Change{
			change(4*time.Hour, 1, 2, 0.41), lost(4*time.Hour+410*time.Millisecond, 1, discovery.ReasonUnhealthy),
			change(9*time.Hour, 0, 1, 1320), lost(9*time.Hour+22*time.Minute, 0, discovery.ReasonNoActive),
			change(40*time.Hour, -1, 0, 0),
		},
	}
	for i, n := range []status.Node{
		{State: engine.NodeSealed, Why: "probe: 503, sealed", FailingChecks: []string{"vault:10.0.0.10:8200:vault-sealed-check"}, Probe: &status.Probe{Result: engine.ResultSealed, Code: 503, At: now, Seconds: 0.002}},
		{State: engine.NodeStandby, Why: "429, standby", Probe: &status.Probe{Result: engine.ResultStandby, Code: 429, At: now, Seconds: 0.0013}},
		{State: engine.NodeActive, Elected: true, Marked: true, Probe: &status.Probe{Result: engine.ResultActive, Code: 200, At: now, Seconds: 0.0011}},
	} {
		n.Node, n.URL = node(i)
		n.Since = []*time.Time{at(9*time.Hour + 22*time.Minute), at(4 * time.Hour), at(4 * time.Hour)}[i]
		c.Nodes = append(c.Nodes, n)
	}
	return status.Document{Version: "0.1.0", Instance: "b4kq7n2mzx5c", Started: ago(40 * time.Hour), Clusters: []status.Cluster{c}}
}

// newPage returns a page that shows what a function returns.
func newPage(document func() status.Document) *StatusPage {
	p := &StatusPage{logger: zap.NewNop()}
	p.setUp(document)
	return p
}

// askPage requests the page.
func askPage(t *testing.T, p *StatusPage, method, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r, w := httptest.NewRequest(method, "/status", nil), httptest.NewRecorder()
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	if err := p.ServeHTTP(w, r, nil); err != nil {
		t.Error(err)
	}
	return w
}

func TestStatusPageNegotiates(t *testing.T) {
	p := newPage(func() status.Document { return day(time.Now()) })
	for accept, page := range map[string]bool{
		"": false, "*/*": false, "application/json": false, "application/json, text/plain, */*": false, "text/*": false, "text/html;q=0": false,
		"application/json, text/html;q=0.5": false, "nonsense;;;, \x00": false, "text/html;q=nonsense": false,
		"text/html": true, "TEXT/HTML": true, "text/html, application/json;q=0.9": true, "application/json;q=0.1,text/html;q=0.2": true,
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8": true,
	} {
		w := askPage(t, p, http.MethodGet, accept)
		want := "application/json"
		if page {
			want = "text/html; charset=utf-8"
		}
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != want {
			t.Errorf("Accept %q: %d %s, want %s", accept, w.Code, got, want)
		}
		if vary := w.Header().Get("Vary"); vary != "Accept" {
			t.Errorf("Vary is %q", vary)
		}
	}
	var d status.Document
	if err := json.Unmarshal(askPage(t, p, http.MethodGet, "").Body.Bytes(), &d); err != nil || d.Clusters[0].Active.Node != "vault-2" {
		t.Errorf("the document: %v %+v", err, d)
	}
}

func TestStatusPageMethodsAndHeaders(t *testing.T) {
	p := newPage(func() status.Document { return day(time.Now()) })
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
		if w := askPage(t, p, method, "text/html"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	for _, accept := range []string{"text/html", "*/*"} {
		get, head := askPage(t, p, http.MethodGet, accept), askPage(t, p, http.MethodHead, accept)
		if head.Code != http.StatusOK || head.Body.Len() > 0 || head.Header().Get("Content-Length") != fmt.Sprint(get.Body.Len()) {
			t.Errorf("HEAD %s: %d, %d bytes, headers %v", accept, head.Code, head.Body.Len(), head.Header())
		}
		for _, w := range []*httptest.ResponseRecorder{get, head, askPage(t, p, "POST", accept)} {
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Vary": "Accept"} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		}
	}
	// The hash is that of the style as it is in the page; nothing else in the page would need leave of the policy.
	w := askPage(t, p, http.MethodGet, "text/html")
	body := w.Body.String()
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(body, -1)
	if len(style) != 1 {
		t.Fatalf("%d styles", len(style))
	}
	want := "default-src 'none'; style-src 'sha256-" + digest(style[0][1]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := w.Header().Get("Content-Security-Policy"); got != want {
		t.Errorf("policy %s\nwant   %s", got, want)
	}
	if found := regexp.MustCompile(`(?i)<script|\son\w+=|\sstyle=|\ssrc=|href="[^d]|url\(|@import|ZgotmplZ`).FindString(body); found != "" {
		t.Errorf("the page has %q", found)
	}
}

func TestStatusPageEscapes(t *testing.T) {
	const evil = `<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{.}}` + "\u202e\x00\xff"
	d := day(time.Now())
	c := &d.Clusters[0]
	c.Cluster, c.Reason, c.Detail, d.Version, d.Instance = evil, evil, evil, evil, evil
	c.Active.Node, c.Active.URL, c.Active.By, c.Discovery.Endpoint, c.Discovery.Source = evil, evil, evil, evil, evil
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.Node, n.URL, n.Why, n.State, n.FailingChecks, n.Probe.Result, n.Probe.Code = evil, evil, evil, evil, []string{evil}, evil, 0
	}
	for i := range c.History {
		h := &c.History[i]
		h.Node, h.URL, h.PreviousNode, h.Reason, h.By = evil, evil, evil, evil, evil
	}
	body := askPage(t, newPage(func() status.Document { return d }), http.MethodGet, "text/html").Body.String()
	for _, part := range []string{"<script", "<img", "onerror=alert(2)>", `"'>`} {
		if strings.Contains(body, part) {
			t.Errorf("the page has %q", part)
		}
	}
	if n := strings.Count(html.UnescapeString(body), "<script>alert(1)</script>"); n < 20 {
		t.Errorf("the name is shown %d times", n)
	}
}

func TestStatusPageRefreshes(t *testing.T) {
	for refresh, want := range map[time.Duration]string{-1: `content="5"`, 0: "", time.Second: `content="1"`, 1500 * time.Millisecond: `content="2"`} {
		p := &StatusPage{logger: zap.NewNop()}
		if refresh >= 0 {
			p.Refresh = (*caddy.Duration)(&refresh)
		}
		p.setUp(func() status.Document { return day(time.Now()) })
		body := askPage(t, p, http.MethodGet, "text/html").Body.String()
		if has := strings.Contains(body, `http-equiv="refresh"`); has != (want != "") || !strings.Contains(body, want) {
			t.Errorf("refresh %s: the page has one: %t, want %q", refresh, has, want)
		}
	}
}

// Many clients ask at once and for long: the page is rendered rarely.
func TestStatusPageIsMadeRarely(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the race detector breaks now and then in bubbles: go.dev/issue/78156
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int64
		p := newPage(func() status.Document { made.Add(1); return day(time.Now()) })
		var group sync.WaitGroup
		for i := range 100 {
			group.Go(func() {
				accept := []string{"text/html", "*/*"}[i%2]
				for range 100 {
					if w := askPage(t, p, http.MethodGet, accept); w.Code != http.StatusOK {
						t.Errorf("%d", w.Code)
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		group.Wait() // after a second
		if n := made.Load(); n != 8 {
			t.Errorf("made %d times in a second, want 4 for each of two types", n)
		}
		time.Sleep(time.Hour)
		askPage(t, p, http.MethodGet, "text/html")
		if n := made.Load(); n != 9 {
			t.Errorf("made %d times: after an hour, an old one is served", n)
		}
	})
}
