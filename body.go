// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how a request that waits notices that its client has left.

package vaultredirect

import (
	"net/http"
	"sync/atomic"
)

// maxDrained is how much of a request's body is read while it waits: as much as Go's server reads after the answer.
const maxDrained = 256 << 10

// drain reads the body of a request that waits, and returns what ends that. Over HTTP/1.x, Go's server notices that a
// client has left only once the body is read, and those that left would keep their places.
//
// It leaves alone what it could not read to the end, and what a client sends only when it is asked to. The end waits for
// a read that is under way, so that nobody reads while the answer is written; so does Go's server, before it answers.
func drain(r *http.Request) (end func()) {
	if r.ProtoMajor != 1 || r.Body == nil || r.ContentLength == 0 || r.ContentLength > maxDrained || r.Header.Get("Expect") != "" {
		return func() {}
	}
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4<<10)
		for left := maxDrained; left > 0 && !over.Load(); {
			n, err := r.Body.Read(buffer[:min(len(buffer), left)])
			if left -= n; err != nil {
				return
			}
		}
	}()
	return func() {
		over.Store(true)
		<-done
	}
}
