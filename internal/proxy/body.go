// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/vault-redirector/caddy-vault-redirect/internal/redirect"
)

// maxBuffered is how many bytes of a body are read before the request is sent on.
const maxBuffered = 32 << 10

// isShort reports whether the body of a request is read before the request is sent on. Then net/http notices if the client leaves
// while its request waits, so that no write is carried out after its client has given up, and the body can be sent again if
// a kept connection turns out to be closed. Over HTTP/3, only reading shows that a request has no body.
func isShort(r *http.Request) bool {
	short := r.ContentLength > 0 && r.ContentLength <= maxBuffered
	unsaid := r.ContentLength < 0 && r.ProtoMajor == 3 && (isRead(r.Method) || r.Method == http.MethodDelete)
	return (short || unsaid) && r.Header.Get("Expect") == "" && len(r.Trailer) == 0
}

// buffer waits until the body is read, if it is short.
func (p *request) buffer() {
	p.begin()
	p.reading.Wait()
}

// readBody reads the body. One of unknown length is streamed if it turns out to be long.
func (p *request) readBody() {
	if length := p.out.ContentLength; length >= 0 {
		body := make([]byte, length)
		if _, err := io.ReadFull(p.upload, body); err != nil {
			p.upload.failed.Store(&err)
			return
		}
		p.body = body
		p.upload.ended.Store(true)
		return
	}
	body, err := io.ReadAll(io.LimitReader(p.upload, maxBuffered+1))
	switch {
	case err != nil:
		return
	case len(body) > maxBuffered:
		p.out.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), p.upload), p.upload}
		return
	case len(body) == 0:
		p.upload, p.out.Body = nil, http.NoBody
	default:
		p.body = body
	}
	p.out.ContentLength = int64(len(body))
}

// upload is the body of a proxied request, as the client sends it. What is not read when the request is answered is left to
// net/http, which reads on or closes the connection.
type upload struct {
	body   io.Reader
	begun  atomic.Bool // something may have been read of it
	ended  atomic.Bool // it was read to the end
	closed atomic.Bool // by the transport, which does not read on
	failed atomic.Pointer[error]
}

// Read implements [io.Reader].
func (u *upload) Read(b []byte) (int, error) {
	u.begun.Store(true)
	if u.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := u.body.Read(b)
	switch {
	case err == io.EOF:
		u.ended.Store(true)
	case err != nil && !u.closed.Load():
		u.failed.Store(&err)
	}
	return n, err
}

// Close implements [io.Closer]. It does not close the body of the incoming request. With read_body_idle, Caddy wraps that body, and
// net/http does not notice that it was closed before its end: it would parse the rest of the body as the next request.
func (u *upload) Close() error {
	u.closed.Store(true)
	return nil
}

// giveBack closes the body, and reports whether it is whole: nothing was read of it.
func (u *upload) giveBack() bool {
	if u == nil {
		return true
	}
	u.closed.Store(true)
	return !u.begun.Load() // a Read that comes now reads nothing
}

// err returns why the client's body ended early, nil if it did not.
func (u *upload) err() error {
	if u == nil {
		return nil
	}
	if err := u.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// uploadWriter writes the answer to a request over HTTP/1 that has a body. An answer before the end of the body is the last one
// on its connection. The answers of this package and of Caddy's reverse proxy write their header first.
type uploadWriter struct {
	*caddyhttp.ResponseWriterWrapper
	upload *upload
}

// WriteHeader implements [http.ResponseWriter].
func (w uploadWriter) WriteHeader(code int) {
	if code >= http.StatusOK && !w.upload.ended.Load() {
		redirect.CloseConnection(w.Header())
	}
	w.ResponseWriterWrapper.WriteHeader(code)
}

// refuseBrokenBody answers a request whose body ended early, or is longer than the site allows.
func refuseBrokenBody(w http.ResponseWriter, cause error) error {
	code := http.StatusBadRequest
	if failed := (caddyhttp.HandlerError{}); errors.As(cause, &failed) && failed.StatusCode >= 400 && failed.StatusCode < 500 {
		code = failed.StatusCode
	}
	return redirect.WriteErrors(w, code, "the request body ended early")
}
