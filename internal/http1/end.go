// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"context"
	"sync"
)

// Close closes the listener, and its connections as they become idle. New connections may send a first request for some seconds.
// Connections in their TLS handshake are accepted first.
func (l *Listener) Close() (err error) {
	l.end.Do(func() {
		l.mu.Lock()
		ending.Store(l, nil)
		l.ending.Store(true)
		for c := range l.conns {
			l.offerLocked(c)
			c.closeIdle()
		}
		l.forgetLocked()
		l.mu.Unlock()
		close(l.done)
		err = l.Listener.Close()
	})
	return err
}

// stop notes why no more connections are accepted from the listener below.
func (l *Listener) stop(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = why
	l.changed.Broadcast()
	l.forgetLocked()
}

// forgetLocked removes the listener from ending if Wait need not wait for it any more. It is called when one of the conditions may have
// come true, so that they all hold only once.
func (l *Listener) forgetLocked() {
	if l.stopped != nil && l.ending.Load() && len(l.conns) == 0 {
		ending.Delete(l)
		close(l.quiet)
	}
}

// ending has the closed listeners that may still have connections.
var ending sync.Map

// Wait waits until the closed listeners have no more connections, or until the context ends.
func Wait(ctx context.Context) error {
	for l := range ending.Range {
		select {
		case <-l.(*Listener).quiet:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
