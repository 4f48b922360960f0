// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package proxy

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// Over HTTP/3, a request that has no body does not say so.
func TestBuffersBodiesOfUnknownLength(t *testing.T) {
	for _, row := range []struct {
		method string
		proto  int
		length int
		want   int64 // -1: it is streamed
	}{
		{"GET", 3, 0, 0},
		{"LIST", 3, 10, 10},
		{"GET", 3, maxBuffered, maxBuffered},
		{"GET", 3, maxBuffered + 1, -1},
		{"DELETE", 3, 0, 0},
		{"POST", 3, 10, -1},
		{"GET", 1, 10, -1},
	} {
		r := httptest.NewRequest(row.method, "/v1/x", io.MultiReader(strings.NewReader(strings.Repeat("x", row.length))))
		r.ProtoMajor = row.proto
		p := newRequest(r)
		p.buffer()
		if p.out.ContentLength != row.want || int64(len(p.body)) != max(0, row.want) {
			t.Errorf("%+v: length %d, %d bytes are kept", row, p.out.ContentLength, len(p.body))
		}
		if p.body == nil {
			if b, err := io.ReadAll(p.out.Body); len(b) != row.length || err != nil {
				t.Errorf("%+v: %d bytes, %v", row, len(b), err)
			}
		}
	}
}

// A body that is buffered costs its size.
func TestBufferedBodyCostsItsSize(t *testing.T) {
	const size = maxBuffered
	body := strings.Repeat("x", size)
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			r := httptest.NewRequest("PUT", "/v1/x", strings.NewReader(body))
			p := newRequest(r)
			if p.buffer(); len(p.body) != size {
				b.Fatal(p.upload.err())
			}
		}
	}).AllocedBytesPerOp()
	if allocated > size+8<<10 {
		t.Errorf("%d bytes for a body of %d", allocated, size)
	}
}
