// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package statuspage

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/status"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// hoursAgo returns the time so many hours before noon.
func hoursAgo(h float64) time.Time { return noon.Add(-time.Duration(h * float64(time.Hour))) }

// active and lost are entries of a history.
func active(h float64, node string, gapHours float64) status.Change {
	return status.Change{At: hoursAgo(h), Event: "active_changed", Node: node, URL: "https://" + node, GapSeconds: gapHours * 3600}
}

func lost(h float64, node string) status.Change {
	return status.Change{At: hoursAgo(h), Event: "active_lost", PreviousNode: node, PreviousURL: "https://" + node}
}

// nowActive is a cluster in which a node is active since some hours, or none is if the name is empty.
func nowActive(h float64, node string, history ...status.Change) *status.Cluster {
	since := hoursAgo(h)
	c := &status.Cluster{Since: &since, History: history}
	if node != "" {
		c.Active = &status.Active{Node: node, URL: "https://" + node, Since: since}
	}
	return c
}

// drawn writes a timeline as its lanes and bars, in hours before noon.
func drawn(l *timeline) string {
	if l == nil {
		return "nothing"
	}
	text := hours(l.Window) + ":"
	for _, lane := range l.Lanes {
		text += " [" + lane.Name
		for _, b := range lane.Bars {
			from := (100 - float64(b.X)) / 100 * l.Window.Hours()
			text += fmt.Sprintf(" %s %.4g-%.4g", b.Class, round(from), round(from-float64(b.Width)/100*l.Window.Hours()))
		}
		text += "]"
	}
	return text
}

func round(f float64) float64 { return math.Abs(math.Round(f*1e4) / 1e4) }

func TestTimeline(t *testing.T) {
	stale := nowActive(10, "a", active(10, "a", 0))
	since := hoursAgo(2)
	stale.StaleSince = &since
	for _, tc := range []struct {
		name    string
		cluster *status.Cluster
		want    string
	}{
		{"nothing is known", &status.Cluster{}, "nothing"},
		{"active all day", nowActive(30, "a", active(30, "a", 0)), "24 h: [a active 24-0]"},
		{"active before the window begins is clipped, and what was over is left out", nowActive(1, "c", active(1, "c", 0), active(30, "b", 0), active(50, "a", 0)), "24 h: [b active 24-1] [c active 1-0]"},
		{"a failover with a gap", nowActive(4, "b", active(4, "b", 2), lost(6, "a"), active(30, "a", 0)), "24 h: [a active 24-6 gap 6-4] [b active 4-0 gap 6-4]"},
		{"a gap that nothing announced, as of a stale node", nowActive(4, "b", active(4, "b", 2), active(30, "a", 0)), "24 h: [a active 24-6 gap 6-4] [b active 4-0 gap 6-4]"},
		{"a gap that began before the window", nowActive(20, "b", active(20, "b", 8), lost(28, "a"), active(40, "a", 0)), "24 h: [b active 20-0 gap 24-20]"},
		{"back and forth is one lane each", nowActive(3, "a", active(3, "a", 0), active(6, "b", 0), active(30, "a", 0)), "24 h: [a active 24-6 active 3-0] [b active 6-3]"},
		{"the same node again", nowActive(3, "a", active(3, "a", 1), lost(4, "a"), active(30, "a", 0)), "24 h: [a active 24-4 active 3-0 gap 4-3]"},
		{"none is active since a loss", nowActive(2, "", lost(2, "a"), active(30, "a", 0)), "24 h: [a active 24-2 gap 2-0]"},
		{"none is active and nothing told of it", nowActive(2, "", active(30, "a", 0)), "24 h: [a active 24-2 gap 2-0]"},
		{"none ever was active", nowActive(2, ""), "4 h: [no active node unknown 4-2 gap 2-0]"},
		{"the first one after a time without", nowActive(1, "a", active(1, "a", 1)), "4 h: [a active 1-0 unknown 4-2 gap 2-1]"},
		{"a state that is newer than the history", nowActive(1, "b", lost(2, "a"), active(30, "a", 0)), "24 h: [a active 24-2 gap 2-1] [b active 1-0 gap 2-1]"},
		{"a history that is newer than the state", nowActive(30, "a", active(1, "b", 0), active(30, "a", 0)), "24 h: [a active 24-1] [b active 1-0]"},
		{"the last known node", stale, "12 h: [a active 10-0 stale 2-0 unknown 12-10]"},
		{"known for minutes", nowActive(0.1, "a", active(0.1, "a", 0)), "20 min: [a active 0.1-0 unknown 0.3333-0.1]"},
		{"a history that has lost its beginning", nowActive(3, "b", active(3, "b", 1), lost(4, "a")), "4 h: [b active 3-0 gap 4-3]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := drawn(timelineOf(tc.cluster, noon)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestTimelineSummary(t *testing.T) {
	for _, tc := range []struct {
		cluster *status.Cluster
		want    string
	}{
		{nowActive(30, "a", active(30, "a", 0)), "last 24 h: 0 failovers, 0s without an active node"},
		{nowActive(0.2, "a", active(0.2, "a", 0)), "last 20 min: 0 failovers, 0s without an active node"},
		{nowActive(4, "b", active(4, "b", 2), lost(6, "a"), active(30, "a", 0)), "last 24 h: 1 failover, 2h0m without an active node"},
		{nowActive(20, "b", active(20, "b", 8), lost(28, "a"), active(40, "a", 0)), "last 24 h: 1 failover, 4h0m without an active node"},
		{nowActive(1, "", lost(1, "a"), active(30, "a", 0)), "last 24 h: 0 failovers, 1h0m without an active node"},
	} {
		if got := timelineOf(tc.cluster, noon).Summary; got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

// TestTimelineInThePage reads the widths of two gaps in the page itself: the second is ten times as long as the first.
func TestTimelineInThePage(t *testing.T) {
	c := nowActive(1, "a", active(1, "a", 0.001), lost(1.001, "b"), active(5, "b", 0.01), lost(5.01, "a"), active(30, "a", 0))
	body, err := renderPage(status.Document{Clusters: []status.Cluster{*c}}, 0, noon)
	if err != nil {
		t.Fatal(err)
	}
	gaps := regexp.MustCompile(`<rect class="gap" x="([\d.]+)%" width="([\d.]+)%" y="18" height="14"><title>no active node from ([^<]*)</title>`).FindAllStringSubmatch(string(body), -1)
	if len(gaps) != 2 {
		t.Fatalf("gaps in the first lane: %q", gaps)
	}
	var x, width [2]float64
	for i, g := range gaps {
		x[i], _ = strconv.ParseFloat(g[1], 64)
		width[i], _ = strconv.ParseFloat(g[2], 64)
	}
	if math.Abs(width[0]/width[1]-10) > 0.1 || math.Abs(width[0]-100*0.01/24) > 1e-5 || math.Abs(x[0]-100*(24-5.01)/24) > 1e-5 {
		t.Errorf("gaps at %v, %v wide", x, width)
	}
	if want := "2026-11-21 06:59:24 for 36s"; gaps[0][3] != want {
		t.Errorf("title %q, want %q", gaps[0][3], want)
	}
}

func TestStatusPageSaysWhatIsTheCase(t *testing.T) {
	soon := noon.Add(90 * time.Second)
	for _, tc := range []struct {
		name    string
		cluster func(c *status.Cluster)
		want    []string
	}{
		{"well", func(*status.Cluster) {}, []string{`<section class="cluster ok">`, ">redirecting<", "<title>vault → a</title>"}},
		{
			"none", func(c *status.Cluster) { c.Active, c.Reason, c.Detail = nil, discovery.ReasonNoActive, "more on it" },
			[]string{`<section class="cluster bad">`, ">no active node<", "<title>vault: no active node</title>", "none is marked active in Consul (more on it)"},
		},
		{
			"stale", func(c *status.Cluster) { c.Reason, c.StaleUntil = discovery.ReasonConsulUnreachable, &soon },
			[]string{`<section class="cluster warn">`, ">redirecting to the last known node<", "Consul cannot be reached; it is used for another 1m30s"},
		},
		{"silent", func(c *status.Cluster) { c.Silent = true }, []string{`<section class="cluster warn">`, ">requests wait<"}},
		{"starting", func(c *status.Cluster) { c.Active, c.Reason = nil, discovery.ReasonStarting }, []string{`<section class="cluster idle">`, ">starting<"}},
		{
			"numbers", func(c *status.Cluster) {
				c.Requests, c.Hold = map[string]uint64{"unavailable": 2, "loop": 1}, map[string]uint64{"limit": 10, "waiting": 3, "overflow": 4}
			},
			[]string{
				`<div class="warn"><dt>waiting now</dt><dd>3 / 10</dd>`, `<div class="bad"><dt>rejected (503)</dt><dd>2</dd>`,
				`<div class="bad"><dt>redirect loop (508)</dt><dd>1</dd>`, `<div class="bad"><dt>hold queue full</dt><dd>4</dd>`,
			},
		},
		{"no hold", func(*status.Cluster) {}, []string{"<dd>0 (hold is off)</dd>"}},
		{"long history", func(c *status.Cluster) {
			for range 30 {
				c.History = append(c.History, active(40, "z", 0))
			}
		}, []string{"11 more in the JSON document"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := nowActive(3, "a", active(3, "a", 0))
			c.Cluster, c.Reason = "vault", discovery.ReasonOK
			tc.cluster(c)
			body, err := renderPage(status.Document{Clusters: []status.Cluster{*c}, Started: noon}, 0, noon)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range tc.want {
				if !strings.Contains(string(body), part) {
					t.Errorf("the page lacks %q", part)
				}
			}
			if t.Failed() {
				t.Logf("%s", body)
			}
		})
	}
	none := askPage(t, newPage(func() status.Document { return status.Document{Draining: true} }), http.MethodGet, "text/html").Body.String()
	for _, part := range []string{"No vault_redirect is configured", "draining: this copy is about to end", "<title>no cluster</title>"} {
		if !strings.Contains(none, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
}

func BenchmarkStatusPage(b *testing.B) {
	d := day(time.Now())
	for b.Loop() {
		if _, err := renderPage(d, 5, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStatusPageServed is what a request costs that gets what was made for another.
func BenchmarkStatusPageServed(b *testing.B) {
	d := day(time.Now())
	p := newPage(func() status.Document { return d })
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept", "text/html")
	for b.Loop() {
		if err := p.ServeHTTP(httptest.NewRecorder(), r, nil); err != nil {
			b.Fatal(err)
		}
	}
}
