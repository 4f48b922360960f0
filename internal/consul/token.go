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

// tokenFile is read before each query. If the file system hangs, queries and reloads go on with the last token that was read.
type tokenFile struct {
	path    string                            // empty: there is none
	wait    time.Duration                     // tokenTimeout
	load    func(path string) (string, error) // ReadToken
	reading atomic.Bool
	last    atomic.Pointer[string] // at first the token of the config, or what the file held when that was loaded
}

// tokenTimeout is how long a query waits for the file.
const tokenTimeout = time.Second

// read returns the token: that of the file, or the last one that was read if the file cannot be read now.
func (t *tokenFile) read(ctx context.Context) string {
	if t.path != "" && t.reading.CompareAndSwap(false, true) {
		done := make(chan struct{})
		go func() {
			if token, err := t.load(t.path); err == nil {
				t.last.Store(&token)
			}
			t.reading.Store(false) // before done, or the next query might not read the file
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(t.wait):
		case <-ctx.Done():
		}
	}
	return *t.last.Load()
}

// ReadToken reads a token file. It must be a regular file: reading a pipe could block.
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
