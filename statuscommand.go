// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the commands that show the status of a running Caddy.

package vaultredirect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// exitNotRedirecting is the exit code where a cluster has no active node, as that of vault status for a sealed node.
const exitNotRedirecting = 2

// addStatusCommands adds status and history below the command vault-redirect.
func addStatusCommands(parent *cobra.Command) {
	status := &cobra.Command{
		Use:   "status [--cluster NAME] [--json] [--wait DURATION] [--address ADDRESS | --config FILE [--adapter NAME]]",
		Short: "Shows which node is active, and why others are not",
		Long: `
Asks a running Caddy, through its admin API, for what its vault_redirect knows:
which node is active and since when, the state of each node and why it is not
the active one, how long clients waited.

With --wait it waits until every cluster has an active node, at most so long.

Exit code: 0 if every cluster has an active node, 2 if one has none, 1 for an
error.`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(runStatus),
	}
	status.Flags().Duration("wait", 0, "Wait at most so long until every cluster has an active node")
	history := &cobra.Command{
		Use:   "history [--cluster NAME] [--limit N] [--json] [--address ADDRESS | --config FILE [--adapter NAME]]",
		Short: "Shows the last changes of the active node",
		Long: `
Asks a running Caddy, through its admin API, for the last changes of who is
active, the newest first, and for how long there was no active node.`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(runHistory),
	}
	history.Flags().Int("limit", 20, "How many changes to show")
	for _, c := range []*cobra.Command{status, history} {
		c.Flags().String("cluster", "", "Show this cluster only")
		c.Flags().Bool("json", false, "Print the document as it is")
		c.Flags().String("address", "", "Address of Caddy's admin API (default: as the config says, CADDY_ADMIN, or localhost:2019)")
		c.Flags().String("config", "", "Config file of the running Caddy, which has the address of its admin API")
		c.Flags().String("adapter", "", "Adapter of the config file")
		parent.AddCommand(c)
	}
	addCheckCommand(parent)
}

// askAdmin asks the admin API of a running Caddy for a document.
func askAdmin(fs caddycmd.Flags, path string, to any) (raw []byte, err error) {
	address, err := caddycmd.DetermineAdminAPIAddress(fs.String("address"), nil, fs.String("config"), fs.String("adapter"))
	if err != nil {
		return nil, err
	}
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, path, nil, nil)
	if err != nil {
		if strings.Contains(err.Error(), "HTTP 404") {
			return nil, fmt.Errorf("no such cluster, or the Caddy at %s has no vault_redirect: %w", address, err)
		}
		return nil, fmt.Errorf("cannot ask the admin API at %s (is Caddy running? --address names another): %w", address, err)
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return nil, fmt.Errorf("what answers at %s is not vault_redirect: %w", address, err)
	}
	return raw, nil
}

// runStatus shows the status.
func runStatus(fs caddycmd.Flags) (int, error) {
	deadline := time.Now().Add(fs.Duration("wait"))
	for {
		d, raw, err := askStatus(fs)
		down := 0
		for _, c := range d.Clusters {
			if !c.Healthy {
				down++
			}
		}
		if (err != nil || down > 0 || len(d.Clusters) == 0) && time.Now().Before(deadline) {
			time.Sleep(min(200*time.Millisecond, time.Until(deadline)))
			continue
		}
		switch {
		case err != nil:
			return caddy.ExitCodeFailedStartup, err
		case len(d.Clusters) == 0:
			return caddy.ExitCodeFailedStartup, errors.New("the running config has no vault_redirect")
		}
		if fs.Bool("json") {
			_, err = os.Stdout.Write(raw)
		} else {
			err = printStatus(os.Stdout, d, time.Now())
		}
		if down > 0 {
			return exitNotRedirecting, err
		}
		return caddy.ExitCodeSuccess, err
	}
}

// askStatus asks for the status of all clusters, or of the one that is named.
func askStatus(fs caddycmd.Flags) (d statusDocument, raw []byte, err error) {
	name := fs.String("cluster")
	if name == "" {
		raw, err = askAdmin(fs, adminStatus, &d)
		return d, raw, err
	}
	d.Clusters = make([]clusterStatus, 1)
	if raw, err = askAdmin(fs, adminStatus+"/"+url.PathEscape(name), &d.Clusters[0]); err != nil {
		d.Clusters = nil
	}
	return d, raw, err
}

// runHistory shows the history.
func runHistory(fs caddycmd.Flags) (int, error) {
	query := url.Values{"limit": {fmt.Sprint(fs.Int("limit"))}}
	if name := fs.String("cluster"); name != "" {
		query.Set("cluster", name)
	}
	var list []historyEntry
	raw, err := askAdmin(fs, adminHistory+"?"+query.Encode(), &list)
	switch {
	case err != nil:
		return caddy.ExitCodeFailedStartup, err
	case fs.Bool("json"):
		_, err = os.Stdout.Write(raw)
	default:
		err = printHistory(os.Stdout, list)
	}
	return caddy.ExitCodeSuccess, err
}

// printStatus prints the status for people.
func printStatus(to io.Writer, d statusDocument, now time.Time) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for i, c := range d.Clusters {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s: %s\n", c.Cluster, sayActive(c, now))
		fmt.Fprintf(w, "discovery: %s\n", sayDiscovery(c, now))
		fmt.Fprintln(w, "  NODE\tSTATE\tSINCE\tPROBE\tWHY NOT")
		for _, n := range c.Nodes {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", n.Node, n.State, sayAge(n.Since, now), sayProbe(n.Probe), sayWhy(n))
		}
		fmt.Fprintln(w, sayDay(c, now))
	}
	return w.Flush()
}

func sayActive(c clusterStatus, now time.Time) string {
	if c.Active == nil {
		return fmt.Sprintf("NO ACTIVE NODE for %s: %s", sayAge(c.Since, now), explain(c.Reason))
	}
	text := fmt.Sprintf("redirecting to %s (%s), active for %s, %s", c.Active.URL, c.Active.Node, sayAge(&c.Active.Since, now), plural(int(c.Changes), "change"))
	if c.Silent {
		text += "; it leaves a probe unanswered: requests wait"
	}
	if c.StaleUntil != nil {
		text += fmt.Sprintf("; the last known node, used for another %s", brief(c.StaleUntil.Sub(now)))
	}
	return text
}

func sayDiscovery(c clusterStatus, now time.Time) string {
	d := c.Discovery
	text := d.Source + " " + d.Endpoint
	switch {
	case d.FailingSince != nil:
		return text + fmt.Sprintf(", failing for %s (%s)", sayAge(d.FailingSince, now), c.Reason)
	case d.LastSuccess == nil:
		return text + ", has not answered yet"
	}
	return text + fmt.Sprintf(", answered %s ago", sayAge(d.LastSuccess, now))
}

func sayProbe(p *probeStatus) string {
	switch {
	case p == nil:
		return "-"
	case p.Code != 0:
		return fmt.Sprintf("%d in %s", p.Code, brief(time.Duration(p.Seconds*float64(time.Second))))
	}
	return string(p.Result)
}

func sayWhy(n nodeStatus) string {
	text := n.Why
	if len(n.FailingChecks) > 0 && !strings.Contains(text, "critical") {
		text = strings.TrimPrefix(text+"; not passing: "+strings.Join(n.FailingChecks, ", "), "; ")
	}
	return text
}

// sayDay sums up the last day.
func sayDay(c clusterStatus, now time.Time) string {
	failovers, gap := 0, time.Duration(0)
	for _, h := range c.History {
		if h.Event == "active_changed" && h.PreviousURL != "" && now.Sub(h.At) < 24*time.Hour {
			failovers++
			gap += time.Duration(h.GapSeconds * float64(time.Second))
		}
	}
	return fmt.Sprintf("last 24h: %s, %s without an active node; since the start: %s waited, %d turned away",
		plural(failovers, "failover"), brief(gap), plural(int(c.Hold["released"]), "request"), c.Requests["unavailable"])
}

// printHistory prints the history for people.
func printHistory(to io.Writer, list []historyEntry) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tCLUSTER\tEVENT\tFROM\tTO\tGAP\tREASON")
	for _, h := range list {
		gap := "-"
		if h.GapSeconds > 0 {
			gap = brief(time.Duration(h.GapSeconds * float64(time.Second)))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.At.Local().Format("2006-01-02 15:04:05.000"), h.Cluster, h.Event,
			orDash(h.PreviousNode), orDash(h.Node), gap, h.Reason)
	}
	return w.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sayAge(since *time.Time, now time.Time) string {
	if since == nil {
		return "-"
	}
	return brief(now.Sub(*since))
}

// brief writes a duration in its two greatest units.
func brief(d time.Duration) string {
	switch d = max(0, d); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
