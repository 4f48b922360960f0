// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// holding is a Caddyfile whose requests wait, with one option that differs from reload to reload.
func holding(consul *standin.Consul, option string) string {
	return "{\n\tdefault_bind {ip}\n}\nhttp://{ip}:8080 {\n\tvault_redirect " + consul.Addr() + " {\n\t\thold 30s\n\t\t" + option + "\n\t}\n}\n"
}

// TestTheEndDoesNotWaitForANode ends Caddy while requests are held: by the first config, and by each that came after it.
func TestTheEndDoesNotWaitForANode(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		reloads int
		option  string // with a number
	}{
		{"no reload", 0, "retry_after %ds"},
		{"one reload", 1, "retry_after %ds"},
		{"one reload that changes max_stale", 1, "max_stale %dm"},
		{"ten reloads", 10, "retry_after %ds"},
		{"ten reloads that change max_stale", 10, "max_stale %dm"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
			config := func(i int) string { return holding(consul, fmt.Sprintf(row.option, 1+i)) }
			caddy := run(t, harness.Options{Caddyfile: config(0)})
			site := "http://" + caddy.IP + ":8080"
			caddy.awaitTarget(site, "https://127.10.0.1:8200")
			consul.Set("vault", standin.Standby("vault-1", standin.Address("127.10.0.1")))
			caddy.awaitReason(site, "no_active")

			answers, held := make(chan string, 2*(1+row.reloads)), 0
			hold := func() {
				t.Helper()
				for range 2 {
					go func() { answers <- oneAnswer(&http.Transport{DisableKeepAlives: true}, site+"/v1/x") }()
					held++
				}
				caddy.await("all are held", func() bool { return caddy.goroutines().In(inHandler) == held })
			}
			hold()
			for i := range row.reloads {
				inTime(t, fmt.Sprintf("reload %d", 1+i), func(ctx context.Context) error { return caddy.Load(ctx, config(1+i)) })
				hold()
			}
			inTime(t, "the end after SIGTERM", func(ctx context.Context) error {
				if err := caddy.Signal(syscall.SIGTERM); err != nil {
					return err
				}
				code, err := caddy.Wait(ctx)
				if err == nil && code != 0 {
					err = fmt.Errorf("exit code %d", code)
				}
				return err
			})
			for range held {
				if answer := <-answers; answer != "503 " {
					t.Errorf("a request that was held got %q, want a 503", answer)
				}
			}
		})
	}
}
