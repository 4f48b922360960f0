// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// A body that breaks off is the client's fault, and nothing of it arrives.
func TestProxyOfHalfABody(t *testing.T) {
	var times atomic.Int32
	r := proxyTo(t, served(func(http.ResponseWriter, *http.Request) { times.Add(1) }), "", "")
	r.sendHalf(t, "half", 100)
	wait.Until(t, "it is counted", func() bool { return answered(engine.BadRequest) == 1 })
	if times.Load() != 0 {
		t.Error("half a body arrived")
	}
}

// So is one that is streamed; the node is not to be blamed.
func TestProxyOfHalfAStreamedBody(t *testing.T) {
	r := proxyTo(t, served(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }), "", "")
	r.sendHalf(t, strings.Repeat("x", 2*maxBuffered), 10*maxBuffered)
	// If the end of the connection is noticed first, the reverse proxy gives up by itself.
	wait.Until(t, "it is counted", func() bool { return answered(engine.BadRequest)+answered(engine.Proxied) == 1 })
	if n := answered(engine.Unavailable); n != 0 {
		t.Errorf("%d requests counted as unavailable", n)
	}
}

// Early data can be replayed on the way, so it is not proxied.
func TestProxyOfEarlyData(t *testing.T) {
	h := provision(t, standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.0.0.1"))), `, "proxy": {"match": [{"method": ["GET"]}]}`)
	r := httptest.NewRequest("GET", "https://vault.test/v1/x", nil)
	r.TLS.HandshakeComplete = false
	resp := serve(t, h, r)
	if text := errorsOf(t, resp); resp.StatusCode != http.StatusTooEarly || !strings.Contains(text, "send it again") {
		t.Errorf("status %d: %s", resp.StatusCode, text)
	}
}

// sendHalf sends a request whose body breaks off, for which there is no answer.
func (r *liveCaddy) sendHalf(t *testing.T, text string, length int64) {
	t.Helper()
	half := r.request(t.Context(), t, "POST", "/v1/x", io.MultiReader(strings.NewReader(text), brokenReader{}))
	half.ContentLength = length
	if resp, err := new(http.Transport).RoundTrip(half); err == nil {
		resp.Body.Close()
		t.Errorf("status %d", resp.StatusCode)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
