// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package load

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Alarm wakes a goroutine in time. Those of package time may be late by a millisecond, for the poller of Go's runtime, in which an
// idle process waits, knows nothing shorter.
type Alarm struct {
	fd   int
	file *os.File
}

// NewAlarm returns an alarm that is to be closed. One goroutine may use it.
func NewAlarm() (*Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &Alarm{fd, os.NewFile(uintptr(fd), "timer")}, nil
}

// Until waits until a time.
func (a *Alarm) Until(t time.Time) {
	d := time.Until(t)
	if d <= 0 {
		return
	}
	if err := unix.TimerfdSettime(a.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil); err != nil {
		time.Sleep(d)
		return
	}
	var expirations [8]byte
	_, _ = a.file.Read(expirations[:])
}

// Close releases the alarm.
func (a *Alarm) Close() { _ = a.file.Close() }
