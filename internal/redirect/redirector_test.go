// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// reader reads as its function does.
type reader func(p []byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }

// A request that may be passed on waits no longer than hold in all, also if the node is lost again while its body is read. The second
// that this takes does not count.
func TestHoldOfOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given := &standin.Given{By: discovery.Selection{Mode: discovery.ByTag, Tag: "active"}}
		active := discovery.Node{Name: "a", ID: "a", ServiceAddress: "127.1.0.1", Port: 8200, Tags: []string{"active"}}
		standby := active
		standby.Tags = nil
		addressing, err := engine.NewAddressing("https", "auto", 0)
		if err != nil {
			t.Fatal(err)
		}
		given.Say(nil, active)
		view, err := engine.NewPool().Acquire(given, engine.Config{Addressing: addressing, Probe: engine.Probe{Mode: engine.ProbeOff}}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		defer view.Release(zap.NewNop())
		view.Start()
		say := func(n discovery.Node) {
			given.Say(nil, n)
			time.Sleep(time.Second) // also for the rate of queries
		}
		say(active)
		say(standby)
		d := &Redirector{View: view, Queue: &engine.Queue{Hold: 10 * time.Second, Most: 10}, Log: zap.NewNop()}
		r := httptest.NewRequest("PUT", "/v1/a", reader(func([]byte) (int, error) { // while it is read, the node is lost again
			say(standby)
			return 0, io.EOF
		}))
		r.ProtoMajor, r.ContentLength, r.RemoteAddr = 2, 1, "127.0.0.1:1"
		time.AfterFunc(6*time.Second, func() { given.Say(nil, active) })
		w, came := httptest.NewRecorder(), time.Now()
		next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { t.Error("it was passed on"); return nil })
		if err := d.Redirect(w, r, "/v1/a", ToRedirect, next); err != nil {
			t.Error(err)
		}
		if took := time.Since(came); w.Code != http.StatusServiceUnavailable || took != 11*time.Second {
			t.Errorf("status %d after %s: %s", w.Code, took, strings.TrimSpace(w.Body.String()))
		}
	})
}
