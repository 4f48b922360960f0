// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package process runs the servers that tests, the demo and the benchmarks start: Consul, Vault, Caddy, HAProxy, nginx.
// A child never outlives the process that started it (on Linux even if that is killed), has its output in a file, and
// can be killed, stopped, paused and started again.
package process

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// Process is a child process. It can be started again after it has ended; its log goes on in the same file. The fields
// are set before the first start and not changed after it. All methods are safe for concurrent use.
type Process struct {
	Name    string // "vault-0", "caddy"
	Label   string // in notes and errors: Name, unless two processes share it
	LogFile string // stdout and stderr, appended to by every start

	Path string   // of the program
	Args []string // without the program
	Env  []string // as in exec.Cmd: nil is this process's environment
	Dir  string   // working directory

	// Note gets a line for all that is done to the process, unless it is nil.
	Note func(format string, args ...any)

	mu     sync.Mutex
	run    *run // nil before the first start
	closed bool // no start any more
}

// run is one life of a Process.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and is reaped
	err  error         // how it ended; read after done
}

func (r *run) alive() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// ErrNotRunning is the error of a signal to a process that has ended, or was never started.
var ErrNotRunning = errors.New("is not running")

func (p *Process) label() string { return cmp.Or(p.Label, p.Name) }

func (p *Process) note(format string, args ...any) {
	if p.Note != nil {
		p.Note(format, args...)
	}
}

// Start starts the process, and does not wait until it is ready for anything.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return fmt.Errorf("start %s: it is closed", p.label())
	case p.run != nil && p.run.alive():
		return fmt.Errorf("start %s: already running as process %d", p.label(), p.run.cmd.Process.Pid)
	}
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.label(), err)
	}
	defer log.Close()
	r := &run{cmd: exec.Command(p.Path, p.Args...), done: make(chan struct{})}
	r.cmd.Dir = p.Dir
	r.cmd.Env = p.Env
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = sysProcAttr()
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the THREAD that started the process ends, not when the
		// process does. So that thread stays here for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := r.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.label(), err)
	}
	p.run = r
	p.note("%s started as process %d", p.label(), r.cmd.Process.Pid)
	return nil
}

func (p *Process) current() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// PID is the process id of the present or last process, 0 before the first.
func (p *Process) PID() int {
	if r := p.current(); r != nil {
		return r.cmd.Process.Pid
	}
	return 0
}

// Running tells whether the process is there; a paused one is.
func (p *Process) Running() bool {
	r := p.current()
	return r != nil && r.alive()
}

// Done is closed when the present process has ended. Before the first start it is nil, which blocks for ever.
func (p *Process) Done() <-chan struct{} {
	if r := p.current(); r != nil {
		return r.done
	}
	return nil
}

// Ended is nil while the process runs. Once it has ended it is an error with the end of the log, which ends a wait.Poll,
// so that nothing waits for the process in vain.
func (p *Process) Ended() error {
	r := p.current()
	switch {
	case r == nil:
		return wait.Fatal(fmt.Errorf("%s was never started", p.label()))
	case !r.alive():
		return wait.Fatal(fmt.Errorf("%s has ended (%v):\n%s", p.label(), cmp.Or(r.err, errExit0), p.Tail(10)))
	}
	return nil
}

var errExit0 = errors.New("exit status 0")

// Signal sends sig to the process. After its end it returns ErrNotRunning, and never signals another process.
func (p *Process) Signal(sig os.Signal) error {
	_, err := p.signal(sig)
	return err
}

func (p *Process) signal(sig os.Signal) (*run, error) {
	r := p.current()
	if r == nil || !r.alive() {
		return nil, fmt.Errorf("%s %s: %w", p.label(), sig, ErrNotRunning)
	}
	if err := r.cmd.Process.Signal(sig); errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("%s %s: %w", p.label(), sig, ErrNotRunning)
	} else if err != nil {
		return nil, fmt.Errorf("%s %s: %w", p.label(), sig, err)
	}
	return r, nil
}

// Kill ends the process with SIGKILL, as a crash or a power cut would, and returns when it is gone. Killing what is
// not running is no error.
func (p *Process) Kill() error {
	r, err := p.signal(syscall.SIGKILL)
	if errors.Is(err, ErrNotRunning) {
		return nil
	} else if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.wait(ctx, r); err != nil {
		return err
	}
	p.note("%s killed", p.label())
	return nil
}

// Stop ends the process with SIGTERM, as an orderly shutdown does, and returns when it is gone. A paused process is
// continued, for it could not obey otherwise. Stopping what is not running is no error.
func (p *Process) Stop(ctx context.Context) error {
	r := p.current()
	if r == nil || !r.alive() {
		return nil
	}
	if err := terminate(r.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.label(), err)
	}
	if err := p.wait(ctx, r); err != nil {
		return err
	}
	p.note("%s stopped", p.label())
	return nil
}

// StopOrKill gives the process some time to end by itself after SIGTERM, and ends it and its own children by force
// when that is over; that is an error.
func (p *Process) StopOrKill(grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := p.Stop(ctx)
	if err == nil {
		return nil
	}
	if r := p.current(); r.alive() {
		_ = killGroup(r.cmd.Process)
		<-r.done
	}
	return fmt.Errorf("%s did not end by itself within %s: %w", p.label(), grace, err)
}

// Wait waits for the end of the process and returns its exit code, which is -1 after a signal.
func (p *Process) Wait(ctx context.Context) (code int, err error) {
	r := p.current()
	if r == nil {
		return 0, fmt.Errorf("%s %w", p.label(), ErrNotRunning)
	}
	if err := p.wait(ctx, r); err != nil {
		return 0, err
	}
	return r.cmd.ProcessState.ExitCode(), nil
}

func (p *Process) wait(ctx context.Context, r *run) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s (process %d): %w", p.label(), r.cmd.Process.Pid, context.Cause(ctx))
	}
}

// Close kills the process for good: it cannot be started again.
func (p *Process) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return p.Kill()
}

// Log is all that the process has written so far, in all its lives.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.LogFile)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Tail is the last lines of the log, at most 16 KiB of them.
func (p *Process) Tail(lines int) string {
	const most = 16 << 10
	text, err := os.ReadFile(p.LogFile)
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text[max(0, len(text)-most):])
	all := strings.Split(string(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Environ is this process's environment without the variables that begin with one of the prefixes, and with more: what
// the caller has set for another Consul or Vault must not reach a child.
func Environ(more []string, without ...string) []string {
	var env []string
next:
	for _, kv := range os.Environ() {
		for _, prefix := range without {
			if strings.HasPrefix(kv, prefix) {
				continue next
			}
		}
		env = append(env, kv)
	}
	return append(env, more...)
}
