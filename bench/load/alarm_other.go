// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build !linux

package load

import "time"

// Alarm wakes a goroutine.
type Alarm struct{}

// NewAlarm returns an alarm that is to be closed. One goroutine may use it.
func NewAlarm() (*Alarm, error) { return new(Alarm), nil }

// Until waits until a time.
func (*Alarm) Until(t time.Time) { time.Sleep(time.Until(t)) }

// Close releases the alarm.
func (*Alarm) Close() {}
