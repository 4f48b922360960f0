// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

const asDemo = "TEST_RUNS_THE_DEMO"

// TestMain lets this program be the demo, for what needs a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv(asDemo) != "" {
		main()
	}
	os.Exit(harness.Main(m))
}

// built returns a Caddy with this plugin.
func built(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs Caddy: left out with -short (make test-quick)")
	}
	program, err := harness.Build(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func TestDemo(t *testing.T) {
	program := built(t)
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1") // which must not matter
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
}

// TestReal runs the demo once on real servers.
func TestReal(t *testing.T) {
	cluster.Needed(t)
	program := built(t)
	for _, name := range []string{"consul", "vault"} {
		if _, err := cluster.Program(t.Context(), name, t.Logf); err != nil {
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

// TestDemoCannotStart takes its port away, and its Caddy.
func TestDemoCannotStart(t *testing.T) {
	program := built(t)
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
		if runtime.GOOS == "windows" {
			t.Skip("needs a shell")
		}
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
}
