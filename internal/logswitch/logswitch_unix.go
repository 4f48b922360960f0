// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build unix

package logswitch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"go.uber.org/zap"
)

const logLevelPath = "/config/logging/logs/" + caddy.DefaultLoggerName + "/level"

// ObeySignals makes SIGUSR1 turn logging on, and SIGUSR2 off. Logging that is turned on again has the level that it had
// before: that of the flags, or one that the admin API has set since. It sets the level of the default log, which the admin API
// also shows and sets.
func ObeySignals(level string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range spaced(signals, betweenSignals) {
			if err := obey(s, &level); err != nil {
				// Not to the log, which may be off.
				fmt.Fprintf(os.Stderr, "%s: logging could not be changed: %v\n", s, err)
			}
		}
	}()
}

// betweenSignals is the least time between two signals that are obeyed, since each may cause a reload.
const betweenSignals = 250 * time.Millisecond

// spaced yields signals as they arrive, but at most one in a time of least. Of several that arrive meanwhile, it yields the last.
func spaced(signals <-chan os.Signal, least time.Duration) iter.Seq[os.Signal] {
	return func(yield func(os.Signal) bool) {
		for next := <-signals; yield(next); {
			next = nil
			for pause := time.After(least); pause != nil || next == nil; {
				select {
				case next = <-signals:
				case <-pause:
					pause = nil
				}
			}
		}
	}
}

// obey turns logging on or off. While it is on, its level is kept in on, which is the level to turn it on to.
func obey(s os.Signal, on *string) error {
	level, err := logLevel()
	if err != nil {
		return err
	}
	off := level == "PANIC" || level == Off
	if !off {
		*on = level
	}
	pid := zap.Int("pid", os.Getpid())
	switch {
	case s == syscall.SIGUSR2 && off:
		return nil
	case s == syscall.SIGUSR2:
		caddy.Log().Warn("logging is turned off by SIGUSR2; SIGUSR1 turns it on", pid)
		return setLogLevel(Off)
	case off:
		if err := setLogLevel(*on); err != nil {
			return err
		}
	}
	caddy.Log().Warn("logging is turned on by SIGUSR1; SIGUSR2 turns it off", pid, zap.String("level", *on))
	return nil
}

// logLevel returns the level of the default log, in capitals.
func logLevel() (string, error) {
	answer, err := askSelf(http.MethodGet, logLevelPath, "")
	if err != nil {
		return "", err
	}
	var level string
	if err := json.Unmarshal(answer, &level); err != nil {
		return "", fmt.Errorf("level of the log: %w", err)
	}
	return cmp.Or(strings.ToUpper(level), "INFO"), nil // Caddy's default
}

func setLogLevel(level string) error {
	_, err := askSelf(http.MethodPost, logLevelPath, `"`+level+`"`)
	return err
}

// askSelf sends a request to the admin endpoint of this process, and returns the answer. It tries again if the connection
// breaks, as it may while a config is being loaded.
func askSelf(method, path, body string) (answer []byte, err error) {
	for range 3 {
		var resp *http.Response
		resp, err = caddycmd.AdminAPIRequest(caddy.DefaultAdminListen, method, path, http.Header{"Connection": {"close"}}, strings.NewReader(body))
		if err != nil {
			continue
		}
		answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		_ = resp.Body.Close() // all of it is read
		if err == nil {
			break
		}
	}
	return answer, err
}
