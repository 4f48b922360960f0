// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
)

// WriteRedirect redirects to the path and query of the request at the target.
func WriteRedirect(w http.ResponseWriter, r *http.Request, to *engine.Target, path string) error {
	var location string
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		location = to.URL + path + "?" + escapeRest(r.URL.RawQuery)
	} else {
		location = to.URL + path
	}
	values := [...]string{location, "no-store"} // one allocation for both headers
	header := w.Header()
	header["Location"] = values[0:1:1]
	header["Cache-Control"] = values[1:2:2]
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// RequestPath returns the escaped path of a request, byte for byte as the client sent it, unless a handler before this one has
// changed it. ok is false if there is none. The path begins with a slash, so that it cannot change the authority before it.
func RequestPath(r *http.Request) (path string, ok bool) {
	if r.Method == http.MethodConnect || r.URL.Opaque != "" {
		return "", false
	}
	if path = escapedPath(r.URL); path == "" {
		path = "/"
	}
	return path, path[0] == '/'
}

// escapedPath is like u.EscapedPath, but does not escape what need not be escaped and was not.
func escapedPath(u *url.URL) string {
	if u.RawPath != "" {
		if path, err := url.PathUnescape(u.RawPath); err == nil && path == u.Path {
			return escapeRest(u.RawPath)
		}
	}
	return u.EscapedPath()
}

// escapeRest escapes the bytes of a path or query that a URL cannot contain: those that are not visible ASCII characters, which
// HTTP/2 permits, and the # that would begin a fragment.
func escapeRest(s string) string {
	unsafe := func(c byte) bool { return c <= ' ' || c >= 0x7f || c == '#' }
	if !slices.ContainsFunc([]byte(s), unsafe) {
		return s
	}
	const hex = "0123456789ABCDEF"
	var b []byte
	for _, c := range []byte(s) {
		if unsafe(c) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}
