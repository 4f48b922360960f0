// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// A request that the reverse proxy tries again has one deadline: a second loss does not give it another hold.
func TestUpstreamsHaveOneDeadline(t *testing.T) {
	t.Parallel()
	consul := newConsul(t, standin.Active("vault-1"))
	ctx, cancel := newContext(t)
	t.Cleanup(cancel)
	u := load[*Upstreams](t, ctx, "http.reverse_proxy.upstreams.vault_active",
		fmt.Sprintf(`{"discovery": {"source": "consul", "address": %q}, "hold": "1m", "probe": {"mode": "off"}}`, consul.Addr()))
	start(t, ctx)
	soon(t, "the node", func() bool { return u.view.State().Active() })
	vars := map[string]any{}
	r := httptest.NewRequest("GET", "/v1/x", nil)
	r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))
	if _, err := u.GetUpstreams(r); err != nil {
		t.Fatal(err)
	}
	came, ok := vars[cameVar].(time.Time)
	if !ok {
		t.Fatal("when the request came is not remembered")
	}
	vars[cameVar] = came.Add(-time.Minute) // as if it had waited
	consul.Set("vault", standin.Standby("vault-1"))
	soon(t, "the loss", func() bool { return !u.view.State().Active() })
	began := time.Now()
	if _, err := u.GetUpstreams(r); err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %s, want an error at once", err, time.Since(began))
	}
}
