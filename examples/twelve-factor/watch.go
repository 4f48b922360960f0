// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// watch asks the copies of the service.
type watch struct {
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu     sync.Mutex
	asked  int
	failed []error
}

// watch begins with the copies that there are.
func (d *demo) watch(ctx context.Context) *watch {
	w := new(watch)
	w.ctx, w.cancel = context.WithCancel(ctx)
	for _, t := range d.todos {
		w.add(t)
	}
	return w
}

// add adds a copy, which is asked ten times a second: a write, a read, and so on.
func (w *watch) add(t *todo) {
	w.group.Go(func() {
		client := &http.Client{Timeout: 10 * time.Second, Transport: new(http.Transport)}
		defer client.CloseIdleConnections()
		for n := 0; wait.Sleep(w.ctx, 100*time.Millisecond) == nil; n++ {
			err := ask(w.ctx, client, t.url, n%2 == 0)
			if w.ctx.Err() != nil {
				return
			}
			w.mu.Lock()
			w.asked++
			if err != nil {
				w.failed = append(w.failed, fmt.Errorf("%s: %w", t.Name, err))
			}
			w.mu.Unlock()
		}
	})
}

// more waits until so many more requests are over.
func (w *watch) more(ctx context.Context, n int) error {
	w.mu.Lock()
	want := w.asked + n
	w.mu.Unlock()
	return wait.Poll(ctx, 50*time.Millisecond, "ask the copies", func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.asked < want {
			return errors.New("they are still asked")
		}
		return nil
	})
}

// end ends the watch. It returns how many requests there were, and those that failed.
func (w *watch) end() (asked int, failed []error) {
	w.cancel()
	w.group.Wait()
	return w.asked, w.failed
}

// ask adds a todo, or reads the newest.
func ask(ctx context.Context, client *http.Client, url string, write bool) error {
	method, body := http.MethodGet, ""
	if write {
		method, body = http.MethodPost, `{"text": "water the plants"}`
	}
	req, err := http.NewRequestWithContext(ctx, method, url+"/todos", strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", method, resp.StatusCode, text)
	}
	return err
}
