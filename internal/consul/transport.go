// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the limits of what is read from Consul.

package consul

import (
	"errors"
	"io"
	"net/http"
)

// The limits of an answer. A thousand instances of Vault take about 2 MiB.
const (
	maxAnswer      = 16 << 20
	maxErrorAnswer = 64 << 10
)

// headerKey is the key of the context for a *http.Header that takes the headers of the answer.
type headerKey struct{}

// boundedTransport bounds the body of each answer, and hands out its headers.
type boundedTransport struct{ base *http.Transport }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols { // from here on neither context nor deadline would hold
		_ = resp.Body.Close()
		resp.Body = http.NoBody
	}
	if h, ok := r.Context().Value(headerKey{}).(*http.Header); ok {
		*h = resp.Header
	}
	limit := int64(maxAnswer)
	if resp.StatusCode != http.StatusOK {
		limit = maxErrorAnswer
	}
	resp.Body = &boundedBody{resp.Body, limit}
	return resp, nil
}

// boundedBody fails where io.LimitReader would end: what is cut off must not look complete.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the answer is too large")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
