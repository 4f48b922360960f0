// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"context"
	"sync"
)

// signal wakes all that took its channel before it fired. The zero value works.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// next is closed when the signal fires after this call.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// await returns nil as soon as cond holds, which is asked again at each signal, or the context's error.
func (s *signal) await(ctx context.Context, cond func() bool) error {
	for {
		// The channel comes first: a change between cond and select would be lost otherwise.
		next := s.next()
		if cond() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-next:
		}
	}
}
