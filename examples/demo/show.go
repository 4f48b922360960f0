// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

// introduce says what is real and what is not.
func (d *demo) introduce() {
	d.printf("vault_redirect sends the clients of HashiCorp Vault to the active node. In this demo\n")
	if d.real {
		d.printf("  real:      Caddy with this plugin, Consul, three Vault nodes, everything on the network\n" +
			"  stand-in:  nothing\n\n")
		return
	}
	d.printf("  real:      Caddy with this plugin, and all requests and answers\n" +
		"  stand-in:  Consul and the three Vault nodes, played by this program; they elect in no time\n" +
		"             (make demo-real takes real ones)\n\n")
}

// showRedirect shows one request as curl would, and which node answers if it is followed.
func (d *demo) showRedirect(ctx context.Context) error {
	answer, err := d.raw(ctx, secretPath)
	if err != nil {
		return err
	}
	answer = strings.TrimSpace(strings.ReplaceAll(answer, "\r\n", "\n"))
	d.printf("$ curl -i %s%s\n%s\n\n", d.base, secretPath, answer)
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errors.New("no node gives the secret"))
	defer cancel()
	var res *http.Response
	var body []byte
	// A real node that has just become active needs a moment.
	err = d.poll(ctx, 50*time.Millisecond, func() (ok bool) {
		res, body, err = d.follow(ctx, http.MethodGet, secretPath, nil)
		return err == nil && res.StatusCode == http.StatusOK
	})
	if err != nil {
		return err
	}
	var secret struct {
		Data struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal(body, &secret); err != nil {
		return fmt.Errorf("the answer of %s: %w", res.Request.URL.Host, err)
	}
	d.printf("Followed (curl -L), %s at %s answers %s: %s\n", d.vaults.name(res.Request.URL.Host), res.Request.URL.Host,
		res.Status, secret.Data.Data)
	return nil
}

// failover takes the active node away and shows where the redirects lead then.
func (d *demo) failover(ctx context.Context, how way) error {
	old, err := d.vaults.active(ctx)
	if err != nil {
		return err
	}
	before, err := d.target(ctx)
	if err != nil {
		return err
	}
	d.printf("%s %s.", old, how)
	ctx, cancel := context.WithTimeoutCause(ctx, failoverTimeout, fmt.Errorf("no other node after %s", failoverTimeout))
	defer cancel()
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- d.vaults.takeAway(ctx, how) }()
	var after string
	var unavailable, available time.Time // the time without any active node
	err = d.poll(ctx, pollEvery, func() bool {
		after, err = d.target(ctx)
		if err != nil {
			return false
		}
		if after == "" && unavailable.IsZero() {
			unavailable = time.Now()
		}
		if after == "" || after == before {
			return false
		}
		available = time.Now()
		return true
	})
	if err != nil {
		cancel() // ends the taking away as well
		return errors.Join(err, <-done)
	}
	if err := <-done; err != nil {
		return err
	}
	d.printf(" %s later the redirects lead to %s", round(available.Sub(begin)), d.vaults.name(after))
	if !unavailable.IsZero() {
		d.printf(" (503 for %s, while no node was active)", round(available.Sub(unavailable)))
	}
	d.printf(":\n\n")
	return d.showRedirect(ctx)
}

// suggest says what to try in another terminal.
func (d *demo) suggest() {
	d.printf("\nTry it yourself, in another terminal:\n")
	d.printf("  %s vault-redirect status --address %s\n", d.program, d.caddy.Admin) // longer than what a note beside it could line up with
	if token := d.vaults.token(); token != "" {
		d.printf("  export VAULT_ADDR=%s VAULT_TOKEN=%s\n", d.base, token)
		for _, command := range []string{"kv put secret/demo greeting=hi", "kv get secret/demo", "operator step-down"} {
			d.printf("  %s %s\n", d.vaults.program(), command)
		}
		d.printf("  curl -i $VAULT_ADDR%s\n", secretPath)
		d.printf("  curl -L -H \"X-Vault-Token: $VAULT_TOKEN\" $VAULT_ADDR%s\n", secretPath)
		d.printf("  curl $VAULT_ADDR%s\n", harness.HealthPath)
		return
	}
	for _, line := range [][2]string{
		{"curl -i " + d.base + secretPath, "the redirect"},
		{"curl -L " + d.base + secretPath, "the secret"},
		{"curl -L -X PUT " + d.base + "/v1/sys/step-down", "a failover"},
		{"curl " + d.base + harness.HealthPath, "what the plugin knows"},
	} {
		d.printf("  %-58s # %s\n", line[0], line[1])
	}
}

// interact causes a failover for each line that is read, until there is no more, or Ctrl-C.
func (d *demo) interact(ctx context.Context) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(d.stdin); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for how := kill; ; how = how.other() {
		d.vaults.settle(ctx)
		d.printf("\nEnter: another failover (%s).  q or Ctrl-C: the end.\n", how.title())
		select {
		case line, ok := <-lines:
			if !ok || strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "q") {
				return nil
			}
		case <-d.caddy.Done():
			return d.caddy.Ended()
		case <-ctx.Done():
			return ctx.Err()
		}
		if name := d.vaults.dead(); name != "" {
			d.printf("%s is started again", name)
			if err := d.vaults.revive(ctx); err != nil {
				return err
			}
			d.printf(" and is a standby now.\n")
		}
		if err := d.failover(ctx, how); err != nil {
			return err
		}
	}
}

// round makes a duration readable.
func round(t time.Duration) time.Duration {
	if t < time.Second {
		return t.Round(time.Millisecond)
	}
	return t.Round(100 * time.Millisecond)
}
