// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build unix

package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// shell is a child that is not started, and that does not outlive the test.
func shell(t *testing.T, script string) *Process {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Name: "sh", LogFile: filepath.Join(t.TempDir(), "log"), Path: sh, Args: []string{"-c", script}, Note: t.Logf}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// says waits until the child has written a line.
func says(t *testing.T, p *Process, line string) {
	t.Helper()
	err := wait.Poll(within(t), 5*time.Millisecond, "wait for "+line, func(context.Context) error {
		if strings.Contains(p.Log(), line) {
			return nil
		}
		return errors.New(p.Log())
	})
	ok(t, err)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestEnded starts a program that ends at once: the wait must not last, and the error must hold what it said.
func TestEnded(t *testing.T) {
	p := shell(t, "echo no such luck; exit 3")
	if err := p.Ended(); err == nil || p.Running() || p.Done() != nil {
		t.Errorf("before the start: ended %v, running %t", err, p.Running())
	}
	ok(t, p.Start())
	err := wait.Poll(within(t), 5*time.Millisecond, "wait", func(context.Context) error {
		if err := p.Ended(); err != nil {
			return err
		}
		return errors.New("still there")
	})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("the error is %v", err)
	}
	if code, err := p.Wait(t.Context()); code != 3 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := p.Signal(syscall.Signal(0)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a signal to the dead: %v", err)
	}
	if err := p.Pause(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("pause the dead: %v", err)
	}
	ok(t, p.Stop(t.Context()))
	ok(t, p.StopOrKill(time.Minute))
}

// TestStopOfAPausedProcess also starts it again: the log goes on.
func TestStopOfAPausedProcess(t *testing.T) {
	p := shell(t, "trap 'echo obeyed; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
	for range 2 {
		ok(t, p.Start())
		if err := p.Start(); err == nil {
			t.Error("it runs twice")
		}
		err := wait.Poll(within(t), 5*time.Millisecond, "wait until it is ready", func(context.Context) error {
			if strings.HasSuffix(p.Log(), "ready\n") {
				return nil
			}
			return errors.New(p.Log())
		})
		ok(t, err)
		ok(t, p.Pause(within(t)))
		if !p.Running() {
			t.Error("a paused process is there")
		}
		ok(t, p.Stop(within(t)))
		<-p.Done()
	}
	if got := strings.Count(p.Log(), "obeyed"); got != 2 {
		t.Errorf("%d times it ended by itself:\n%s", got, p.Log())
	}
	if got := p.Tail(1); got != "obeyed" {
		t.Errorf("the last line is %q", got)
	}
	ok(t, p.Close())
	if err := p.Start(); err == nil {
		t.Error("it was started although it is closed")
	}
}

// TestStopOrKill meets a child that does not obey, and that has a child of its own, which must go as well.
func TestStopOrKill(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	ok(t, syscall.Mkfifo(fifo, 0o600))
	p := shell(t, "trap '' TERM; (while :; do sleep 0.01; done) > '"+fifo+"' & echo ready; while :; do sleep 0.01; done")
	ok(t, p.Start())
	end, err := os.Open(fifo) // read to its end when no process has it open for writing
	ok(t, err)
	defer end.Close()
	says(t, p, "ready")
	if err := p.StopOrKill(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "within 50ms") {
		t.Errorf("the error is %v", err)
	}
	if _, err := end.Read(make([]byte, 1)); err == nil {
		t.Error("the grandchild has written something")
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	t.Setenv("XDG_DATA_HOME", "x")
	env := strings.Join(Environ([]string{"XDG_DATA_HOME=y"}, "CONSUL_", "XDG_"), "\n")
	if strings.Contains(env, "CONSUL_") || strings.Contains(env, "XDG_DATA_HOME=x") || !strings.HasSuffix(env, "\nXDG_DATA_HOME=y") {
		t.Errorf("the environment is\n%s", env)
	}
}
