// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package wait holds how tests and their servers wait: a condition is asked for again and again under a context, and the
// error says what it was waited for and what was seen last.
package wait

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// fatalError ends a poll: asking again would not help.
type fatalError struct{ err error }

func (e fatalError) Error() string { return e.err.Error() }
func (e fatalError) Unwrap() error { return e.err }

// Fatal makes an error that ends a Poll at once. Fatal(nil) is nil.
func Fatal(err error) error {
	if err == nil {
		return nil
	}
	return fatalError{err}
}

// Poll calls f until it returns nil or an error made by Fatal, or ctx ends; then the error tells what f said last.
func Poll(ctx context.Context, every time.Duration, what string, f func(context.Context) error) error {
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

// Until waits until a condition holds, and ends the test if that takes longer than a minute.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("not within a minute"))
	defer cancel()
	err := Poll(ctx, 5*time.Millisecond, what, func(context.Context) error {
		if ok() {
			return nil
		}
		return errors.New("the condition does not hold")
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Each runs f for every item at once and joins the errors.
func Each[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(item) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Sleep waits for d, unless the context ends before that.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
