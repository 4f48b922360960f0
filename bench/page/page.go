// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package page writes what benchmarks have measured into a page of Markdown, with what they ran on.
package page

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

// Machine is where a benchmark took place.
type Machine struct {
	Date                       time.Time
	cpu, kernel, before, after string
	versions                   []string
}

// NewMachine looks at the machine before the benchmark. The programs are those that it uses besides Caddy.
func NewMachine(ctx context.Context, programs ...string) *Machine {
	m := &Machine{Date: time.Now(), before: load(), cpu: fmt.Sprintf("%d cores", runtime.NumCPU()), versions: []string{runtime.Version()}}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.cpu += ", " + strings.TrimSpace(value)
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.kernel = runtime.GOOS + " " + strings.TrimSpace(string(text))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		m.versions = append(m.versions, commit(info)...)
		for _, d := range info.Deps {
			if d.Path == "github.com/caddyserver/caddy/v2" {
				m.versions = append(m.versions, "Caddy "+d.Version)
			}
		}
	}
	for _, name := range programs {
		if version := version(ctx, name); version != "" {
			m.versions = append(m.versions, version)
		}
	}
	return m
}

// commit says what the running program was built from.
func commit(info *debug.BuildInfo) []string {
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if len(revision) < 7 {
		return nil
	}
	text := "this plugin at " + revision[:7]
	if settings["vcs.modified"] == "true" {
		text += ", modified"
	}
	return []string{text}
}

// version is the first line of what a program says of itself, "" if it is not installed.
func version(ctx context.Context, name string) string {
	flag, path, err := "-v", "", error(nil)
	switch name {
	case "consul", "vault":
		flag = "version"
		path, err = cluster.Program(ctx, name, nil)
	case "h2load":
		flag = "--version"
		fallthrough
	default:
		path, err = exec.LookPath(name)
	}
	if err != nil {
		return ""
	}
	text, _ := exec.CommandContext(ctx, path, flag).CombinedOutput() // wrk fails after it has told its version
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

// End is called when the benchmark is over.
func (m *Machine) End() { m.after = load() }

// Versions is a sentence on what was used.
func (m *Machine) Versions() string { return "Versions: " + strings.Join(m.versions, "; ") + "." }

// String is a paragraph on the machine and one on the versions.
func (m *Machine) String() string {
	return fmt.Sprintf("The machine: %s, %s, all on loopback. Load average (1, 5, 15 minutes) before the benchmark %s, at its end %s: what it "+
		"exceeds the benchmark's own load is other work on the machine.\n\n%s\n",
		m.cpu, m.kernel, m.before, m.after, m.Versions())
}

// load is the load average of the last 1, 5 and 15 minutes.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// Table returns a table in Markdown.
func Table(columns []string, lines [][]string) string {
	text := fmt.Sprintf("| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
	for _, line := range lines {
		text += fmt.Sprintf("| %s |\n", strings.Join(line, " | "))
	}
	return text
}

// Median returns the median of measured values with the least and the most, divided by a scale; "–" if there are none.
func Median(of []float64, scale float64, digits int) string {
	if len(of) == 0 {
		return "–"
	}
	sorted := slices.Sorted(slices.Values(of))
	text := func(v float64) string { return fmt.Sprintf("%.*f", digits, math.Max(0, v/scale)) }
	return fmt.Sprintf("%s (%s–%s)", text(sorted[len(sorted)/2]), text(sorted[0]), text(sorted[len(sorted)-1]))
}

// Replace puts text into a page in place of what the run of that name wrote last, or at its end.
func Replace(file, name, text string) error {
	old, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = []byte("# Benchmarks\n\n")
	case err != nil:
		return err
	}
	begin, end := "<!-- begin: "+name+" -->\n", "<!-- end: "+name+" -->\n"
	before, rest, found := strings.Cut(string(old), begin)
	after := ""
	if found {
		_, after, _ = strings.Cut(rest, end)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}
