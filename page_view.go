// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the status page says, and its template.

package vaultredirect

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

var (
	//go:embed page/page.html
	pageText string
	//go:embed page/page.css
	pageStyle string

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
		"brief": brief, "clock": clock, "probe": sayProbe, "plural": func(n uint64, what string) string { return plural(int(n), what) },
		"stateClass": stateClass,
		"seconds":    func(s float64) string { return brief(time.Duration(s * float64(time.Second))) },
	}).Parse(pageText))

	// pagePolicy allows the one style and nothing else: no script, no form, no frame around the page, and no request, not
	// even for an icon.
	pagePolicy = "default-src 'none'; style-src 'sha256-" + digest(pageStyle) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// pageData is what the template shows.
type pageData struct {
	statusDocument
	Style    template.CSS
	Refresh  int // in seconds; 0: never
	Now      time.Time
	Title    string
	Clusters []clusterData
}

// clusterData is what the template shows of a cluster.
type clusterData struct {
	clusterStatus
	Class     string // ok, warn, bad or idle
	Word      string
	Note      string // what is to be known besides
	Discovery string
	Up        bool // discovery answers
	Timeline  *timeline
	Nodes     []nodeData
	Numbers   []figure
	Older     int // entries of the history that are not shown
}

type nodeData struct {
	nodeStatus
	Class string
	Age   string
	Why   string
}

type figure struct {
	Label string
	Value string
	Class string
}

// shownHistory is how many changes the page shows of each cluster.
const shownHistory = 20

// renderPage returns the page.
func renderPage(d statusDocument, refresh int, now time.Time) ([]byte, error) {
	data := pageData{statusDocument: d, Style: template.CSS(pageStyle), Refresh: refresh, Now: now}
	var titles []string
	for i := range d.Clusters {
		c := clusterDataOf(d.Clusters[i], now)
		title := c.Cluster + ": " + c.Word
		if c.Active != nil {
			title = c.Cluster + " → " + c.Active.Node
		}
		titles = append(titles, title)
		data.Clusters = append(data.Clusters, c)
	}
	data.Title = cmp.Or(strings.Join(titles, ", "), "no cluster")
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, data)
	return b.Bytes(), err
}

func clusterDataOf(c clusterStatus, now time.Time) clusterData {
	d := clusterData{
		clusterStatus: c, Discovery: sayDiscovery(c, now), Up: c.Discovery.Up, Timeline: timelineOf(&c, now), Numbers: numbersOf(&c),
		Older: max(0, len(c.History)-shownHistory),
	}
	d.History = c.History[:len(c.History)-d.Older]
	switch {
	case c.Active == nil && c.Reason == discovery.ReasonStarting:
		d.Class, d.Word = "idle", "starting"
		d.Note = redirect.Explain(c.Reason)
	case c.Active == nil:
		d.Class, d.Word = "bad", "no active node"
		if d.Note = redirect.Explain(c.Reason); c.Detail != "" {
			d.Note += " (" + c.Detail + ")"
		}
	case c.StaleUntil != nil:
		d.Class, d.Word = "warn", "redirecting to the last known node"
		d.Note = fmt.Sprintf("%s; it is used for another %s", redirect.Explain(c.Reason), brief(c.StaleUntil.Sub(now)))
	case c.Silent:
		d.Class, d.Word = "warn", "requests wait"
		d.Note = "the active node leaves a probe unanswered"
	default:
		d.Class, d.Word = "ok", "redirecting"
	}
	for _, n := range c.Nodes {
		d.Nodes = append(d.Nodes, nodeData{n, stateClass(n.State), sayAge(n.Since, now), cmp.Or(sayWhy(n), "—")})
	}
	return d
}

// stateClass returns the class for the state of a node.
func stateClass(s engine.NodeState) string {
	switch s {
	case engine.NodeActive:
		return "ok"
	case engine.NodeStandby:
		return "idle"
	case engine.NodeMaintenance, engine.NodeUnknown:
		return "warn"
	}
	return "bad"
}

// numbersOf returns the counters that are worth a look. Those of what should not happen are shown once it has.
func numbersOf(c *clusterStatus) []figure {
	waiting := figure{"waiting now", fmt.Sprintf("%d / %d", c.Hold["waiting"], c.Hold["limit"]), ""}
	switch {
	case c.Hold["limit"] == 0:
		waiting.Value = "0 (hold is off)"
	case c.Hold["waiting"] > 0:
		waiting.Class = "warn"
	}
	list := []figure{waiting}
	add := func(label string, n uint64, always bool, class string) {
		if n > 0 || always {
			if n == 0 {
				class = ""
			}
			list = append(list, figure{label, fmt.Sprint(n), class})
		}
	}
	add("redirected", c.Requests["redirected"], true, "")
	add("proxied", c.Requests["proxied"], false, "")
	add("turned away (503)", c.Requests["unavailable"], true, "bad")
	add("redirect loop (508)", c.Requests["loop"], false, "bad")
	add("no path (400)", c.Requests["bad_request"], false, "warn")
	add("waited, then served", c.Hold["released"], true, "")
	add("waited in vain", c.Hold["expired"], false, "bad")
	add("left while waiting", c.Hold["abandoned"], false, "warn")
	add("no place to wait", c.Hold["overflow"], false, "bad")
	add("waiting at shutdown", c.Hold["shutdown"], false, "warn")
	return list
}
