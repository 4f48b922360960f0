// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// adminClient reaches the admin endpoint whatever the URL's host. It keeps no connection: Caddy closes them with every
// reload, for that replaces the admin endpoint as well.
func adminClient(admin string) *http.Client {
	network, address := "tcp", admin
	if path, ok := strings.CutPrefix(admin, "unix/"); ok {
		network, address = "unix", path
	}
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		},
	}
}

// adminHost is a name that Caddy allows in requests to its admin endpoint.
func (c *Caddy) adminHost() string {
	if _, port, err := net.SplitHostPort(c.Admin); err == nil {
		return "localhost:" + port
	}
	return "127.0.0.1" // a socket
}

// Ask sends a request to the admin endpoint and returns the status and the answer. A connection that Caddy closes
// without an answer, as it may while it replaces the endpoint, is tried again.
func (c *Caddy) Ask(ctx context.Context, method, path, contentType, body string) (code int, answer string, err error) {
	for range 10 {
		if code, answer, err = c.askOnce(ctx, method, path, contentType, body); err == nil || ctx.Err() != nil || !c.Running() {
			break
		}
	}
	if err != nil {
		err = fmt.Errorf("admin endpoint of caddy: %w", errors.Join(err, c.Ended()))
	}
	return code, answer, err
}

func (c *Caddy) askOnce(ctx context.Context, method, path, contentType, body string) (code int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.adminHost()+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// get is Ask for what must be there.
func (c *Caddy) get(ctx context.Context, path string) (string, error) {
	code, answer, err := c.Ask(ctx, http.MethodGet, path, "", "")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("GET %s at caddy's admin endpoint: status %d: %.200s", path, code, answer)
	}
	return answer, err
}

// Load loads a config of the kind that Caddy was started with, through its admin API, and returns when the new
// config runs. The error holds what Caddy says is wrong.
func (c *Caddy) Load(ctx context.Context, config string) error {
	contentType := "application/json"
	if len(c.adapter) > 0 {
		contentType = "text/caddyfile"
	}
	code, answer, err := c.Ask(ctx, http.MethodPost, "/load", contentType, c.here(config))
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("load a config: status %d: %s", code, answer)
	}
	return err
}

// Reload is what an operator does: it writes the config to Caddy's config file and runs `caddy reload`.
func (c *Caddy) Reload(ctx context.Context, config string) error {
	if c.configFile == "" {
		return errors.New("reload caddy: it was started without a config")
	}
	if err := c.writeConfig(config); err != nil {
		return err
	}
	args := append([]string{"reload", "--config", c.configFile, "--address", c.Admin}, c.adapter...)
	if out, err := c.Command(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("caddy reload: %w: %s", err, out)
	}
	return nil
}

// Metrics is what a Prometheus would read.
func (c *Caddy) Metrics(ctx context.Context) (string, error) { return c.get(ctx, "/metrics") }

// Goroutines are the goroutines of a process, from Go's own profile.
type Goroutines struct {
	Total  int
	groups []group
}

// group is a number of goroutines with the same stack.
type group struct {
	count     int
	functions []string // innermost first, in full: net/http.(*conn).serve
}

var (
	profileHead  = regexp.MustCompile(`^goroutine profile: total (\d+)\n`)
	profileGroup = regexp.MustCompile(`(?m)^(\d+) @ `)
	profileFrame = regexp.MustCompile(`(?m)^#\t\S+\t(\S+?)\+0x`)
	// ours is what the plugin consists of, and the client of Consul that it uses; but not what tests add to a Caddy.
	ours = regexp.MustCompile(`^github\.com/(vault-redirector/caddy-vault-redirect(/discovery|/internal/(engine|consul|nodes))?|hashicorp/consul/api)\.`)
)

// Goroutines asks for the goroutines that Caddy has now.
func (c *Caddy) Goroutines(ctx context.Context) (g Goroutines, err error) {
	text, err := c.get(ctx, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return g, err
	}
	return parseGoroutines(text)
}

func parseGoroutines(text string) (g Goroutines, err error) {
	head := profileHead.FindStringSubmatch(text)
	if head == nil {
		return g, fmt.Errorf("no profile of goroutines: %.200s", text)
	}
	if g.Total, err = strconv.Atoi(head[1]); err != nil {
		return g, err
	}
	for part := range strings.SplitSeq(text, "\n\n") {
		count := profileGroup.FindStringSubmatch(part)
		if count == nil {
			continue
		}
		n, err := strconv.Atoi(count[1])
		if err != nil {
			return g, err
		}
		one := group{count: n}
		for _, frame := range profileFrame.FindAllStringSubmatch(part, -1) {
			one.functions = append(one.functions, frame[1])
		}
		g.groups = append(g.groups, one)
	}
	return g, nil
}

// In counts the goroutines with a function on their stack whose full name holds part.
func (g Goroutines) In(part string) int {
	return g.count(func(function string) bool { return strings.Contains(function, part) })
}

// Ours counts the goroutines in functions of the plugin or of Consul's client.
func (g Goroutines) Ours() int { return g.count(ours.MatchString) }

func (g Goroutines) count(match func(function string) bool) (n int) {
	for _, one := range g.groups {
		for _, function := range one.functions {
			if match(function) {
				n += one.count
				break
			}
		}
	}
	return n
}
