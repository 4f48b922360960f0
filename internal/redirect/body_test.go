// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// counted counts what is read of a body without an end.
type counted struct{ n atomic.Int64 }

func (c *counted) Read(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }
func (c *counted) Close() error               { return nil }

// What is read while a request waits is bounded, nothing is read once the answer is written, and what the client only sends
// when it is asked for it is not asked for.
func TestDiscardIsBounded(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*http.Request)
		want   int64
	}{
		{"no length", func(*http.Request) {}, maxDiscarded},
		{"as much as may be", func(r *http.Request) { r.ContentLength = maxDiscarded }, maxDiscarded},
		{"more", func(r *http.Request) { r.ContentLength = maxDiscarded + 1 }, 0},
		{"to be asked for", func(r *http.Request) { r.Header.Set("Expect", "100-continue") }, 0},
		{"HTTP/2, which tells by itself", func(r *http.Request) { r.ProtoMajor = 2 }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			body := new(counted)
			r := httptest.NewRequest("POST", "/", body)
			row.change(r)
			end := discardWhileWaiting(r)
			if err := wait.Poll(t.Context(), time.Millisecond, "the body is read", func(context.Context) error {
				if n := body.n.Load(); n != row.want {
					return fmt.Errorf("%d bytes", n)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			end()
			_ = wait.Sleep(t.Context(), 10*time.Millisecond)
			if n := body.n.Load(); n != row.want {
				t.Errorf("%d bytes were read, want %d", n, row.want)
			}
		})
	}
	discardWhileWaiting(&http.Request{ProtoMajor: 1})()
	discardWhileWaiting(httptest.NewRequest("GET", "/", nil))()
}

// What is read over HTTP/2 is bounded.
func TestReadBeforeReplyIsBounded(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*http.Request)
		want   int64
	}{
		{"no length", func(*http.Request) {}, maxReadBefore},
		{"as much as may be", func(r *http.Request) { r.ContentLength = maxReadBefore }, maxReadBefore},
		{"more", func(r *http.Request) { r.ContentLength = maxReadBefore + 1 }, 0},
		{"nothing", func(r *http.Request) { r.ContentLength = 0 }, 0},
		{"to be asked for", func(r *http.Request) { r.Header.Set("Expect", "100-continue") }, 0},
		{"HTTP/1.1", func(r *http.Request) { r.ProtoMajor = 1 }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			body := new(counted)
			r := httptest.NewRequest("POST", "/", body)
			r.ProtoMajor = 2
			row.change(r)
			readBeforeReply(httptest.NewRecorder(), r)
			if n := body.n.Load(); n < row.want || n > row.want+32<<10 {
				t.Errorf("%d bytes were read, want %d", n, row.want)
			}
		})
	}
}
