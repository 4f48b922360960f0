// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// expected is how long a build takes where nothing is compiled yet, as seen on two cores.
var expected = map[string]string{"consul": "about 5 minutes on 2 cores", "vault": "about 10 minutes on 2 cores"}

// progressEvery is how often a build, or a wait for another process's, says that it goes on.
const progressEvery = 20 * time.Second

// builder makes one program.
type builder struct {
	title    string // "consul v1.22.5"
	dir      string // of the module with the tool line
	module   string // the main package
	path     string // of the program
	progress func(format string, args ...any)
}

// buildOnce builds the program, or waits until the process that builds it already is done.
func (b *builder) buildOnce(ctx context.Context, duration string) error {
	var said time.Time
	waiting := func() {
		if time.Since(said) > progressEvery {
			said = time.Now()
			b.progress("%s: another process builds it; waiting for that", b.title)
		}
	}
	unlock, err := lock(ctx, b.path+".lock", waiting)
	if err != nil {
		return err
	}
	defer unlock()
	if isProgram(b.path) { // another process built it while this one waited
		b.progress("%s: in the cache: %s (%s)", b.title, b.path, size(b.path))
		return nil
	}
	// What is there now belongs to a build that was killed: a process that builds holds the lock.
	left, err := filepath.Glob(b.path + ".*.tmp")
	if err != nil {
		return err
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove what a build left: %w", err)
		}
	}
	return b.build(ctx, duration)
}

// build compiles the module and moves the program to its path in one step, so that half of it is never started.
func (b *builder) build(ctx context.Context, duration string) (err error) {
	tmp := fmt.Sprintf("%s.%d.tmp", b.path, os.Getpid())
	defer func() {
		if rmErr := os.Remove(tmp); err == nil && rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
			err = rmErr
		}
	}()
	cmd := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", tmp, b.module)
	cmd.Dir = b.dir
	// A caller's workspace or race flags must not decide what is cached.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	cmd.Cancel = func() error { return interrupt(cmd.Process) } // so that it removes its own temporary files
	cmd.WaitDelay = 10 * time.Second
	begin := time.Now()
	b.progress("%s: building, %s", b.title, cmp.Or(duration, "some minutes"))
	out := &goOutput{}
	cmd.Stdout, cmd.Stderr = out, out
	stop := b.tell(begin, out)
	err = cmd.Run()
	stop()
	if err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", b.module, b.dir, err, out.errors())
	}
	if err := os.Rename(tmp, b.path); err != nil {
		return fmt.Errorf("build %s: %w", b.module, err)
	}
	b.progress("%s: built in %s: %s (%s)", b.title, time.Since(begin).Round(time.Second), b.path, size(b.path))
	return nil
}

// tell says how far the build is, until stopped.
func (b *builder) tell(begin time.Time, out *goOutput) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.Tick(progressEvery); ; {
			select {
			case <-tick:
				b.progress("%s: %s, %s", b.title, time.Since(begin).Round(time.Second), out.count())
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// goOutput takes what `go build -v` says: a line for each module that is downloaded and for each package that is
// compiled, which it counts, and what went wrong, which it keeps.
type goOutput struct {
	mu                   sync.Mutex
	rest                 bytes.Buffer // begin of a line
	kept                 []string
	downloaded, compiled int
}

// packageLine is a line that names a package and says nothing else.
var packageLine = regexp.MustCompile(`^[\w.~/+-]+$`)

func (o *goOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest.Write(p)
	for {
		line, err := o.rest.ReadString('\n')
		if errors.Is(err, io.EOF) {
			o.rest.WriteString(line)
			return len(p), nil
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(line, "go: downloading "):
			o.downloaded++
		case packageLine.MatchString(line):
			o.compiled++
		default:
			o.kept = append(o.kept, line)
		}
	}
}

func (o *goOutput) count() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.compiled == 0 {
		return fmt.Sprintf("%d modules downloaded", o.downloaded)
	}
	return fmt.Sprintf("%d packages compiled", o.compiled)
}

// errors is the end of what was said beside packages and downloads.
func (o *goOutput) errors() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := append(o.kept, o.rest.String())
	return strings.Join(all[max(0, len(all)-40):], "\n")
}

// size is the size of a file in words.
func size(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d MB", (info.Size()+500_000)/1_000_000)
}
