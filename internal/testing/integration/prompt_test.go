// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// promptly is how long what must not be held up may take. It takes some milliseconds, and `caddy reload` the start of a
// process; but the machine may be busy.
const promptly = 5 * time.Second

// inTime does something that must not be held up.
func inTime(t *testing.T, what string, do func(context.Context) error) (ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*promptly)
	defer cancel()
	began := time.Now()
	err := do(ctx)
	if took := time.Since(began); err != nil || took > promptly {
		t.Errorf("%s took %s, want at most %s; error: %v", what, took.Round(time.Millisecond), promptly, err)
		return false
	}
	return true
}

// oneAnswer asks until there is an answer, and says what it is. See get: a connection may be closed before it is heard.
func oneAnswer(transport *http.Transport, url string) string {
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	for range 10 {
		var resp *http.Response
		if resp, err = transport.RoundTrip(req); err == nil {
			resp.Body.Close()
			return fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("Location"))
		}
		if isRefused(err) {
			break
		}
	}
	return err.Error()
}
