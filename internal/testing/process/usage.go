// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// CPUTime is how long the process has had a core so far. It needs Linux.
func (p *Process) CPUTime() (time.Duration, error) {
	const tick = 10 * time.Millisecond // of /proc, on Linux everywhere
	fields, err := statOf(p.PID())
	if err != nil {
		return 0, fmt.Errorf("CPU time of %s: %w", p.label(), err)
	}
	if len(fields) < 13 {
		return 0, fmt.Errorf("CPU time of %s: no times in /proc/…/stat", p.label())
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// Memory is what the process has in use, in bytes. It needs Linux.
func (p *Process) Memory() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.label(), err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kb, err := strconv.Atoi(fields[1])
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("memory of %s: no VmRSS in /proc/…/status", p.label())
}

// statOf returns the fields of a process's state that come after its name: the state first.
func statOf(pid int) ([]string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// "pid (name) state …", and the name may hold anything, blanks and brackets too.
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])), nil
}
