// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build unix

package logswitch

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A flood of signals costs four reloads a second, and the last one counts.
func TestSignalsAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 1)
		go func() {
			for i := range 1000 {
				signals <- []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2}[i%2]
				time.Sleep(time.Millisecond)
			}
		}()
		began, obeyed, last := time.Now(), 0, os.Signal(nil)
		for last = range spaced(signals, betweenSignals) {
			if obeyed++; time.Since(began) >= time.Second {
				break
			}
		}
		if obeyed != 5 || last != syscall.SIGUSR2 {
			t.Errorf("%d of them obeyed, the last one %v", obeyed, last)
		}
	})
}
