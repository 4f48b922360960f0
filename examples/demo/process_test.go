// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemoEnds interrupts it in all ways, and takes its reader away.
func TestDemoEnds(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs signals")
	}
	program := built(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			leavesNothing(t, program)
			p := start(t, program)
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			p.rest()
			if err := p.cmd.Wait(); err != nil || !strings.Contains(p.out.String(), "The end:") {
				t.Errorf("%v\n%s", err, &p.out)
			}
		})
	}

	t.Run("reader gone", func(t *testing.T) {
		leavesNothing(t, program)
		p := start(t, program)
		if err := p.stdout.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(p.stdin, "\n"); err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestDemoStatusPage opens the page whose address the demo shows.
func TestDemoStatusPage(t *testing.T) {
	program := built(t)
	leavesNothing(t, program)
	p := start(t, program)
	address := regexp.MustCompile(`(?m)^Status page: (http://127\.0\.0\.1:\d+/vault-redirector-status)$`).FindStringSubmatch(p.out.String())
	if address == nil {
		t.Fatalf("the output has no address of the page\n%s", &p.out)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	transport := &http.Transport{DisableKeepAlives: true} // no proxy
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") ||
		!strings.Contains(string(text), "vault-2") {
		t.Errorf("%v: status %d, %s, want a page with the three nodes:\n%s", err, resp.StatusCode, resp.Header.Get("Content-Type"), text)
	}
	if _, err := io.WriteString(p.stdin, "q\n"); err != nil {
		t.Fatal(err)
	}
	p.rest()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &p.errs)
	}
}

// TestDemoDies kills Caddy, and the demo itself.
func TestDemoDies(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux: /proc, and a child that dies with its parent")
	}
	program := built(t)
	t.Run("caddy dies", func(t *testing.T) {
		leavesNothing(t, program)
		p := start(t, program)
		for _, pid := range processes(t, program) {
			child, err := os.FindProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		p.rest()
		_ = p.cmd.Wait()
		if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.errs.String(), "caddy has ended (signal: killed)") {
			t.Errorf("exit code %d, want 1 and a word on it\n%s\n%s", code, &p.out, &p.errs)
		}
	})

	t.Run("killed", func(t *testing.T) {
		t.Setenv("TMPDIR", t.TempDir()) // its folder remains
		p := start(t, program)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		p.rest()
		_ = p.cmd.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for tick := time.Tick(10 * time.Millisecond); len(processes(t, program)) > 0; {
			select {
			case <-tick:
			case <-ctx.Done():
				t.Fatal("Caddy outlives the demo")
			}
		}
	})
}

// leavesNothing checks at the end of the test that no process and no file is left.
func leavesNothing(t *testing.T, program string) {
	t.Helper()
	temp, home := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	if os.Getenv("XDG_CACHE_HOME") == "" { // where the real servers are
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("XDG_CACHE_HOME", cache)
	}
	t.Setenv("HOME", home)
	t.Cleanup(func() {
		if left := processes(t, program); len(left) > 0 {
			t.Errorf("processes %v are left", left)
		}
		for _, dir := range []string{temp, home} {
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) > 0 {
				t.Errorf("%v is left in %s (%v)", entries, dir, err)
			}
		}
	})
}

// processes returns those that run the program, on Linux.
func processes(t *testing.T, program string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // gone meanwhile
		if !strings.HasPrefix(string(text), program+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// process is a demo in a process of its own.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	lines  *bufio.Scanner
	out    strings.Builder
	errs   strings.Builder // complete after cmd.Wait
}

// start returns when the demo is at its prompt.
func start(t *testing.T, program string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.CommandContext(t.Context(), self, "-caddy", program, "-listen", "127.0.0.1:0")}
	p.cmd.Env = append(os.Environ(), asDemo+"=1")
	p.cmd.Stderr = &p.errs
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(p.stdout)
	for p.next() {
		if strings.HasPrefix(p.lines.Text(), "Enter:") {
			return p
		}
	}
	_ = p.cmd.Wait()
	t.Fatalf("no prompt\n%s\n%s", &p.out, &p.errs)
	return nil
}

func (p *process) next() bool {
	ok := p.lines.Scan()
	fmt.Fprintln(&p.out, p.lines.Text())
	return ok
}

// rest reads to the end of the output.
func (p *process) rest() {
	for p.next() {
	}
}
