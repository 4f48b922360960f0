// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// One server's operating system process: start, kill, stop, pause, continue.

package cluster

import (
	"bytes"
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
)

// Process is a server's process. It can be started again after it has ended; its log goes on in the same file.
// It dies with this process, however that ends. All methods are safe for concurrent use.
type Process struct {
	Name    string // "vault-0", "consul-0"
	LogFile string // stdout and stderr, appended to by every start

	label string // in notes and errors: Name, unless two servers share it
	path  string
	args  []string
	env   []string
	dir   string
	note  func(format string, args ...any)

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

var errNotRunning = errors.New("is not running")

func (p *Process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return fmt.Errorf("start %s: the cluster is closed", p.label)
	case p.run != nil && p.run.alive():
		return fmt.Errorf("start %s: already running as process %d", p.label, p.run.cmd.Process.Pid)
	}
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.label, err)
	}
	defer log.Close()
	r := &run{cmd: exec.Command(p.path, p.args...), done: make(chan struct{})}
	r.cmd.Dir = p.dir
	r.cmd.Env = p.env
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = sysProcAttr()
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the THREAD that started the process ends, not when the
		// process does. So that thread stays here for as long as the server lives.
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
		return fmt.Errorf("start %s: %w", p.label, err)
	}
	p.run = r
	p.note("%s started as process %d", p.label, r.cmd.Process.Pid)
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

// ended is a fatal error with the end of the log when the process is gone, so that nobody waits for it in vain.
func (p *Process) ended() error {
	r := p.current()
	switch {
	case r == nil:
		return fatalError{fmt.Errorf("%s was never started", p.label)}
	case !r.alive():
		return fatalError{fmt.Errorf("%s has ended (%v):\n%s", p.label, r.err, p.Tail(10))}
	}
	return nil
}

// signal sends sig to the process. After its end it is an error, never a signal to somebody else's process.
func (p *Process) signal(sig syscall.Signal) (*run, error) {
	r := p.current()
	if r == nil || !r.alive() {
		return nil, fmt.Errorf("%s %s: %w", p.label, sig, errNotRunning)
	}
	if err := r.cmd.Process.Signal(sig); errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("%s %s: %w", p.label, sig, errNotRunning)
	} else if err != nil {
		return nil, fmt.Errorf("%s %s: %w", p.label, sig, err)
	}
	return r, nil
}

// Kill ends the process with SIGKILL, as a crash or a power cut would, and returns when it is gone. Killing what is
// not running is no error.
func (p *Process) Kill() error {
	r, err := p.signal(syscall.SIGKILL)
	if errors.Is(err, errNotRunning) {
		return nil
	} else if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.wait(ctx, r); err != nil {
		return err
	}
	p.note("%s killed", p.label)
	return nil
}

// Stop ends the process with SIGTERM, as an orderly shutdown does, and returns when it is gone. A paused process is
// continued, for it could not obey otherwise. Stopping what is not running is no error.
func (p *Process) Stop(ctx context.Context) error {
	r, err := p.signal(syscall.SIGTERM)
	if errors.Is(err, errNotRunning) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := p.signal(syscall.SIGCONT); err != nil && !errors.Is(err, errNotRunning) {
		return err
	}
	if err := p.wait(ctx, r); err != nil {
		return err
	}
	p.note("%s stopped", p.label)
	return nil
}

func (p *Process) wait(ctx context.Context, r *run) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s (process %d): %w", p.label, r.cmd.Process.Pid, context.Cause(ctx))
	}
}

// Pause freezes the process with SIGSTOP and returns when it stands still: its connections stay open and its port
// accepts new ones, but nobody answers.
func (p *Process) Pause(ctx context.Context) error {
	r, err := p.signal(syscall.SIGSTOP)
	if err != nil {
		return err
	}
	err = poll(ctx, time.Millisecond, "pause "+p.label, func(context.Context) error {
		return stopped(r.cmd.Process.Pid)
	})
	if err != nil {
		return err
	}
	p.note("%s paused", p.label)
	return nil
}

// Continue ends a Pause.
func (p *Process) Continue() error {
	if _, err := p.signal(syscall.SIGCONT); err != nil {
		return err
	}
	p.note("%s continued", p.label)
	return nil
}

// close kills the process for good.
func (p *Process) close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return p.Kill()
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

// childEnv is this process's environment without what would change the servers' or their clients' settings, and with
// another home: a library in Vault makes a folder there.
func childEnv(home string) []string {
	env := []string{"HOME=" + home}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "VAULT_") && !strings.HasPrefix(kv, "CONSUL_") && !strings.HasPrefix(kv, "HOME=") {
			env = append(env, kv)
		}
	}
	return env
}
