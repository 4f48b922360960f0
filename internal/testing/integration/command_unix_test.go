// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build unix

package integration

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

const logLevelPath = "/config/logging/logs/default/level"

func TestDropInCommandObeysSignals(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		flags []string
		on    string // the level when logging is on
	}{
		{"-v", []string{"-v"}, "INFO"},
		{"-v -l", []string{"-v", "-l"}, "INFO"},
		{"-vv", []string{"-vv"}, "DEBUG"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := startCommand(t, row.flags...)
			s.signal(syscall.SIGUSR2, "FATAL")
			s.quiet("/v1/off")
			s.signal(syscall.SIGUSR1, row.on)
			s.loud("/v1/on")
			s.signal(syscall.SIGUSR1, row.on) // it is on already
			s.signal(syscall.SIGUSR2, "FATAL")
			s.quiet("/v1/off/again")
		})
	}
}

// Without -v a request is no reason for a line, neither before nor after the signals: they do not change what is logged.
func TestDropInCommandTurnsOnTheLevelOfItsFlags(t *testing.T) {
	t.Parallel()
	s := startCommand(t, "-l")
	s.signal(syscall.SIGUSR1, "WARN")
	s.await("the signal is logged", func() bool { return strings.Contains(s.Log(), "logging is turned on by SIGUSR1") })
	s.quiet("/v1/x")
}

func TestDropInCommandObeysSignalsUnderALevelOfTheAdminAPI(t *testing.T) {
	t.Parallel()
	s := startCommand(t, "-v")
	s.setLevel("DEBUG")
	s.signal(syscall.SIGUSR2, "FATAL")
	s.quiet("/v1/off")
	s.signal(syscall.SIGUSR1, "DEBUG") // not the flags' level: the operator has asked for another since
	s.loud("/v1/on")
	s.setLevel("FATAL") // turned off there, too
	s.quiet("/v1/off/again")
	s.signal(syscall.SIGUSR1, "DEBUG")
	s.loud("/v1/on/again")
	s.setLevel("panic") // logs nothing, either
	s.signal(syscall.SIGUSR1, "DEBUG")
}

// Logging goes on and off without harm to the requests that come in meanwhile, and the process does not grow.
func TestDropInCommandObeysManySignals(t *testing.T) {
	t.Parallel()
	s := startCommand(t, "-v")
	s.signal(syscall.SIGUSR2, "FATAL")
	before := s.goroutines().Ours()
	for range 10 {
		s.signal(syscall.SIGUSR1, "INFO")
		if code, _, _ := get(t, s.site+"/v1/x"); code != http.StatusTemporaryRedirect {
			t.Errorf("status %d", code)
		}
		s.signal(syscall.SIGUSR2, "FATAL")
	}
	s.await("as many goroutines as before", func() bool { return s.goroutines().Ours() <= before })
}

// command is a running drop-in command.
type command struct {
	*server
	site string
}

func startCommand(t *testing.T, flags ...string) *command {
	t.Helper()
	consul := standin.RunConsul(t, originalData()...)
	p := harness.Port(t)
	s := &command{server: runCommand(t, append(append([]string{"vault-redirect", "-P", p}, flags...), consul.Addr())...)}
	s.site = "http://" + s.IP + ":" + p
	s.await("it answers", func() bool { return answers(s.site) })
	return s
}

// level is the level of the log, as the admin API shows it.
func (s *command) level() string {
	s.t.Helper()
	code, answer := s.admin("GET", logLevelPath, "", "")
	if code != http.StatusOK {
		s.t.Fatalf("level: status %d: %s", code, answer)
	}
	return strings.Trim(answer, "\"\n")
}

func (s *command) setLevel(level string) {
	s.t.Helper()
	if code, answer := s.admin("POST", logLevelPath, "application/json", `"`+level+`"`); code != http.StatusOK {
		s.t.Fatalf("set the level: status %d: %s", code, answer)
	}
}

// signal sends a signal, and waits for the level that follows.
func (s *command) signal(signal syscall.Signal, want string) {
	s.t.Helper()
	// The command listens to signals once its config runs, which is a little later than that it answers.
	s.await(signal.String()+": "+want, func() bool {
		if err := s.Signal(signal); err != nil {
			s.t.Fatal(err)
		}
		return s.level() == want
	})
}

const requestLine = "handled request"

func (s *command) loud(path string) {
	s.t.Helper()
	get(s.t, s.site+path)
	s.await(path+" is logged", func() bool { return strings.Contains(s.Log(), path+`"`) && strings.Contains(s.Log(), requestLine) })
}

// quiet fails if a request is logged. The server that a signal has replaced may still take one connection while it shuts down, and
// logs what comes on it: then the next one counts.
func (s *command) quiet(path string) {
	s.t.Helper()
	for _, path := range []string{path + "/first", path} {
		s.askOnOneConnection(path)
		if !strings.Contains(s.Log(), path+`"`) {
			return
		}
	}
	s.t.Errorf("%s is logged although logging is off:\n%s", path, tail(s.Log(), 1000))
}

// askOnOneConnection sends a request twice: its line would be written before the next one on the same connection is answered.
func (s *command) askOnOneConnection(path string) {
	s.t.Helper()
	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	for asked := 0; asked < 2; {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.site+path, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil { // the signal has just replaced the server; see get
			s.await("it answers", func() bool { return answers(s.site) })
			asked = 0
			continue
		}
		readAll(s.t, resp)
		resp.Body.Close()
		asked++
	}
}
