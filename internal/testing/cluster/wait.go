// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Waiting: everything in this package that takes time is a condition asked again and again under a context.

package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// pollEvery is how often servers are asked whether they are ready. Each question costs them well under 1 ms.
const pollEvery = 50 * time.Millisecond

// fatalError ends a poll: asking again would not help.
type fatalError struct{ err error }

func (e fatalError) Error() string { return e.err.Error() }
func (e fatalError) Unwrap() error { return e.err }

// poll calls f until it returns nil or a fatalError, or ctx ends; then the error tells what f said last.
func poll(ctx context.Context, every time.Duration, what string, f func(context.Context) error) error {
	t := time.NewTicker(every)
	defer t.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if fatal := (fatalError{}); errors.As(err, &fatal) {
			return fmt.Errorf("%s: %w", what, fatal.err)
		}
		// What the server said is worth more than that the last question was cut short.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; last: %w", what, context.Cause(ctx), last)
		case <-t.C:
		}
	}
}

// each runs f for every item at once and joins the errors.
func each[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
