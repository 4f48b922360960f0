// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package statuspage

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(pageStyle) },
		"brief": words.Brief, "seconds": words.Seconds, "plural": words.Plural[uint64], "clock": status.Clock, "age": status.Age,
		"situation": situationOf, "timeline": timelineOf, "stateClass": stateClass, "numbers": numbersOf, "recent": recent, "older": older,
	}).Parse(pageText))

	// pagePolicy allows the page's style and nothing else: no script, no form, no frame, and no request, not even for an icon.
	pagePolicy = "default-src 'none'; style-src 'sha256-" + digest(pageStyle) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// renderPage renders a document. The browser loads the page again after so many seconds; 0: never.
func renderPage(d status.Document, refresh int, now time.Time) ([]byte, error) {
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, struct {
		status.Document
		Now     time.Time
		Refresh int
	}{d, now, refresh})
	return b.Bytes(), err
}

// situation summarizes the state of a cluster.
type situation struct {
	Class string // ok, warn, bad or idle
	Word  string
	Note  string // details; may be empty
}

func situationOf(c *status.Cluster, now time.Time) situation {
	switch why := redirect.Explain(c.Reason); {
	case c.Active == nil && c.Reason == discovery.ReasonStarting:
		return situation{"idle", "starting", why}
	case c.Active == nil && c.Detail != "":
		return situation{"bad", "no active node", why + " (" + c.Detail + ")"}
	case c.Active == nil:
		return situation{"bad", "no active node", why}
	case c.StaleUntil != nil:
		return situation{"warn", "redirecting to the last known node", fmt.Sprintf("%s; it is used for another %s", why, words.Brief(c.StaleUntil.Sub(now)))}
	case c.Silent:
		return situation{"warn", "requests wait", "the active node has not answered a probe yet"}
	}
	return situation{"ok", "redirecting", ""}
}

// shownHistory is how many changes the page shows of each cluster.
const shownHistory = 20

// recent returns the changes that are shown.
func recent(history []status.Change) []status.Change {
	return history[:min(len(history), shownHistory)]
}

// older returns how many changes are not shown.
func older(history []status.Change) int { return max(0, len(history)-shownHistory) }

// stateClasses are the classes of states; that of others is bad.
var stateClasses = map[engine.NodeState]string{
	engine.NodeActive: "ok", engine.NodeStandby: "idle", engine.NodeMaintenance: "warn", engine.NodeUnknown: "warn",
}

func stateClass(s engine.NodeState) string { return cmp.Or(stateClasses[s], "bad") }

// figure is a counter.
type figure struct {
	Label string
	Value string
	Class string
}

// numbersOf returns the counters to show. Counters of errors are shown if they are not 0.
func numbersOf(c *status.Cluster) []figure {
	waiting := figure{"waiting now", fmt.Sprintf("%d / %d", c.Hold["waiting"], c.Hold["limit"]), ""}
	switch {
	case c.Hold["limit"] == 0:
		waiting.Value = "0 (hold is off)"
	case c.Hold["waiting"] > 0:
		waiting.Class = "warn"
	}
	list := []figure{waiting}
	for _, n := range []struct {
		label  string
		count  uint64
		always bool // shown if it is 0
		class  string
	}{
		{"redirected", c.Requests["redirected"], true, ""},
		{"redirected to standbys", c.Requests["standby"], false, ""},
		{"proxied", c.Requests["proxied"], false, ""},
		{"rejected (503)", c.Requests["unavailable"], true, "bad"},
		{"redirect loop (508)", c.Requests["loop"], false, "bad"},
		{"passed to the next handler", c.Requests["passed"], false, "warn"},
		{"no path (400)", c.Requests["bad_request"], false, "warn"},
		{"waited, then served", c.Hold["released"], true, ""},
		{"hold timed out", c.Hold["expired"], false, "bad"},
		{"client left", c.Hold["abandoned"], false, "warn"},
		{"hold queue full", c.Hold["overflow"], false, "bad"},
		{"waiting at shutdown", c.Hold["shutdown"], false, "warn"},
	} {
		if n.count == 0 {
			n.class = ""
		}
		if n.count > 0 || n.always {
			list = append(list, figure{n.label, fmt.Sprint(n.count), n.class})
		}
	}
	return list
}
