// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds how the engine waits: never without an end.

package engine

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff returns how long to wait after so many failures in a row: full jitter, so that many redirectors do not come
// back to a Consul that has just recovered all at once.
func backoff(failures int) time.Duration {
	limit := backoffMax
	if failures < 10 {
		limit = min(limit, backoffMin<<(failures-1))
	}
	return rand.N(limit) + time.Millisecond
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// endGrace is how long the end of a config waits for what it ends. Caddy calls it under the lock of its configs.
const endGrace = time.Second

// await waits for the end of a goroutine whose context has ended, but never for long.
func await(done <-chan struct{}) {
	t := time.NewTimer(endGrace)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}
