// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// The demo is run as its readers run it, and leaves nothing behind.

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

const asDemo = "TEST_RUNS_THE_DEMO"

// TestMain lets this program be the demo, for what needs a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv(asDemo) != "" {
		main()
	}
	os.Exit(runTests(m))
}

var caddyDir string

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "demo-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	caddyDir = dir
	return m.Run()
}

// buildCaddy returns the path of a Caddy with this plugin.
var buildCaddy = sync.OnceValues(func() (string, error) {
	program := filepath.Join(caddyDir, "caddy")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/caddy").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build caddy: %w\n%s", err, out)
	}
	return program, nil
})

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs Caddy")
	}
	program, err := buildCaddy()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1") // somebody's own, which must not matter
	t.Setenv("CONSUL_HTTP_SSL", "true")

	tests := []struct {
		name       string
		flags      []string
		input      string
		failovers  int
		want, lack []string
	}{
		{
			name: "once", flags: []string{"-once"}, failovers: 1,
			want: []string{"vault-0 steps down", "vault-0 at 127.0.0.1:", "vault-1 at 127.0.0.1:"},
			lack: []string{"Enter:", "503 Service"},
		},
		{
			name: "end of input", failovers: 1,
			want: []string{"  curl -i http://127.0.0.1:", "# a failover"},
		},
		{
			name: "enter", input: "\n\n\nq\n", failovers: 4,
			want: []string{"vault-1 is killed", "vault-1 is started again", "vault-2 steps down", "vault-0 is killed"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			leavesNothing(t, program)
			begin := time.Now()
			var out, errs strings.Builder
			args := append([]string{"-caddy", program, "-listen", "127.0.0.1:0"}, test.flags...)
			if code := run(t.Context(), args, strings.NewReader(test.input), &out, &errs); code != 0 || errs.Len() > 0 {
				t.Fatalf("exit code %d, want 0\n%s\n%s", code, &out, &errs)
			}
			t.Logf("%s\n%s", time.Since(begin), &out)
			head := strings.Join(strings.Split(out.String(), "\n")[:4], "\n")
			for _, want := range []string{"real: ", "Caddy with this plugin", "stand-in: ", "Consul and the three Vault nodes"} {
				if !strings.Contains(head, want) {
					t.Errorf("the first lines lack %q", want)
				}
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the output lacks %q", want)
				}
			}
			for _, lack := range test.lack {
				if strings.Contains(out.String(), lack) {
					t.Errorf("the output has %q", lack)
				}
			}
			checkRedirects(t, out.String(), test.failovers)
		})
	}

	t.Run("port taken", func(t *testing.T) {
		leavesNothing(t, program)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		var out, errs strings.Builder
		code := run(t.Context(), []string{"-caddy", program, "-listen", listener.Addr().String()}, nil, &out, &errs)
		if code != 1 || out.Len() > 0 || strings.Count(errs.String(), "\n") != 1 ||
			!strings.Contains(errs.String(), listener.Addr().String()+" is taken") || !strings.Contains(errs.String(), "-listen") {
			t.Errorf("exit code %d, want 1 and one line\n%s\n%s", code, &out, &errs)
		}
	})

	t.Run("caddy fails", func(t *testing.T) {
		leavesNothing(t, program)
		broken := filepath.Join(t.TempDir(), "caddy")
		if err := os.WriteFile(broken, []byte("#!/bin/sh\necho I cannot\nexit 7\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		code := run(t.Context(), []string{"-caddy", broken, "-listen", "127.0.0.1:0"}, nil, &out, &errs)
		if code != 1 || !strings.Contains(errs.String(), "exit status 7") || !strings.Contains(errs.String(), "I cannot") {
			t.Errorf("exit code %d, want 1 and the log\n%s\n%s", code, &out, &errs)
		}
	})

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

	if runtime.GOOS != "linux" {
		return // the rest needs /proc and the parent's death signal
	}

	t.Run("caddy dies", func(t *testing.T) {
		leavesNothing(t, program)
		p := start(t, program)
		for _, pid := range processes(t, program) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
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

// TestReal runs the demo once on real servers.
func TestReal(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("needs Linux, and a real Consul and Vault, which may have to be built first")
	}
	program, err := buildCaddy()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"consul", "vault"} {
		if _, err := cluster.Program(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	leavesNothing(t, program)
	t.Setenv("HOME", t.TempDir()) // Vault makes .cache/snowflake there
	var out, errs strings.Builder
	args := []string{"-real", "-caddy", program, "-listen", "127.0.0.1:0"}
	if code := run(t.Context(), args, strings.NewReader("\n\n"), &out, &errs); code != 0 || errs.Len() > 0 {
		t.Fatalf("exit code %d, want 0\n%s\n%s", code, &out, &errs)
	}
	t.Logf("\n%s", &out)
	if !strings.Contains(out.String(), "stand-in:  nothing") || !strings.Contains(out.String(), "kv put secret/demo") {
		t.Error("the output does not fit real servers")
	}
	checkRedirects(t, out.String(), 3)
}

var location = regexp.MustCompile(`(?m)^Location: http://(127\.\d+\.\d+\.\d+:\d+)/v1/secret/data/demo$`)

// checkRedirects wants each redirect to lead elsewhere than the one before.
func checkRedirects(t *testing.T, out string, failovers int) {
	t.Helper()
	found := location.FindAllStringSubmatch(out, -1)
	if len(found) != failovers+1 || strings.Count(out, "HTTP/1.1 307 Temporary Redirect\n") != failovers+1 {
		t.Fatalf("%d redirects, want %d", len(found), failovers+1)
	}
	for i := 1; i < len(found); i++ {
		if found[i][1] == found[i-1][1] {
			t.Errorf("redirect %d leads to %s as the one before", i, found[i][1])
		}
	}
	if n := strings.Count(out, `answers 200 OK: {"greeting":"hello"}`); n != failovers+1 {
		t.Errorf("the secret is given %d times, want %d", n, failovers+1)
	}
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
