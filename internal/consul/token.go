// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package consul

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// tokenFile is read before each query. A file system that hangs holds up neither a query nor a reload: the last token
// that could be read is used meanwhile.
type tokenFile struct {
	path    string
	first   string                            // what was read before there was a source
	wait    time.Duration                     // tokenPatience
	load    func(path string) (string, error) // ReadToken
	reading atomic.Bool
	last    atomic.Pointer[string]
}

// tokenPatience is how long a query waits for the file.
const tokenPatience = time.Second

// read returns the token, the last one that could be read if the file cannot be read now.
func (t *tokenFile) read(ctx context.Context) string {
	if t.reading.CompareAndSwap(false, true) {
		done := make(chan struct{})
		go func() {
			if token, err := t.load(t.path); err == nil {
				t.last.Store(&token)
			}
			t.reading.Store(false) // first, or the next query might still take the file for one that hangs
			close(done)
		}()
		timer := time.NewTimer(t.wait)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if last := t.last.Load(); last != nil {
		return *last
	}
	return t.first
}

// ReadToken reads a token file. It must be a regular one: a pipe would have its reader wait.
func ReadToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("token_file: %s is not a regular file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("token_file: %s is empty", path)
	}
	return token, nil
}
