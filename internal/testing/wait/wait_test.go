// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package wait

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPoll(t *testing.T) {
	boom := errors.New("boom")
	for _, row := range []struct {
		name string
		f    func(calls int) error
		want []string // parts of the error; none: no error
	}{
		{"at once", func(int) error { return nil }, nil},
		{"at the third time", func(calls int) error {
			if calls < 3 {
				return boom
			}
			return nil
		}, nil},
		{"never", func(int) error { return boom }, []string{"wait for it: too late; last: boom"}},
		{"given up", func(int) error { return Fatal(boom) }, []string{"wait for it: boom"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("too late"))
				defer cancel()
				calls := 0
				err := Poll(ctx, time.Second, "wait for it", func(context.Context) error { calls++; return row.f(calls) })
				if (err == nil) != (row.want == nil) {
					t.Fatalf("after %d calls: %v", calls, err)
				}
				for _, want := range row.want {
					if !strings.Contains(err.Error(), want) || !errors.Is(err, boom) {
						t.Errorf("error %v, want %q", err, want)
					}
				}
			})
		})
	}
	if Fatal(nil) != nil {
		t.Error("nothing is fatal")
	}
}

func TestEachAndSleep(t *testing.T) {
	err := Each([]string{"a", "", "b"}, func(s string) error {
		if s == "" {
			return nil
		}
		return errors.New(s)
	})
	if err == nil || err.Error() != "a\nb" {
		t.Errorf("error %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		if err := Sleep(t.Context(), time.Hour); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}
