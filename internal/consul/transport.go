// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

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

// exchange is what one query passes to its transport and gets from it. It is in the context under exchangeKey.
type exchange struct {
	token  string      // to be sent
	header http.Header // of the answer: Consul's client stops at the first header that it cannot parse
}

type exchangeKey struct{}

const tokenHeader = "X-Consul-Token"

// noToken is given to Consul's client as the token, and never sent. Without one, the client would use the token of the
// environment, even where none is to be sent.
const noToken = "none"

// boundedTransport sends the token of the exchange or none, limits the body of each answer, and returns its headers.
type boundedTransport struct{ base *http.Transport }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del(tokenHeader)
	e, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if ok && e.token != "" {
		r.Header.Set(tokenHeader, e.token)
	}
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols { // its body would not end with the context
		_ = resp.Body.Close()
		resp.Body = http.NoBody
	}
	if ok {
		e.header = resp.Header
	}
	limit := int64(maxAnswer)
	if resp.StatusCode != http.StatusOK {
		limit = maxErrorAnswer
	}
	resp.Body = &boundedBody{resp.Body, limit}
	return resp, nil
}

// boundedBody fails where io.LimitReader would end: an answer that is cut off must not look complete.
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
