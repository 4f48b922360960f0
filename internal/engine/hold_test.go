// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of requests that wait for the next active node, in synthetic time.

package vaultredirect

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// holding returns the front of a view with hold turned on.
func holding(w watched, hold time.Duration, most int64) *Active {
	return &Active{
		view: w.view, discovery: w.scripted, logger: zap.NewNop(),
		hold: hold, holdMax: most, waiting: new(atomic.Int64), ending: make(chan struct{}),
	}
}

// outcome is what a request got, and when.
type outcome struct {
	active string
	after  time.Duration
}

// request asks for the active node as a request does.
func request(ctx context.Context, a *Active) outcome {
	began := time.Now()
	s := a.current(ctx)
	o := outcome{after: time.Since(began)}
	if s.active() {
		o.active = s.node.Name
	}
	return o
}

func TestHoldWaitsForTheNextNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		a := holding(w, 5*time.Second, 1024)
		if o := request(t.Context(), a); o != (outcome{"a", 0}) {
			t.Errorf("%+v", o)
		}
		w.set(func(s *scripted) { s.answer = answerOf(6, "") })
		synctest.Wait()
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				if o := request(t.Context(), a); o != (outcome{"b", 3 * time.Second}) {
					t.Errorf("%+v, want b after 3s, as soon as it is active", o)
				}
			})
		}
		time.Sleep(time.Second)
		w.set(func(s *scripted) { s.answer.Index = 7 }) // something else changes
		time.Sleep(2 * time.Second)
		if n := a.waiting.Load(); n != 100 {
			t.Errorf("%d requests wait, want 100", n)
		}
		w.set(func(s *scripted) { s.answer = answerOf(8, "b") })
		group.Wait()
		if n := a.waiting.Load(); n != 0 {
			t.Errorf("%d requests wait, want none", n)
		}
	})
}

func TestHoldIsBounded(t *testing.T) {
	lose := func(w watched) {
		w.set(func(s *scripted) { s.answer = answerOf(s.answer.Index+1, "") })
		synctest.Wait()
	}
	rows := []struct {
		name string
		hold time.Duration
		most int64
		do   func(*testing.T, watched, *Active) outcome
		want outcome
	}{
		{"in time, from the loss", 5 * time.Second, 10, func(t *testing.T, w watched, a *Active) outcome {
			lose(w)
			time.Sleep(3 * time.Second)
			return request(t.Context(), a)
		}, outcome{"", 2 * time.Second}},
		{"not after it", 5 * time.Second, 10, func(t *testing.T, w watched, a *Active) outcome {
			lose(w)
			time.Sleep(5 * time.Second)
			return request(t.Context(), a)
		}, outcome{}},
		{"off", 0, 10, func(t *testing.T, w watched, a *Active) outcome {
			lose(w)
			return request(t.Context(), a)
		}, outcome{}},
		{"in number", 5 * time.Second, 1, func(t *testing.T, w watched, a *Active) outcome {
			lose(w)
			go request(t.Context(), a)
			synctest.Wait()
			return request(t.Context(), a)
		}, outcome{}},
		{"by the client", 5 * time.Second, 10, func(t *testing.T, w watched, a *Active) outcome {
			lose(w)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return request(ctx, a)
		}, outcome{"", time.Second}},
		{"by the end of the process", 5 * time.Second, 10, func(t *testing.T, w watched, a *Active) outcome {
			lose(w)
			time.AfterFunc(time.Second, func() { close(a.ending) })
			return request(t.Context(), a)
		}, outcome{"", time.Second}},
		{"again after another loss", 5 * time.Second, 10, func(t *testing.T, w watched, a *Active) outcome {
			lose(w)
			time.Sleep(time.Minute)
			w.set(func(s *scripted) { s.answer = answerOf(50, "c") })
			synctest.Wait()
			lose(w)
			return request(t.Context(), a)
		}, outcome{"", 5 * time.Second}},
		{"from when the last known node is too old", 5 * time.Second, 10, func(t *testing.T, w watched, a *Active) outcome {
			w.set(func(s *scripted) { s.err = errors.New("no") })
			time.Sleep(62 * time.Second) // max_stale is a minute
			return request(t.Context(), a)
		}, outcome{"", 3 * time.Second}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
				if got := row.do(t, w, holding(w, row.hold, row.most)); got != row.want {
					t.Errorf("%+v, want %+v", got, row.want)
				}
			})
		})
	}
}

func TestHoldDoesNotWaitForAClusterNeverSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "")), time.Minute)
		if o := request(t.Context(), holding(w, 5*time.Second, 10)); o != (outcome{}) {
			t.Errorf("%+v", o)
		}
	})
}

// A view that is new in the gap, as after a reload, knows since when there is no node.
func TestHoldSurvivesReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		w.set(func(s *scripted) { s.answer = answerOf(6, "") })
		time.Sleep(2 * time.Second)
		config, log := w.view.viewConfig, zap.NewNop()
		config.addressing.scheme = "http"
		v, err := acquire(w.scripted, config, log)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := v.release(log); err != nil {
				t.Error(err)
			}
		}()
		v.start()
		next := watched{w.scripted, v, w.logs}
		if o := request(t.Context(), holding(next, 5*time.Second, 10)); o != (outcome{"", 3 * time.Second}) {
			t.Errorf("%+v, want none after the 3s that are left", o)
		}
	})
}

func TestHealthNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		h := &Handler{Active: *holding(w, 5*time.Second, 10), healthPath: defaultHealthPath}
		w.set(func(s *scripted) { s.answer = answerOf(6, "") })
		synctest.Wait()
		began := time.Now()
		rec := httptest.NewRecorder()
		if err := h.ServeHTTP(rec, httptest.NewRequest("GET", defaultHealthPath, nil), nil); err != nil {
			t.Fatal(err)
		}
		if rec.Code != http.StatusServiceUnavailable || time.Since(began) != 0 {
			t.Errorf("status %d after %s", rec.Code, time.Since(began))
		}
	})
}

// Requests that wait when their config is replaced, by one that shares no view with it, still get the next node.
func TestHoldOutlivesItsConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, newScripted(answerOf(5, "a")), time.Minute)
		config, log := w.view.viewConfig, zap.NewNop()
		config.maxStale = time.Hour
		v, err := acquire(w.scripted, config, log)
		if err != nil {
			t.Fatal(err)
		}
		v.start()
		a := holding(watched{w.scripted, v, w.logs}, 5*time.Second, 10)
		a.logger, a.released = log, new(sync.Once)
		w.set(func(s *scripted) { s.answer = answerOf(6, "") })
		synctest.Wait()
		done := make(chan outcome)
		go func() { done <- request(t.Context(), a) }()
		synctest.Wait()
		if err := a.cleanup(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		w.set(func(s *scripted) { s.answer = answerOf(7, "b") })
		if o := <-done; o != (outcome{"b", 2 * time.Second}) {
			t.Errorf("%+v, want b after 2s", o)
		}
		time.Sleep(releasePoll)
		synctest.Wait()
		if n, _ := watchers.References(w.Key()); n != 1 {
			t.Errorf("%d references to the watcher, want 1: the view is released", n)
		}
	})
}
