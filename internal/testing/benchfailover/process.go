// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the processes that the run starts besides the cluster.

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// childAttr: a group of its own, so that Ctrl-C reaches this program alone, which then ends the others.
var childAttr = syscall.SysProcAttr{Setpgid: true}

// start starts a program that ends with the run; its log is in the run's folder.
func (b *bench) start(name string, env []string, path string, args ...string) (*os.Process, error) {
	file := filepath.Join(b.dir, name+".log")
	log, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &childAttr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CONSUL_") { // the user's own Consul is not meant
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The death signal comes with the end of the thread that started the process: it stays here meanwhile.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	b.closers = append(b.closers, func() error { return stop(name, file, cmd.Process, done) })
	return cmd.Process, nil
}

// stop ends a process. One that has ended before is an error.
func stop(name, file string, p *os.Process, done <-chan struct{}) error {
	select {
	case <-done:
		text, err := os.ReadFile(file)
		return errors.Join(fmt.Errorf("%s has ended by itself; its log:\n%s", name, text[max(0, len(text)-4000):]), err)
	default:
	}
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-done:
		return nil
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // its group: nginx has workers
	<-done
	return nil
}
