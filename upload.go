// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the bodies of requests that are proxied: short ones are kept, others streamed, and what goes wrong on the
// client's side of them is told from what goes wrong at the node.

package vaultredirect

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// maxKept is how many bytes of a body are read before the request is sent on.
const maxKept = 32 << 10

// keep reads the body, if it is short. Over HTTP/3, a request without a body does not say so: it shows.
func (p *passage) keep(r *http.Request) error {
	short := r.ContentLength > 0 && r.ContentLength <= maxKept
	unsaid := r.ContentLength < 0 && r.ProtoMajor == 3 && isRead(r)
	if !short && !unsaid || r.Header.Get("Expect") != "" || len(r.Trailer) > 0 {
		return nil
	}
	kept, err := io.ReadAll(io.LimitReader(r.Body, maxKept+1))
	switch {
	case err != nil:
		return err
	case len(kept) > maxKept:
		r.Body = joined{io.MultiReader(bytes.NewReader(kept), r.Body), r.Body}
		return nil
	case len(kept) == 0:
		r.Body = http.NoBody
	default:
		p.body = kept
	}
	r.ContentLength = int64(len(kept))
	return nil
}

// joined is a body of which a part was read ahead.
type joined struct {
	io.Reader
	io.Closer
}

// upload is a body that is streamed, and what went wrong on the client's side of it.
type upload struct {
	io.ReadCloser
	closed atomic.Bool // by whoever sends it on
	failed atomic.Pointer[error]
}

// Read implements [io.Reader].
func (u *upload) Read(b []byte) (int, error) {
	n, err := u.ReadCloser.Read(b)
	if err != nil && err != io.EOF && !u.closed.Load() {
		u.failed.Store(&err)
	}
	return n, err
}

// Close implements [io.Closer].
func (u *upload) Close() error {
	u.closed.Store(true)
	return u.ReadCloser.Close()
}

// brokeOff returns why the client's body broke off, nil if it did not.
func (p *passage) brokeOff() error {
	if p.upload == nil {
		return nil
	}
	if err := p.upload.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// serveBrokenBody answers where the client's body broke off, or is longer than the site allows.
func serveBrokenBody(w http.ResponseWriter, cause error) error {
	code := http.StatusBadRequest
	if failed := (caddyhttp.HandlerError{}); errors.As(cause, &failed) && failed.StatusCode >= 400 && failed.StatusCode < 500 {
		code = failed.StatusCode
	}
	return writeErrors(w, code, "the body of the request broke off")
}
