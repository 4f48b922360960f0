// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command demo shows redirects and failovers: a real Caddy with this plugin in front of a Consul and three Vault nodes,
// which are played inside this program, or real with -real.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
)

const (
	secretPath = "/v1/secret/data/demo"
	pagePath   = "/vault-redirector-status" // as in demo.Caddyfile

	startTimeout    = 30 * time.Second // of Caddy, on a machine that is busy
	failoverTimeout = time.Minute
	answerTimeout   = 10 * time.Second // of a node that has just become active
	pollEvery       = 2 * time.Millisecond
)

// options are the command line.
type options struct {
	caddy  string
	listen string
	real   bool
	once   bool
}

// demo is one run.
type demo struct {
	options
	stdin  io.Reader
	out    io.Writer
	begin  time.Time
	base   string // http://host:port of Caddy
	dir    string // removed at the end
	vaults vaults
	caddy  *harness.Caddy

	program string       // Caddy, as it was given
	client  *http.Client // follows no redirect
}

func main() {
	// A reader that is gone (demo | head) is an error of that write, not the death of this program before it has cleaned up.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program; the end of ctx is a Ctrl-C. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &demo{stdin: stdin, out: endsWith{stdout, cancel}, begin: time.Now()}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&d.options.caddy, "caddy", "./caddy", "the Caddy to run, built from ./cmd/caddy")
	flags.StringVar(&d.listen, "listen", "127.0.0.1:8080", "where Caddy listens; port 0 is a free one")
	flags.BoolVar(&d.real, "real", false, "use a real Consul and real Vault nodes (Linux)")
	flags.BoolVar(&d.once, "once", false, "end after the first failover")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "demo: unexpected argument %q\n", flags.Arg(0))
		return 2
	}

	err := d.run(ctx)
	interrupted := ctx.Err() != nil
	err = errors.Join(err, d.close())
	switch {
	case interrupted && d.once:
		fmt.Fprintln(stderr, "demo: interrupted")
		return 1
	case interrupted:
		fmt.Fprintln(stdout) // after the terminal's ^C
	case err != nil:
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
	fmt.Fprintln(stdout, "The end: all servers are stopped, all files removed.")
	return 0
}

// endsWith is a writer that ends the program when nothing reads its output any more.
type endsWith struct {
	io.Writer
	cancel context.CancelFunc
}

func (e endsWith) Write(b []byte) (int, error) {
	n, err := e.Writer.Write(b)
	if err != nil {
		e.cancel()
	}
	return n, err
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// run returns nil when the demo is over, or an error.
func (d *demo) run(ctx context.Context) error {
	if err := d.prepare(); err != nil {
		return err
	}
	d.introduce()
	if err := d.startVaults(ctx); err != nil {
		return err
	}
	if err := d.startCaddy(ctx); err != nil {
		return err
	}
	if err := d.writeSecret(ctx); err != nil {
		return err
	}
	active, err := d.vaults.active(ctx)
	if err != nil {
		return err
	}
	d.printf("\n1. %s is active. A client asks for a secret:\n\n", active)
	if err := d.showRedirect(ctx); err != nil {
		return err
	}
	d.printf("\n2. ")
	if err := d.failover(ctx, stepDown); err != nil || d.once {
		return err
	}
	d.suggest()
	return d.interact(ctx)
}

// prepare finds out what would be in the way, before anything is started or said.
func (d *demo) prepare() (err error) {
	d.program = d.options.caddy
	program, err := exec.LookPath(d.program)
	if err != nil {
		return fmt.Errorf("no Caddy at %s: build it with `go build -o caddy ./cmd/caddy`, or name it with -caddy", d.options.caddy)
	}
	if d.options.caddy, err = filepath.Abs(program); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(d.listen)
	if err != nil {
		return fmt.Errorf("-listen: %q is not host:port, such as 127.0.0.1:8081", d.listen)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if errors.Is(err, syscall.EADDRINUSE) {
		again := os.Args[0]
		if strings.Contains(again, "go-build") { // a folder of the moment
			again = "go run ./examples/demo"
		}
		again += " -caddy " + d.program + " -listen 127.0.0.1:"
		if d.real {
			again = strings.Replace(again, " -listen", " -real -listen", 1)
		}
		other := "0"
		if n, err := strconv.Atoi(port); err == nil && n < 65535 {
			other = strconv.Itoa(n + 1)
		}
		return fmt.Errorf("%s is taken by another program; choose another port: %s%s", d.listen, again, other)
	} else if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	if err := listener.Close(); err != nil {
		return err
	}
	d.listen = net.JoinHostPort(host, port)
	d.base = "http://" + d.listen
	d.client = &http.Client{
		Transport:     &http.Transport{}, // no proxy
		Timeout:       answerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	d.dir, err = os.MkdirTemp("", "vault-demo-")
	return err
}
