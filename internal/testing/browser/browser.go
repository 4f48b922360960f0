// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

// Package browser drives a Chromium by its DevTools protocol, see https://chromedevtools.github.io/devtools-protocol/.
// It is no more of a client than the tests of the status page need.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// Program returns the path of a Chromium, or an error that says that there is none.
func Program() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium is on PATH (Debian: apt-get install chromium)")
}

// Browser is a running Chromium.
type Browser struct {
	cmd  *exec.Cmd
	out  bytes.Buffer // what it prints; to be read when it has ended
	done chan struct{}

	mu      sync.Mutex
	to      *os.File
	last    int
	waiting map[int]chan message
	hear    map[string]func(message) // by session
}

// message is a command, an answer or an event.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start starts a Chromium that keeps what it stores in dir, which must be new. It can reach IP addresses of this machine
// and nothing else: no name is looked up.
func Start(program, dir string) (*Browser, error) {
	b := &Browser{done: make(chan struct{}), waiting: map[int]chan message{}, hear: map[string]func(message){}}
	b.cmd = exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
		"--hide-scrollbars", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*", "--user-data-dir="+dir,
		"--remote-debugging-pipe")
	b.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	// A group of its own, so that the processes that it starts end with it; and it ends with the test.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	commands, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, events, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, commands.Close(), to.Close())
	}
	b.to = to
	b.cmd.ExtraFiles = []*os.File{commands, events} // 3 and 4, as --remote-debugging-pipe wants them
	err = b.cmd.Start()
	commands.Close()
	events.Close()
	if err != nil {
		return nil, errors.Join(err, to.Close(), from.Close())
	}
	go b.read(from)
	return b, nil
}

// Close ends the browser and its child processes.
func (b *Browser) Close() {
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	_ = b.cmd.Wait()
	_ = b.to.Close()
	<-b.done
}

// Output returns what the browser has printed. It may be called after Close.
func (b *Browser) Output() string { return b.out.String() }

// read takes what the browser says, until it ends.
func (b *Browser) read(from *os.File) {
	defer close(b.done)
	defer from.Close()
	for r := bufio.NewReader(from); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &m) != nil {
			continue
		}
		b.mu.Lock()
		answer, hear := b.waiting[m.ID], b.hear[m.Session]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case m.ID != 0 && answer != nil:
			answer <- m
		case m.ID == 0 && hear != nil:
			hear(m)
		}
	}
}

// call sends a command to the browser, in a session unless that is empty, and stores the result in to unless that is nil.
func (b *Browser) call(ctx context.Context, session, method string, params, to any) error {
	m, answer := message{Session: session, Method: method}, make(chan message, 1)
	var err error
	if m.Params, err = json.Marshal(params); err != nil {
		return err
	}
	b.mu.Lock()
	b.last++
	m.ID = b.last
	b.waiting[m.ID] = answer
	text, err := json.Marshal(m)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m = <-answer:
	case <-b.done:
		return fmt.Errorf("%s: the browser has ended", method)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
	switch {
	case m.Error != nil:
		return fmt.Errorf("%s: %s", method, m.Error.Message)
	case to != nil:
		return json.Unmarshal(m.Result, to)
	}
	return nil
}
