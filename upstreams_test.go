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

// A request that the reverse proxy tries again has one deadline: the second loss does not give it another hold.
func TestUpstreamsHaveOneDeadline(t *testing.T) {
	t.Parallel()
	consul := newConsul(t, standin.Active("vault-1"))
	ctx, cancel := newContext(t)
	t.Cleanup(cancel)
	u := load[*Upstreams](t, ctx, "http.reverse_proxy.upstreams.vault_active",
		fmt.Sprintf(`{"discovery": {"source": "consul", "address": %q}, "hold": "4s", "probe": {"mode": "off"}}`, consul.Addr()))
	start(t, ctx)
	soon(t, "the node", func() bool { return u.view.State().Active() })
	lose := func() {
		consul.Set("vault", standin.Standby("vault-1"))
		soon(t, "the loss", func() bool { return !u.view.State().Active() })
	}
	lose()
	began, r := time.Now(), httptest.NewRequest("GET", "/v1/x", nil)
	r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{}))
	time.AfterFunc(3*time.Second, func() { consul.Set("vault", standin.Active("vault-1")) })
	if _, err := u.GetUpstreams(r); err != nil {
		t.Fatal(err)
	}
	lose()
	if _, err := u.GetUpstreams(r); err == nil || time.Since(began) > 5500*time.Millisecond {
		t.Errorf("%v after %s, want an error after 4s", err, time.Since(began))
	}
}
