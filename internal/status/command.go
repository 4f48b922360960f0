// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// exitNotRedirecting is the exit code if a cluster has no active node: like that of vault status for a sealed node.
const exitNotRedirecting = 2

// AddCommands adds the commands status and history to another one.
func AddCommands(parent *cobra.Command) {
	status := &cobra.Command{
		Use:   "status [--cluster NAME] [--json] [--wait DURATION] [--address ADDRESS | --config FILE [--adapter NAME]]",
		Short: "Shows which node is active, and why the others are not",
		Long: `
Asks a running Caddy, through its admin API, for the status of its clusters:
which node is active and since when, the state of each node and why it is not
the active one, how long clients waited.

With --wait it waits up to that long for every cluster to have an active node.

Exit code: 0 if every cluster has an active node, 2 if one has none, 1 for an
error.`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(runStatus),
	}
	status.Flags().Duration("wait", 0, "Wait up to this long for every cluster to have an active node")
	history := &cobra.Command{
		Use:   "history [--cluster NAME] [--limit N] [--json] [--address ADDRESS | --config FILE [--adapter NAME]]",
		Short: "Shows the last changes of the active node",
		Long: `
Asks a running Caddy, through its admin API, for the last changes of the active
node, the newest first, and for how long there was no active node.`,
		Args: cobra.NoArgs,
		RunE: caddycmd.WrapCommandFuncForCobra(runHistory),
	}
	history.Flags().Int("limit", 20, "How many changes to show")
	for _, c := range []*cobra.Command{status, history} {
		c.Flags().String("cluster", "", "Show this cluster only")
		c.Flags().Bool("json", false, "Print the JSON document")
		c.Flags().String("address", "", "Address of Caddy's admin API (default: that of the config file, CADDY_ADMIN, or localhost:2019)")
		c.Flags().String("config", "", "Config file of the running Caddy, to get the address of its admin API from")
		c.Flags().String("adapter", "", "Adapter of the config file")
		c.PreRun = func(cmd *cobra.Command, _ []string) { cmd.SilenceErrors = true } // exit code 2 prints no error
		parent.AddCommand(c)
	}
}

// adminTimeout is how long the admin API may take for an answer.
const adminTimeout = 10 * time.Second

// askAdmin gets a document from the admin API of a running Caddy.
func askAdmin(fs caddycmd.Flags, path string, to any) ([]byte, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(fs.String("address"), nil, fs.String("config"), fs.String("adapter"))
	if err != nil {
		return nil, err
	}
	var answer []byte
	answered := make(chan error, 1)
	go func() {
		var err error
		answer, err = getAdmin(address, path)
		answered <- err
	}()
	select {
	case err = <-answered:
	case <-time.After(adminTimeout):
		return nil, fmt.Errorf("the admin API at %s has not answered within %s", address, adminTimeout)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(answer, to); err != nil {
		return nil, fmt.Errorf("the server at %s is not Caddy's admin API: %w", address, err)
	}
	return answer, nil
}

func getAdmin(address, path string) ([]byte, error) {
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, path, nil, nil)
	switch {
	case err == nil:
		defer resp.Body.Close()
		return io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	case strings.HasPrefix(address, "/"):
		return nil, fmt.Errorf("the address of a socket begins with unix/, such as unix/%s", address)
	case isSite(err):
		return nil, fmt.Errorf("the server at %s is a Vault, or a site that redirects to one, not Caddy's admin API: %w", address, err)
	case !strings.Contains(err.Error(), "HTTP "):
		return nil, fmt.Errorf("cannot reach the admin API at %s (is Caddy running? --address or --config set the address): %w", address, err)
	case strings.Contains(err.Error(), "HTTP 404") && !strings.Contains(err.Error(), noCluster):
		return nil, fmt.Errorf("the Caddy at %s does not have the plugin vault_redirect: %w", address, err)
	}
	return nil, fmt.Errorf("the admin API at %s: %w", address, err)
}

// isSite reports whether an error shows that the server is a site rather than an admin API: it answers in the form of Vault's
// errors, speaks https, or redirects to that.
func isSite(err error) bool {
	signs := []string{`{"errors":[`, "HTTP request to an HTTPS server", "server gave HTTP response to HTTPS client", "stopped after 10 redirects"}
	return slices.ContainsFunc(signs, func(sign string) bool { return strings.Contains(err.Error(), sign) })
}

// maxDocument limits the size of a document, in bytes.
const maxDocument = 64 << 20

func runStatus(fs caddycmd.Flags) (int, error) {
	deadline := time.Now().Add(fs.Duration("wait"))
	for {
		var d Document
		path, to := statusPath, any(&d)
		if name := fs.String("cluster"); name != "" {
			d.Clusters = make([]Cluster, 1)
			path, to = statusPath+"/"+url.PathEscape(name), &d.Clusters[0]
		}
		raw, err := askAdmin(fs, path, to)
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
		if !fs.Bool("json") {
			raw = statusText(d, time.Now())
		}
		_, err = os.Stdout.Write(raw)
		if down > 0 {
			return exitNotRedirecting, err
		}
		return caddy.ExitCodeSuccess, err
	}
}

func runHistory(fs caddycmd.Flags) (int, error) {
	query := url.Values{"limit": {fmt.Sprint(fs.Int("limit"))}}
	if name := fs.String("cluster"); name != "" {
		query.Set("cluster", name)
	}
	var list []Change
	raw, err := askAdmin(fs, historyPath+"?"+query.Encode(), &list)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !fs.Bool("json") {
		raw = historyText(list)
	}
	_, err = os.Stdout.Write(raw)
	return caddy.ExitCodeSuccess, err
}
